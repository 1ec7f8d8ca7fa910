"""Experiments worked to their rows: one, a sweep, or a study, which is planned as a whole before it begins."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.common import device_of, here_of, lives_of, parse_all, say, show_tables, store_of
from benchmark.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from benchmark.energy import Device
    from benchmark.plan.config import Experiment
    from benchmark.plan.life import Life
    from benchmark.plan.request import Request
    from benchmark.plan.study import Block
    from benchmark.records.store import Store
    from benchmark.run.costs import Machine
    from benchmark.run.forecast import Forecaster
    from benchmark.run.whole import Whole

Composed = Sequence["DictConfig | dict[str, Any]"]


@dataclass
class Planned:
    """Experiments as lives, block by block; `lives[block][experiment]` are those of its seeds."""

    first: Experiment
    device: Device
    store: Store
    lives: list[list[list[Life]]]

    def blocks(self) -> list[list[Life]]:
        """All lives of each block."""
        return [[life for own in block for life in own] for block in self.lives]


def work_blocks(blocks: Sequence[Composed], again: bool = False) -> int:
    """Run blocks of experiments to their rows, then report on them. One that is refused or fails stops no other."""
    planned = _planned(blocks)
    planned.store.check_writable()
    _warn_of_days(planned)
    failures = _refuse(planned, again)
    try:
        _work(planned, again, None)
    except UserError as error:
        failures += _words_of(error)
    return _end(planned, failures)


A_DAY_S, LONG_S = 86_400.0, 7_200.0


def _warn_of_days(planned: Planned) -> None:
    """Say before the work what whole recipes take without a GPU: hours or days, by the stated model or by records."""
    from benchmark.run.forecast import amount, forecaster

    lives = [life for block in planned.blocks() for life in block]
    if planned.device.kind == "cuda" or all(life.task.scale.name != "full" for life in lives):
        return
    told = forecaster(planned.store, lives, _model(planned.device))
    steps = {life.key(stage): (stage, life.machine(phase)) for life in lives for phase, stage in life.steps()}
    left = [told.of(*step) for key, step in steps.items() if (step[1], key) not in told.recorded]
    known = [each for each in left if not math.isnan(each.seconds)]
    if len(known) < len(left):
        unknown = f"nothing here tells how long {len(left) - len(known)} of {len(left)} stages take"
        say(f"warning: scale=full on a CPU may take days: {unknown} (the stated model knows the zoo alone)")
        say("scale=small recipe=check is a first look in minutes; once it trains, its progress says what is left")
    if math.fsum(each.seconds for each in known) > LONG_S:
        hours = math.fsum(each.seconds for each in known) / 3600
        long = f"{hours / 24:.0f} days" if hours > 48 else f"{hours:.0f} hours"
        cost = f"about {long} ({amount(known)}; by the stated model where there are no records)"
        say(f"warning: scale=full on this CPU takes {cost}")
        say("scale=small recipe=check is a first look in minutes; Ctrl-C loses nothing that is recorded")


def study(words: list[str]) -> int:
    """Plan a study as a whole, say what it will take, and work it (`Request` says how)."""
    from benchmark.plan.config import check_words
    from benchmark.plan.quick import compose_all
    from benchmark.plan.request import request_of
    from benchmark.plan.study import expand
    from benchmark.run.forecast import forecaster
    from benchmark.run.whole import Whole

    request = request_of(words)
    check_words(request.words)
    blocks = expand(request.experiment, request.words, request.only)
    configs = compose_all([job for block in blocks for job in ([] if block.unavailable else block.jobs)])
    blocks_here = _here_alone(request, blocks, configs)
    if not blocks_here:
        say(f"study {request.experiment}: nothing of it is to be run on this machine")
        return 0
    planned = _planned(blocks_here)
    told = forecaster(planned.store, [life for block in planned.blocks() for life in block], _model(planned.device))
    _order(planned, told)
    for line in outlook(planned, told, details=request.dry_run):
        (print if request.dry_run else say)(line)
    if request.dry_run:
        return 0
    planned.store.check_writable()
    failures = _refuse(planned, request.measure_again)
    whole, stopped = Whole(told, say, request.max_wh, request.max_hours), ""
    try:
        stopped = _work(planned, request.measure_again, whole)
    except UserError as error:
        failures += _words_of(error)
    say(f"this run: {whole.spent_joules / 3600:.4g} W.h" + (f"; stopped: {stopped}" if stopped else ""))
    return _end(planned, failures)  # which raises where something failed: what was spent is said before


def _here_alone(request: Request, blocks: Sequence[Block], configs: Composed) -> list[Composed]:
    """The composed blocks that are to be run on this machine; the others are said, with their reason."""
    left, kept = iter(configs), list[Composed]()
    device = device_of(configs[0]) if configs else None
    total, missing = sum(len(block.jobs) for block in blocks), 0
    for block in blocks:
        own = [] if block.unavailable else [next(left) for _ in block.jobs]
        why = block.not_on(device.kind if device else "cpu")
        if why:
            missing += len(block.jobs)
            for job in block.jobs:
                say(f"n/a: {' '.join(job)}: {why}")
        elif own:
            kept.append(own)
    say(f"study {request.experiment}: {total} experiment(s)" + (f", {missing} of them n/a" if missing else ""))
    return kept


def _planned(blocks: Sequence[Composed]) -> Planned:
    from benchmark.plan.config import one_place

    experiments, device = parse_all([config for block in blocks for config in block])

    first = one_place(experiments)
    if first.asked.country:  # one that nobody knows is an error before the work, and not after it
        from benchmark.report.footprint import footprint_of

        footprint_of(first.asked)
    store = store_of(first)
    flat = iter([lives_of(experiment, device, store) for experiment in experiments])
    return Planned(first, device, store, [[next(flat) for _ in block] for block in blocks])


def _refuse(planned: Planned, again: bool) -> list[str]:
    """Take out the experiments that cannot be run, and return why; fetch the data that the others need."""
    from benchmark.run.schedule import refusals
    from benchmark.run.state import recorded

    all_lives = [life for block in planned.blocks() for life in block]
    if not again and all(recorded(life, planned.store) for life in all_lives):
        return []  # the method's check imports torch: what is recorded already must not wait for it
    firsts = [own[0] for block in planned.lives for own in block]
    refused = refusals(firsts, here_of(planned.device), planned.device.torch_name)
    for why in dict.fromkeys(refused.values()):
        say(f"refused: {why}")  # now, and not after hours of what the others need
    names = {id(firsts[number]): why for number, why in refused.items()}
    planned.lives = [[own for own in block if id(own[0]) not in names] for block in planned.lives]
    _ensure_data(planned)
    return list(refused.values())


def _ensure_data(planned: Planned) -> None:
    """Download what is missing. Raises DataError."""
    from benchmark.vision.download import ensure

    found = {data for block in planned.lives for own in block for data in own[0].data_sets()}
    for data in sorted(found, key=lambda each: each.shown):
        ensure(data, planned.first.paths.data, say)


def _work(planned: Planned, again: bool, whole: Whole | None) -> str:
    from benchmark.run.schedule import work
    from benchmark.run.workbench import Site
    from benchmark.run.worker import Worker

    device, first = planned.device, planned.first
    if first.hardware.executor == "ray":
        from benchmark.run.cluster import connect, work_on_ray

        cluster = connect(first.hardware, say)
        return work_on_ray(cluster, planned.store, first.paths.data, planned.blocks(), again, whole, say)
    say(f"device: {device.name} ({device.machine}), energy from {device.source or 'NO METER: it will be unknown'}")
    site = Site(device, planned.store, first.paths.data, first.hardware.cpu_tdp_w, first.hardware.sample_s)
    return work(Worker(site, say), planned.blocks(), again, whole)


def _words_of(error: UserError) -> list[str]:
    """The failures of a run: everything else ends it at once."""
    from benchmark.run.worker import StageError

    if not isinstance(error, StageError):
        raise error
    return list(error.failures) or [str(error)]


def _end(planned: Planned, failures: Sequence[str]) -> int:
    """Show the rows, then what failed. Raises UserError where something did."""
    shown = any(planned.blocks())
    if shown:
        show_tables(planned.store, planned.first.asked)
    told = list(dict.fromkeys(failures))
    if len(told) > 1:
        for line in told:
            say(f"failed: {line}")
        raise UserError(f"{len(told)} failures, listed above; the same command tries them again")
    if told:
        raise UserError(told[0])
    return 0 if shown else 1


# --- plans -----------------------------------------------------------------------------------------------------------


def plan_one(words: Sequence[str], check: bool) -> int:
    """Print the stages of one experiment and what they may cost. Raises ConfigError where it cannot be run here."""
    from benchmark.plan.config import ConfigError, compose
    from benchmark.plan.life import undeployable
    from benchmark.run.forecast import table

    planned = _planned([[compose(words)]])
    (lives,) = planned.lives[0]
    why = undeployable(lives[0], here_of(planned.device))
    if why:
        raise ConfigError(why)
    _check(planned, check)
    for line in table(planned.store, lives, _model(planned.device)):
        print(line)
    return 0


def foresee(jobs: Sequence[Sequence[str]], check: bool) -> int:
    """Print what several experiments will take, each and together; run nothing."""
    from benchmark.plan.quick import compose_all
    from benchmark.run.forecast import forecaster

    planned = _planned([compose_all(jobs)])
    _check(planned, check)
    lives = [life for own in planned.lives[0] for life in own]
    told = forecaster(planned.store, lives, _model(planned.device))
    for line in outlook(planned, told, details=True):
        print(line)
    return 0


def _check(planned: Planned, wanted: bool) -> None:
    """Build the networks where that is `wanted`, without any training. Raises ConfigError with every reason."""
    from benchmark.plan.config import ConfigError
    from benchmark.run.schedule import refusals

    firsts = [own[0] for block in planned.lives for own in block] if wanted else []
    refused = refusals(firsts, here_of(planned.device), planned.device.torch_name)
    if refused:
        raise ConfigError("; ".join(dict.fromkeys(refused.values())))


# --- the plan of a study ---------------------------------------------------------------------------------------------


def _model(device: Device) -> Machine:
    """The stated model of what stages cost on a device."""
    from benchmark.run.costs import H100, of_cpu

    return H100 if device.kind == "cuda" else of_cpu(device.threads or 1)


def _order(planned: Planned, told: Forecaster) -> None:
    """Put the experiments of each block in the order that leaves complete rows early."""
    from benchmark.run.agenda import cheapest_first

    def seconds(life: Life, phase: Any, stage: Any) -> float:
        machine = life.machine(phase)
        return 0.0 if (machine, life.key(stage)) in told.recorded else told.of(stage, machine).seconds

    for number, block in enumerate(planned.lives):
        by_first = {id(own[0]): own for own in block}
        planned.lives[number] = [by_first[id(life)] for life in cheapest_first([own[0] for own in block], seconds)]


def _settings(planned: Planned) -> dict[str, str]:
    """In which settings experiments differ whose other words are the same, as in the tables."""
    from benchmark.report.rows import tell_apart

    lives = [own[0] for block in planned.lives for own in block]
    runs = [life.run_file("") for life in lives]
    return dict(zip((life.name for life in lives), tell_apart(runs), strict=True))


def outlook(planned: Planned, told: Forecaster, details: bool) -> Iterator[str]:
    """Lines on what a study will take: by family, in all, and with `details` experiment by experiment, in their
    order."""
    from benchmark.plan.stage import Phase
    from benchmark.records.files import Unreadable
    from benchmark.run.forecast import Forecast, outlook_of, sums
    from benchmark.run.state import measured

    left: dict[str, Forecast] = {}
    families: dict[str, list[Forecast]] = {}
    shapes: dict[str, Forecast] = {}
    recorded = 0
    settings = _settings(planned) if details else {}
    for life in (life for block in planned.blocks() for life in block):
        own = []
        for phase, stage in life.steps():
            key = life.key(stage)
            if (life.machine(phase), key) in told.recorded:
                recorded += 1
            elif key not in left:
                left[key] = told.of(stage, life.machine(phase))
                own.append(left[key])
        families.setdefault(life.experiment.method["name"].partition("/")[0], []).extend(own)
        if details:
            words = settings.get(life.name) and f" ({settings[life.name]})"
            told_of = outlook_of(own) if own else "no stage of its own left"
            yield f"  {life.name}{words or ''} seed {life.task.seed}: {told_of}"
        # what the engine executes is known once it is built: networks of one name, made by one function, share a shape
        with contextlib.suppress(Unreadable):  # its turn will say what is damaged; a plan goes on
            if measured(life, planned.store):
                continue
        shape = f"{life.task.model.name} {life.plan.deploy.name} {life.plan.network.fn}"
        shapes[shape] = told.of(life.measurement({"signature": shape}), life.machine(Phase.INFER))
    for family, own in [*sorted(families.items()), ("inference", list(shapes.values()))]:
        if own:
            yield f"  {family:<14} {outlook_of(own)}"
    left |= shapes
    yield from sums(list(left.values()), told.model)
