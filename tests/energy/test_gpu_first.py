"""The first hour on a GPU machine, rehearsed: the real command on the compiled fake driver, short steps in the place of
those that need CUDA."""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.energy.fake_nvml import Curve, FakeDriver, shared_library, why_not
from tests.harness.helpers import GPU

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import gpu_first  # noqa: E402 - a script, found where it lies
import gpu_first_report  # noqa: E402 - same
import gpu_first_steps  # noqa: E402 - same
from gpu_first_steps import Places, Step, all_steps  # noqa: E402 - same

needs_driver = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """A fake H100 for every process that is started from now on, with a lock that no other test holds."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # the command adds to it: undone at the end
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    fake = FakeDriver(shared_library(), Curve("sine", lo_w=100, hi_w=300, period_s=0.7), name="Fake H100")
    with fake:
        yield fake


@pytest.fixture
def hour(tmp_path, capsys):
    """Calls gpu-first with these steps: (exit status, what it printed, its state)."""

    def call(*steps: Step, minutes: float = 5, options: tuple[str, ...] = (), plan=None):
        folders = [f"--{name}={tmp_path / name}" for name in ("results", "data", "artifacts")]
        status = gpu_first.main([f"--minutes={minutes}", *folders, *options], plan or (lambda places: steps))
        states = list((tmp_path / "results" / "devices").glob("*-gpu-first.json"))
        state = json.loads(states[0].read_text()) if states else {}
        printed = capsys.readouterr()
        return status, printed.out + printed.err, state

    return call


def python(name: str, code: str, least_s: float = 0, **more) -> Step:
    return Step(name, ("-c", code), least_s, **more)


def report_of(tmp_path: Path) -> str:
    (path,) = (tmp_path / "results" / "devices").glob("*-gpu-first.md")
    return path.read_text()


def test_without_a_gpu_it_says_so_in_one_line(hour, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    status, said, state = hour(python("never", "raise SystemExit(1)"))
    assert status == 1
    assert said.startswith("gpu-first: there is no GPU here (nvml: ")
    assert said.count("\n") == 1
    assert state == {}
    assert list(tmp_path.iterdir()) == []


@needs_driver
def test_steps_pass_fail_and_are_skipped_and_the_report_says_which(driver, hour, tmp_path):
    status, said, state = hour(
        python("probe", "print('first'); print('ticks of 20 ms')"),
        python("gpu-check", "print('FAIL linearity'); raise SystemExit(3)"),
        python("needs what is not there", "", needs=("tensorrt_that_is_not_there",)),
        python("after a failure", "", after="gpu-check"),
        python("in its place", "print('on synthetic images')", instead_of="gpu-check"),
        python("not needed", "", instead_of="probe"),
    )
    assert status == 1
    found = {name: (step["status"], step["why"]) for name, step in state["steps"].items()}
    assert found == {
        "probe": ("passed", ""),
        "gpu-check": ("failed", "exit status 3"),
        "needs what is not there": ("skipped", "tensorrt_that_is_not_there is not installed"),
        "after a failure": ("skipped", "'gpu-check' did not pass"),
        "in its place": ("passed", ""),
        "not needed": ("skipped", "only where 'probe' fails"),
    }
    assert state["steps"]["probe"]["said"] == ["first", "ticks of 20 ms"]
    assert "needs what is not there: skipped: tensorrt_that_is_not_there is not installed" in said
    text = report_of(tmp_path)
    assert "# First hour on Fake H100" in text
    assert "- **FAILED**: Do the driver, torch and the meter find the same board" in text
    assert "- seen: Counter tick" in text
    assert "- not seen: The paper's rows on this board (no such step in this run)" in text
    assert "- not seen: nas: ProxylessNAS and DARTS" in text
    assert "FAIL linearity" in text


@needs_driver
def test_a_second_call_goes_on_and_works_nothing_twice(driver, hour, tmp_path):
    counter = tmp_path / "count"
    first = python("first", f"open({str(counter)!r}, 'a').write('x')")
    long = python("long", "print('never begun')", least_s=40)
    status, said, state = hour(first, long, minutes=0.6)
    assert status == 0
    assert "it needs 40" in said
    assert "unfinished: run the same command again to continue" in said
    assert "long" not in state["steps"]
    status, said, state = hour(first, long)
    assert status == 0
    assert "unfinished" not in said
    assert state["steps"]["long"]["status"] == "passed"
    assert counter.read_text() == "x"


@needs_driver
def test_what_failed_is_tried_again_at_another_commit_only(driver, hour, tmp_path):
    counter = tmp_path / "count"
    failing = python("failing", f"open({str(counter)!r}, 'a').write('x'); raise SystemExit(1)")
    hour(failing)
    hour(failing)
    assert counter.read_text() == "x"
    (path,) = (tmp_path / "results" / "devices").glob("*-gpu-first.json")
    path.write_text(path.read_text().replace('"commit": "', '"commit": "an older '))
    hour(failing)
    assert counter.read_text() == "xx"


@needs_driver
@pytest.mark.parametrize("damage", ["", "{", '{"steps": {"a": {"unknown": 1}}}'])
def test_a_damaged_state_begins_anew(driver, hour, tmp_path, damage):
    hour(python("a", ""))
    (path,) = (tmp_path / "results" / "devices").glob("*-gpu-first.json")
    path.write_text(damage)
    status, _, state = hour(python("a", ""))
    assert (status, state["steps"]["a"]["tries"]) == (0, 1)


@needs_driver
def test_another_board_or_driver_begins_anew(driver, hour, tmp_path):
    hour(python("a", ""))
    driver.set(driver="1000.00")
    _, _, state = hour(python("a", ""))
    assert state["steps"]["a"]["tries"] == 1
    assert state["device"]["driver"] == "1000.00"


COUNTING = """
import pathlib, signal, sys, time
path = pathlib.Path({path!r})
new = path.with_suffix(".new")  # what is asked to end in the middle of a write must leave a number
done = int(path.read_text()) if path.exists() else 0
def stop(*_):
    print("asked to end at", done)
    raise SystemExit(130)
