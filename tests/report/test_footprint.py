"""Money and carbon: by what the user names, and in no energy. Golden numbers are reckoned by hand."""

from __future__ import annotations

import importlib.util
import json
import math
from importlib import metadata

import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError

from benchmark.errors import UserError
from benchmark.plan.asked import Asked, as_list
from benchmark.plan.config import ConfigError, compose, report_of
from benchmark.plan.quick import FEW, compose_all
from benchmark.report import footprint as module
from benchmark.report.footprint import Footprint, co2e_kg, footprint_of, g_co2e, money, notes, said, with_footprint
from benchmark.report.summary import EMPTY, SummaryRow

LIFE = {
    "acc_pct": 70.0, "tec_wh": 1000.0, "iec_wh": 4e-6, "tau": 2.0, "n_seeds": 1, "train_seconds": 7200.0,
    "seconds_per_image": 3.6e-6,
}  # fmt: skip  # one value a line would hide the life
"""1 kWh and 2 h of training; half a billion inferences: 2 kWh and 1800 s = half an hour."""

GRID = Footprint(g_per_kwh=400.0, pue=1.5, grid="named by the user")

needs_table = pytest.mark.skipif(
    importlib.util.find_spec("codecarbon") is None, reason="CodeCarbon (extra [report]) is not installed"
)


def row(**values) -> SummaryRow:
    return SummaryRow(**(EMPTY | LIFE | values))


def asked(**values) -> Asked:
    return Asked(tau=2, **values)


def test_carbon_of_a_life_by_hand():
    (found,) = with_footprint([row()], GRID)
    assert found.co2e_train_kg == pytest.approx(0.6)  # 1 kWh x 1.5 x 0.4 kg
    assert found.co2e_500m_kg == pytest.approx(1.8)  # 3 kWh
    assert found.g_co2e_500m == pytest.approx(4900 / 1.8)  # 70 squared
    assert found.footprint == "400 g CO2e per kWh (named by the user); PUE 1.5"
    assert math.isnan(found.money_train)
    assert math.isnan(found.money_500m)


def test_money_of_a_life_by_hand():
    both = Footprint(price_kwh=0.3, price_device_hour=2.0, pue=1.5)
    (found,) = with_footprint([row()], both)
    assert found.money_train == pytest.approx(4.45)  # 0.45 for 1.5 kWh, 4 for two hours
    assert found.money_500m == pytest.approx(6.35)  # 1.35 for 4.5 kWh, 5 for two and a half hours
    assert math.isnan(found.co2e_train_kg)
    assert math.isnan(found.g_co2e_500m)
    assert found.footprint == "0.3 per kWh; 2 per device hour; PUE 1.5"


def test_a_price_that_is_not_named_has_no_part_and_an_unknown_time_is_unknown():
    assert money(1000, math.nan, Footprint(price_kwh=0.3)) == pytest.approx(0.3)
    assert money(math.nan, 7200, Footprint(price_device_hour=2)) == pytest.approx(4)
    assert math.isnan(money(1000, math.nan, Footprint(price_kwh=0.3, price_device_hour=2)))
    assert money(1000, 7200, Footprint(price_kwh=0, price_device_hour=0)) == 0


def test_where_nothing_is_named_nothing_is_said_and_no_energy_ever_changes():
    for each in (Footprint(), Footprint(pue=3), GRID):
        (found,) = with_footprint([row()], each)
        assert (found.tec_wh, found.iec_wh, found.acc_pct) == (1000.0, 4e-6, 70.0)
    (found,) = with_footprint([row()], Footprint(pue=3))
    numbers = (found.money_train, found.money_500m, found.co2e_train_kg, found.co2e_500m_kg, found.g_co2e_500m)
    assert all(map(math.isnan, numbers))
    assert said(Footprint()) == found.footprint == ""
    assert notes(Footprint()) == []
    assert "PUE 3 changes no energy" in notes(Footprint(pue=3))[0]
    assert "400 g CO2e per kWh" in notes(GRID)[0]


def test_unknown_energy_gives_no_carbon_and_a_grid_that_emits_nothing_no_g():
    (found,) = with_footprint([row(tec_wh=math.nan)], GRID)
    assert math.isnan(found.co2e_train_kg)
    assert math.isnan(found.g_co2e_500m)
    assert co2e_kg(1000, Footprint(g_per_kwh=0)) == 0
    assert math.isnan(g_co2e(70, 0.0, 2))
    assert g_co2e(70, 2.0, 1) == 35


