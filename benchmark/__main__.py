"""The door: `python -m benchmark COMMAND [name=value ...]`. Help needs nothing but Python; each command imports what
it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmark.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from benchmark.energy import Device
    from benchmark.plan.config import Experiment
    from benchmark.plan.life import Life
    from benchmark.records.store import Store

HELP = """\
The full-cycle energy benchmark: what a deep-learning method costs over its whole life, training and use, in measured
energy.

usage: python -m benchmark COMMAND [name=value ...]

  run      work one experiment: train, deploy, measure; what is recorded already is not worked again
  plan     show its stages, keys, what is recorded, and what the rest may cost; runs nothing (--check: builds networks)
  study    work every experiment of configs/experiment/NAME.yaml: study experiment=NAME
  report   build results/stages.csv and results/summary.csv from the records, and print the summary
  check    judge every record; exits non-zero on a fault
  device   say what meter and device this machine has, and why not a better one (--probe: find out what they can do)

examples
  python -m benchmark run method=baseline model=nni/vgg16 scale=smoke
  python -m benchmark run -m model=nni/vgg13,nni/vgg16 scale=small recipe=check
  python -m benchmark study experiment=baselines
  python -m benchmark report paths.results=results/.smoke

python -m benchmark run --help lists every name and choice. With --config-dir DIR (any command, more than once), DIR is
searched like configs/: your own methods, models and studies, without a fork (CONTRIBUTING.md).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 refused or failed, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _run, "plan": _plan, "study": _study, "report": _report, "check": _check, "device": _device,
    }  # fmt: skip  # a table reads best as one
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if words else 1
    command = commands.get(words[0])
    if command is None:
        from difflib import get_close_matches

        known = get_close_matches(words[0], commands) or list(commands)
        return _refuse(f"unknown command {words[0]!r}; did you mean {', '.join(known)}?")
    try:
        from benchmark.plan.folders import take_config_dirs

        rest = take_config_dirs(words[1:])
        if any(word in ("-h", "--help") for word in rest):
            return _choices()
        return command(rest)
    except KeyboardInterrupt:
        print("interrupted: everything measured is kept; the same command goes on from here", file=sys.stderr)
        return 130
    except UserError as error:
        return _refuse(str(error))


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _run(words: list[str]) -> int:
    flags = {word for word in words if word.startswith("-")}
    others = flags - {"-m", "--multirun"}
    if others and others != flags:
        return _refuse(f"-m stands alone: without it, {' '.join(sorted(others))} looks at one experiment")
    if others:
        return _hydra(words)
    from benchmark.plan.config import compose

    if not flags:
        return _work([compose(words)])
    from benchmark.plan.study import sweep

    return _work([compose(job) for job in sweep([word for word in words if word not in flags])])


def _choices() -> int:
    """What `run --help` prints: every name and choice, without Hydra."""
    from benchmark.plan.folders import CONFIGS, groups, names

    print("usage: python -m benchmark run [name=value ...]; plan, study, report, check and device take the same names")
    print("  -m                sweep over comma-separated values\n  --cfg job         show the composed configuration")
    print("  --config-dir DIR  search DIR like configs/, too\n")
    print("choices")
    for group in groups():
        print(f"  {group}={' | '.join(names(group))}")
    print("\ndefaults (configs/config.yaml)")
    print("".join(f"  {line}\n" for line in (CONFIGS / "config.yaml").read_text().splitlines()), end="")
    return 0


def _hydra(words: list[str]) -> int:
    """Hand the flags to Hydra: --cfg job and the rest of its own."""
    import hydra

    from benchmark.plan.config import CONFIGS, check_words
    from benchmark.plan.folders import search_path

    check_words([word for word in words if "=" in word and not word.startswith("-")])
    configs: list[DictConfig] = []
    sys.argv = ["python -m benchmark run", *words, *search_path()]
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(configs.append)()
    return _work(configs) if configs else 0


def _work(configs: list[DictConfig]) -> int:
    """Work experiments to their rows, then report on them."""
    from benchmark.plan.config import one_place
    from benchmark.records.store import Store
    from benchmark.run.runner import Runner, StageError

    experiments, device = _parse(configs)
    first = one_place(experiments)
    store = Store(first.paths.results, first.paths.artifacts)
    wanted = [life for experiment in experiments for life in _lives(experiment, device, store)]
    recorded = all(life.recorded(store) for life in wanted)
    if not recorded:
        _prepare(experiments)
    meter = device.source or "NO METER: every energy will be unknown"
    _say(f"device: {device.name} ({device.machine}), energy from {meter}")
    failure = ""
    try:
        Runner(store, device, first.paths.data, _say, first.hardware.cpu_tdp_w).run(wanted)
    except StageError as error:  # the others are done: their rows are worth seeing
        failure = str(error)
    status = _tables(first)
    return _refuse(failure) if failure else status