signal.signal(signal.SIGTERM, stop)
while done < {until}:
    time.sleep(0.05)
    done += 1
    new.write_text(str(done))
    new.replace(path)
print("reached", done)
"""


@pytest.fixture
def quick_end(monkeypatch):
    monkeypatch.setattr(gpu_first, "GRACE_S", 5.5)


@needs_driver
@pytest.mark.slow  # slices long enough for a Python to start in on a busy machine
def test_a_resumable_step_is_cut_into_slices_and_goes_on_from_there(driver, hour, tmp_path, quick_end):
    path = tmp_path / "progress"
    code = COUNTING.format(path=str(path), until=140)
    life = python("life", code, resumable=True)
    status, said, state = hour(life, minutes=3, options=(f"--slice={11.6 / 60}",))
    assert status == 0
    assert said.count("life: cut off (its time was over after 6 s)") >= 1
    assert said.count("asked to end at") >= 1
    assert state["steps"]["life"]["status"] == "passed"
    assert state["steps"]["life"]["tries"] >= 2
    assert state["steps"]["life"]["said"] == ["reached 140"]


@needs_driver
@pytest.mark.slow
def test_a_step_that_never_ends_has_failed_unless_its_time_was_cut_short(driver, hour, quick_end):
    forever = python("forever", "import time; time.sleep(600)", limit_s=6.6)
    status, _, state = hour(forever)
    assert status == 1
    assert state["steps"]["forever"]["why"] == "it did not end within 7 s"
    short = python("short of time", "import time; time.sleep(600)", limit_s=500)
    began = time.monotonic()
    status, said, state = hour(short, minutes=7 / 60)
    assert time.monotonic() - began < 20
    assert (status, state["steps"]["short of time"]["status"]) == (0, "cut off")
    assert "unfinished" in said


@needs_driver
@pytest.mark.slow
def test_a_step_that_does_not_listen_is_ended_for_good(driver, hour, tmp_path, quick_end):
    path = tmp_path / "alive"
    child = (
        f"import pathlib, time\nwhile True: pathlib.Path({str(path)!r}).write_text(str(time.time())); time.sleep(.05)"
    )
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    )
    hour(python("deaf", code, limit_s=7.5))
    last = path.read_text()
    time.sleep(0.3)
    assert path.read_text() == last, "its child works on"


def a_wheel(folder: Path, name: str, code: str) -> None:
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@needs_driver
def test_what_the_interpreter_lacks_comes_from_a_folder_of_wheels(driver, hour, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_first, "MODULES", ("pynvml", "a_package_of_this_test"))
    step = python("uses it", "import a_package_of_this_test as p; print(p.__doc__)")
    status, said, _ = hour(step)
    assert status == 1
    assert "has no a_package_of_this_test: install them, or give their wheels: wheels=DIR" in said
    status, said, _ = hour(step, options=(f"--wheels={tmp_path}",))
    assert (status, said) == (1, f"gpu-first: there are no wheels in {tmp_path}\n")
    a_wheel(tmp_path / "wheels", "a_package_of_this_test", "'''carried along'''")
    status, _, state = hour(step, options=(f"--wheels={tmp_path / 'wheels'}",))
    assert status == 0
    assert state["steps"]["uses it"]["said"] == ["carried along"]


def test_an_interpreter_that_is_none_is_one_line(hour):
    status, said, _ = hour(options=("--python=/nowhere/python3",))
    assert (status, said) == (1, "gpu-first: /nowhere/python3 cannot be run: No such file or directory\n")


def test_the_steps_fit_into_slices_and_answer_the_questions():
    steps = all_steps(Places("python3", Path("r"), Path("d"), Path("a")))
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for step in steps:
        assert step.least_s + gpu_first.GRACE_S <= gpu_first.SLICE_S
        assert step.limit_s <= gpu_first.SLICE_S
        assert step.resumable or step.limit_s, "a step that cannot be cut needs a limit"
        for other in filter(None, (step.after, step.instead_of)):
            assert names.index(other) < names.index(step.name)
    asked = {name for _, shown_by in gpu_first_steps.QUESTIONS for name in shown_by}
    assert asked <= set(names)


@pytest.mark.slow
def test_the_overrides_of_the_lives_compose():
    """Each `python -m benchmark run ...` of the plan, parsed as for a GPU."""
    from benchmark.plan.config import compose, parse

    lives = [s.command for s in all_steps(Places("python3", Path("r"), Path("d"), Path("a"))) if "run" in s.command]
    assert len(lives) == 33
    for command in lives:
        experiment, _ = parse(compose([word for word in command[3:] if word != "hardware=gpu"]), GPU)
        experiment.build_method().plan(experiment.task)
        assert experiment.paths.results == Path("r")


def test_the_report_is_plain_where_nothing_was_begun():
    device = {"name": "n", "machine": "m", "uuid": "u", "driver": "d", "source": "", "grade_best": "X"}
    told = {"device": device, "python": "3.12.3", "torch": "2.11.0", "commit": "c", "steps": {}}
    text = gpu_first_report.report(told, ["probe"])
    assert "| probe | not begun |  |  |" in text
    assert "- not seen: Counter tick" in text
    assert "- seen" not in text


def rehearsed(places: Places) -> list[Step]:
    """The real plan without Table 3: what needs no CUDA as it is, the rows on the CPU, less of the speed ratios."""
    words = ("-m", "benchmark", "run", "hardware=cpu", "scale=smoke", "data=synthetic", *places.words())
    stands_in = {
        "perf: energy": ("-c", "import scripts.perf_energy"),
        "perf: training": ("-c", "print('a GPU would be timed here')"),
        "perf: distillation": ("-c", "print('and here')"),
        "perf: start": ("scripts/perf_start.py", "1"),
        "perf: deployment": ("-c", "print('and there')"),
        "perf: efficient": ("-c", "print('and over there')"),
        "perf: NAS": ("-c", "print('and at last here')"),
        "data": ("-c", "print('synthetic images need no files')"),
        "short life: VGG16": (*words, "method=baseline", "model=repdistiller/vgg8"),
        "short life: VGG16 pruned": (*words, "method=pruning/l1", "model=repdistiller/vgg8"),
        "short life: ResNet56->ResNet20 by CRD": (*words, "method=distillation/crd", "pair=resnet14__resnet8"),
        "short life: VGG16 pruned by NNI": (
            *words,
            "method=pruning/l1",
            "model=repdistiller/vgg8",
            "method.backend=nni",
        ),
    }
    smoke = (*words, "method=baseline", "model=repdistiller/vgg8")
    alike = ("from CUDA graphs", "by amp in", "factored", "searched")  # how those lives run on a CPU, other tests see
    stands_in |= {step.name: smoke for step in all_steps(places) if any(word in step.name for word in alike)}
    steps = [step for step in all_steps(places) if not step.name.startswith(("Table 3", "beyond the paper"))]
    return [replace(step, command=stands_in.get(step.name, step.command), least_s=1.0) for step in steps]


@needs_driver
@pytest.mark.slow
def test_the_hour_is_rehearsed_on_the_fake_driver(driver, hour, tmp_path):
    """In two calls. The probe and the rows are real; gpu-check and the GPU tests find no CUDA here, and say so."""
    status, said, first = hour(plan=rehearsed, minutes=1.2)
    assert first["steps"]["probe"]["status"] == "passed", said
    assert "unfinished: run the same command again to continue" in said
    status, said, state = hour(plan=rehearsed, minutes=9)
    found = {name: step["status"] for name, step in state["steps"].items()}
    no_nni = find_spec("nni") is None
    assert found == {
        "probe": "passed",
        "gpu-check": "failed",
        "gpu tests": "failed",
        "perf: energy": "passed",
        "perf: training": "passed",
        "perf: deployment": "passed",
        "perf: efficient": "passed",
        "perf: NAS": "passed",
        "short life: cells searched by DARTS": "passed",
        **{f"short life: blocks searched{how}": "passed" for how in (", priced in energy", " by scores")},
        **{f"short life: VGG16 {name}": "passed" for name in ("by amp in bf16", "by amp in fp16", "factored")},
        "short life: VGG16 trained for INT8": "skipped",
        **{f"short life: VGG16 {name} from CUDA graphs": "passed" for name in ("fp32", "tf32", "bf16", "fp16")},
        "short life: VGG16 INT8 by TensorRT": "skipped",
        "perf: distillation": "passed",
        "perf: start": "passed",
        "data": "passed",
        "short life: VGG16": "passed",
        "short life: VGG16 pruned": "passed",
        "short life: VGG16 pruned by NNI": "skipped" if no_nni else "passed",
        "short life: ResNet56->ResNet20 by CRD": "passed",
        "short life: VGG16 on synthetic images": "skipped",
    }, said
    assert status == 1
    assert state["steps"]["probe"]["tries"] == 1
    assert "built without CUDA" in state["steps"]["gpu-check"]["said"][-1]
    assert state["steps"]["gpu tests"]["said"] == ["torch sees no CUDA device: every test would be skipped"]
    assert any("kept     " in line for line in state["steps"]["probe"]["said"])
    assert len(list((tmp_path / "results" / "records").rglob("*.json"))) >= 6
    text = report_of(tmp_path)
    assert "- **FAILED**: Counter and trapezoid agree on four loads" in text
    assert "- seen: A whole life: base, deployment, inference" in text
    assert "data: synthetic, " in text