@needs_table
def test_a_country_is_dated_and_named_and_the_grid_of_the_user_wins():
    version = metadata.version("codecarbon")
    path = metadata.distribution("codecarbon").locate_file(module.TABLE)
    entry = json.loads(path.read_text())["DEU"]
    found = footprint_of(asked(country="deu", pue=1.2))
    assert found.g_per_kwh == entry["carbon_intensity"]
    assert (found.code, found.place) == ("DEU", "Germany")
    assert said(found).endswith(f"(Germany, {entry['year']}, CodeCarbon {version}); PUE 1.2")
    own = footprint_of(asked(country="XQZ", grid_g_per_kwh=50))
    assert (own.g_per_kwh, own.place, own.grid) == (50, "XQZ", "named by the user")
    assert said(footprint_of(asked())) == ""


@needs_table
@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("DEO", r"did you mean .*DEU \(Germany\)"),
        ("GER", r"did you mean DEU \(Germany\)"),
        ("XQZ", "three-letter codes"),
        ("CAF", "holds no intensity"),
    ],
)
def test_an_unknown_country_is_an_error_with_near_names(code, told):
    with pytest.raises(UserError, match=told) as error:
        footprint_of(asked(country=code))
    assert "grid_g_per_kwh=" in str(error.value)


def test_without_codecarbon_a_country_names_the_remedy_and_a_grid_needs_none(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install .*\[report\].*grid_g_per_kwh="):
        footprint_of(asked(country="DEU"))
    assert footprint_of(asked(grid_g_per_kwh=100)).g_per_kwh == 100
    assert math.isnan(footprint_of(asked(price_kwh=1)).g_per_kwh)


@pytest.mark.parametrize("content", ["no json", "[]", '{"DEU": 3}', '{"DEU": {"carbon_intensity": "x"}}'])
def test_a_damaged_table_is_an_error_and_no_crash(monkeypatch, tmp_path, content):
    class Installed:
        version = "0"

        def locate_file(self, name):
            return tmp_path / "table.json"

    (tmp_path / "table.json").write_text(content)
    monkeypatch.setattr(module.metadata, "distribution", lambda name: Installed())
    with pytest.raises(UserError, match="grid_g_per_kwh="):
        footprint_of(asked(country="DEU"))


@pytest.mark.parametrize(
    ("given", "muis"),
    [(1e7, (1e7,)), ([1e7, 5e8], (1e7, 5e8)), ("1e7, 5e8", (1e7, 5e8)), ((7, 7), (7.0,)), (None, ()), ([], ()), (0, (0.0,))],
)  # fmt: skip  # a line of cases
def test_numbers_of_inferences_are_one_or_several(given, muis):
    assert asked(mui=given).mui == muis


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"mui": -1}, "greater than or equal to 0"),
        ({"mui": [1e7, "many"]}, "'many' is no number of inferences"),
        ({"mui": True}, "give numbers of inferences"),
        ({"mui": [[1, 2]]}, "give numbers of inferences"),
        ({"mui": {"a": 1}}, "give numbers of inferences"),
        ({"mui": list(range(21))}, "at most 20"),
        ({"country": "DE"}, "three letters"),
        ({"country": "D3U"}, "three letters"),
        ({"country": 3}, "country"),
        ({"pue": 0.9}, "greater than or equal to 1"),
        ({"grid_g_per_kwh": -1}, "grid_g_per_kwh"),
        ({"price_kwh": math.nan}, "price_kwh"),
        ({"price_device_hour": math.inf}, "price_device_hour"),
    ],
)
def test_wrong_values_are_refused_by_name(values, told):
    with pytest.raises(ValidationError, match=told):
        asked(**values)


def test_the_command_takes_the_words_and_refuses_wrong_ones_in_a_line():
    _, found = report_of(compose(["mui=1e7,5e8", "country=deu", "pue=1.2", "price_kwh=0.3", "price_device_hour=2"]))
    assert found == asked(mui=(1e7, 5e8), country="DEU", pue=1.2, price_kwh=0.3, price_device_hour=2)
    assert report_of(compose([]))[1] == asked()
    with pytest.raises(ConfigError, match=r"^country: a country is said by three letters"):
        report_of(compose(["country=DE"]))
    with pytest.raises(ConfigError, match="did you mean price_kwh"):
        compose(["price_kw=1"])


def test_a_study_takes_the_same_words():
    jobs = [[word, f"seed={seed}"] for seed, word in enumerate([*["mui=[1e7,5e8]"] * FEW, "mui=1e7,5e8"])]
    for config in compose_all(jobs):
        _, found = report_of(OmegaConf.create(config))
        assert found.mui == (1e7, 5e8)


def test_only_a_list_of_mui_gets_brackets():
    assert as_list("mui=1,2") == "mui=[1,2]"
    assert as_list("mui=[1,2]") == "mui=[1,2]"
    assert as_list("recipe.lr=0.05,0.1") == "recipe.lr=0.05,0.1"
    assert as_list("mui=1") == "mui=1"