def _prepare(experiments: list[Experiment]) -> None:
    """Before any work: can every method do its task, and are the data here? Raises ConfigError or DataError."""
    from benchmark.vision.download import ensure

    for experiment in experiments:
        _check_methods(experiment)
    for name in sorted({experiment.task.data.name for experiment in experiments}):
        ensure(name, experiments[0].paths.data)


def _parse(configs: list[DictConfig], quiet: bool = False) -> tuple[list[Experiment], Device]:
    """Typed experiments for the device that the first of them asks for; notes on what was adapted are said once."""
    from benchmark.energy import find_device
    from benchmark.plan.config import parse

    device = find_device(str(configs[0].hardware.device))
    parsed = [parse(config, device.kind) for config in configs]
    for note in dict.fromkeys(note for _, notes in parsed for note in notes):
        if not quiet:
            _say(f"note: {note}")
    return [experiment for experiment, _ in parsed], device


def _lives(experiment: Experiment, device: Device, store: Store) -> list[Life]:
    from benchmark.plan.life import lives, place_of

    return lives(experiment, place_of(experiment, device, store))


def _check_methods(experiment: Experiment) -> None:
    """Ask the method whether the task can be done at all, before any training. Raises ConfigError."""
    from benchmark.plan.config import ConfigError

    try:
        experiment.build_method().check(experiment.task)
    except ValueError as error:
        raise ConfigError(f"{experiment.method['name']}: {error}") from error


def _tables(experiment: Experiment) -> int:
    """Write both tables of an experiment's results folder and print the summary."""
    from rich.console import Console

    from benchmark.records.store import Store
    from benchmark.report import tables

    store = Store(experiment.paths.results, experiment.paths.artifacts)
    summary, left_out, paths = tables.write(store, experiment.tau)
    for line in left_out:
        _say(line)
    if summary.empty:
        return _refuse(f"there are no runs under {store.results}: python -m benchmark run ... first")
    # piped output has no width of its own: rows stay whole
    tables.show(summary, Console(width=None if sys.stdout.isatty() else 160))
    _say("written: " + ", ".join(map(str, paths)))
    return 0


def _study(words: list[str]) -> int:
    from benchmark.plan.config import ConfigError, check_words, compose
    from benchmark.plan.study import expand

    chosen = [word for word in words if word.startswith("experiment=")]
    if len(chosen) != 1:
        raise ConfigError("a study needs exactly one experiment=NAME (a file of configs/experiment)")
    rest = [word for word in words if word not in chosen]
    check_words(rest)
    jobs = expand(chosen[0].partition("=")[2], rest)
    _say(f"study {chosen[0].partition('=')[2]}: {len(jobs)} experiment(s)")
    return _work([compose(job) for job in jobs])


def _plan(words: list[str]) -> int:
    from benchmark.plan.config import compose
    from benchmark.records.store import Store
    from benchmark.run.forecast import table

    experiments, device = _parse([compose([word for word in words if word != "--check"])])
    experiment = experiments[0]
    if "--check" in words:
        _check_methods(experiment)
    store = Store(experiment.paths.results, experiment.paths.artifacts)
    for line in table(store, _lives(experiment, device, store)):
        print(line)
    return 0


def _report(words: list[str]) -> int:
    from benchmark.plan.config import compose

    experiments, _ = _parse([compose(words)], quiet=True)
    return _tables(experiments[0])


def _check(words: list[str]) -> int:
    from benchmark.plan.config import compose
    from benchmark.records.store import Store
    from benchmark.report.checks import check

    experiments, _ = _parse([compose(words)], quiet=True)
    store = Store(experiments[0].paths.results, experiments[0].paths.artifacts)
    findings = check(store)
    for finding in findings:
        print(f"{'FAULT' if finding.fault else 'warning'}: {finding.where}: {finding.what}")
    faults = sum(finding.fault for finding in findings)
    print(
        f"{len(store.record_paths())} records under {store.results}: {faults} faults, {len(findings) - faults} warnings"
    )
    return 1 if faults else 0


def _device(words: list[str]) -> int:
    from benchmark.energy import find_device
    from benchmark.plan.config import compose, parse

    config = compose([word for word in words if word != "--probe"])
    device = find_device(str(config.hardware.device))
    print(f"device   {device.name} ({device.torch_name}), machine {device.machine}")
    print(f"meter    {device.source}, best grade {device.grade_best}")
    for line in device.why_not_better:
        print(f"         not better: {line}")
    if "--probe" in words:
        from benchmark.records.store import Store
        from benchmark.run.boards import lines, probe_board

        place = parse(config, device.kind)[0].paths
        print(*lines(probe_board(device, Store(place.results, place.artifacts), _say)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
