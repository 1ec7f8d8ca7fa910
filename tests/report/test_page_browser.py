"""The page in headless Chromium: it ranks as the Python code does, asks no network, and runs nobody's script."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.report.crossovers import crossover
from benchmark.report.greeness import TAU, greeness, greeness_ci95, rank_ranges
from benchmark.report.page.build import page
from benchmark.report.page.content import content
from benchmark.report.summary import SummaryRow
from benchmark.report.turns import cycle_of, reigns
from tests.report.page_rows import HOSTILE, all_rows, source

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which(CHROMIUM) and shutil.which(DRIVER)),
        reason="Debian's chromium and chromium-driver are not installed",
    ),
]

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--window-size=1280,900",
)  # fmt: skip  # a flag a line says no more


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def rows() -> list[SummaryRow]:
    return all_rows()


@pytest.fixture(scope="module")
def url(rows, tmp_path_factory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(content(source(*rows), 2.0)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, url):
    """The page as it opens, its logs empty before."""
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(url)
    yield browser
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []


def asked(browser, control: str, value: float) -> None:
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))",
        control,
        str(value),
    )


def ranked(browser) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('#rows tr[data-id]')].map(e => e.dataset.id)")


def ties(browser) -> list[str]:
    script = "return [...document.querySelectorAll('#rows tr[data-id]')].map(e => e.cells[0].textContent)"
    return browser.execute_script(script)


def by_python(rows: list[SummaryRow], mui: float, tau: float, floor: float) -> list[tuple[str, str]]:
    """Rank and name of the first group's rows, by the code that makes the tables."""
    own = [row for row in rows if row.infer_machine == "gpu" and not math.isnan(row.tec_wh) and row.acc_pct >= floor]
    values = [greeness(row.acc_pct, row.tec_wh, row.iec_wh, mui, tau) for row in own]
    half_widths = [greeness_ci95(*cycle_of(row), mui, tau) for row in own]
    ranges = dict(zip([row.experiment for row in own], rank_ranges(values, half_widths), strict=True))
    ordered = sorted(zip(values, own, strict=True), key=lambda each: -each[0])
    told = []
    for place, (_, row) in enumerate(ordered, start=1):
        ranks = ranges[row.experiment]
        assert ranks is not None
        tie = "" if ranks.best == ranks.worst else f" tie {ranks.best}–{ranks.worst}"
        told.append((f"{place}{tie}", row.experiment))
    return told


@pytest.mark.parametrize(
    ("exponent", "tau", "floor"),
    [(9, 2, 0), (3, 2, 0), (12, 2, 0), (8.3, 2, 0), (9, 10, 0), (9, 0.5, 0), (7.95, 5, 72)],
)
def test_moving_the_sliders_ranks_as_the_tables_do(opened, rows, exponent, tau, floor):
    for control, value in (("mui", exponent), ("tau", tau), ("floor", floor)):
        asked(opened, control, value)
    assert list(zip(ties(opened), ranked(opened), strict=True)) == by_python(rows, 10**exponent, tau, floor)


def test_the_first_answer_stands_at_once(opened, rows):
    told = opened.find_element("id", "answer").text
    assert "For 1 billion inferences" in told
    assert f"{by_python(rows, 1e9, TAU, 0)[0][1]} on nni/vgg16" in told


def test_turns_are_those_of_the_tables(opened, rows):
    script = "return figures.reigns(arguments[0], 2).map(e => [e.from, e.row.id])"
    own = [row for row in rows if row.infer_machine == "gpu" and not math.isnan(row.tec_wh)]
    plain = [{"id": row.experiment, "acc": [row.acc_pct], "tec": [row.tec_wh], "iec": [row.iec_wh]} for row in own]
    found = opened.execute_script(script, plain)
    wanted = reigns({row.experiment: cycle_of(row) for row in own})
    assert [name for _, name in found] == [each.name for each in wanted]
    assert [mui for mui, _ in found] == pytest.approx([each.first_mui for each in wanted])
    first, second = (next(row for row in own if row.experiment == each.name) for each in wanted[:2])
    assert found[1][0] == pytest.approx(crossover(cycle_of(first), cycle_of(second)).mui)


def test_nothing_is_asked_of_a_network(browser, url):
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get(url)
    asked(browser, "mui", 6)
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert sent == [url]


def test_a_hostile_name_runs_no_script(opened):
    assert opened.title.startswith("Full-cycle energy")
    assert opened.execute_script("return document.images.length") == 0
    cells = opened.execute_script("return [...document.querySelectorAll('#rows td')].map(e => e.textContent)")
    assert any(HOSTILE in text for text in cells), "its name is shown as it is"


def test_details_open_by_keyboard_and_stay_in_the_address(opened):
    from selenium.webdriver.common.keys import Keys

    for control, value in (("mui", 8.25), ("tau", 1.5), ("floor", 72.5)):
        asked(opened, control, value)
    button = opened.find_element("css selector", "#rows button")
    button.send_keys(Keys.ENTER)
    assert opened.find_element("css selector", "#rows tr.details").is_displayed()
    assert opened.switch_to.active_element.get_attribute("aria-expanded") == "true"
    before, address = list(zip(ties(opened), ranked(opened), strict=True)), opened.current_url
    assert len(before) == 4, "the floor leaves some out"
    opened.get("about:blank")
    opened.get(address)
    assert list(zip(ties(opened), ranked(opened), strict=True)) == before
    assert opened.find_element("css selector", "#rows tr.details").is_displayed()


def test_the_address_holds_what_was_asked(opened, rows, url):
    opened.get("about:blank")
    opened.get(f"{url}#g=0&m=7.5&t=3.5&a=72")
    assert list(zip(ties(opened), ranked(opened), strict=True)) == by_python(rows, 10**7.5, 3.5, 72)
    opened.get("about:blank")
    opened.get(f"{url}#g=99&m=nothing&t=-1&without=nobody&row={'x' * 50}")
    assert ranked(opened) == [name for _, name in by_python(rows, 1e9, 2, 0)], "what cannot be is left out"


def test_families_and_hardware_filter(opened):
    opened.execute_script("document.querySelector('#families input[value=pruning]').click()")
    assert not any(name.startswith("pruning") for name in ranked(opened))
    opened.execute_script(
        "const e = document.getElementById('hardware'); e.value = 'cpu'; e.dispatchEvent(new Event('change'))"
    )
    assert ranked(opened) == ["elsewhere"]
    assert "estimated, not measured" in opened.find_element("id", "answer").text


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1280, True)])
def test_it_fits_a_phone_and_the_dark(opened, width, dark):
    phone = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": width < 600}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    time.sleep(0.3)
    try:
        wide = opened.execute_script("return document.documentElement.scrollWidth")
        ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        drawn = opened.execute_script("return document.querySelector('#chart canvas').width")
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert wide <= width, "it scrolls sideways"
    assert (sum(map(int, ground[4:-1].split(","))) < 200) is dark
    assert drawn > 0.7 * width
