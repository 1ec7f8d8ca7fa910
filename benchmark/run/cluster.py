"""Executor ray: the jobs of an agenda on many devices, of this box or of a Ray cluster. A thin layer: an actor holds
one device for the whole run and works as a local process does; this process hands out the jobs.

Results, artifacts and data must lie on a file system that all nodes share, under the same names, and the suite must be
installed on each. An actor that is lost is replaced; its stage is resumed from the last checkpoint, with what it spent
booked, as after any killed run.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.energy import Device, DeviceError, find_device
from benchmark.errors import UserError
from benchmark.plan.life import Life
from benchmark.plan.where import Hardware
from benchmark.records.files import StoreError, Unreadable
from benchmark.records.record import Record
from benchmark.records.store import Store
from benchmark.run.agenda import BUSY_S, Agenda, Job, StageJob
from benchmark.run.process import forget, terminable
from benchmark.run.schedule import announce
from benchmark.run.whole import Whole
from benchmark.run.workbench import Site
from benchmark.run.worker import StageBusy, StageError, Worker

TRIES = 3
"""How often a job is given out again whose worker was lost, before it counts as failed."""


class Done(NamedTuple):
    """How a job ended: 'done', 'failed' or 'busy', with words (of a group, the busy keys), a stage's record, joules."""

    how: str
    words: str = ""
    keys: Sequence[str] = ()
    record: Record | None = None
    joules: float = 0.0


class Hand:
    """What an actor is: a worker with one device, in a process of its own."""

    def __init__(self, device: str, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # Ray sets one of its own; before torch is imported
        self._device = find_device(device)
        self._worker: Worker | None = None

    def device(self) -> Device:
        """The device it holds."""
        return self._device

    def start(self, results: Path, artifacts: Path, data: Path, hardware: Hardware) -> None:
        """Open the folders. Raises StoreError or DeviceError."""
        site = Site(self._device, Store(results, artifacts), data, hardware.cpu_tdp_w, hardware.sample_s)
        self._worker = Worker(site, lambda line: print(line, flush=True))  # noqa: T201 # Ray shows it where the run is
        self._worker.__enter__()

    def do(self, job: Job, again: bool) -> Done:
        """Do a job."""
        assert self._worker is not None, "started first"
        try:
            if isinstance(job, StageJob):
                return Done("done", record=self._worker.ensure(job.life, job.phase, job.stage, wait=False))
            return Done("done", joules=self._worker.measure(job.group, again))
        except StageBusy as busy:
            return Done("busy", str(busy), busy.keys)
        except (StageError, Unreadable) as error:
            failure = str(error)
        except (StoreError, DeviceError) as error:
            return Done("end", str(error))
        forget()
        return Done("failed", failure)

    def close(self) -> None:
        """Give the device back."""
        if self._worker is not None:
            self._worker.__exit__(None, None, None)


@dataclass
class Cluster:
    """The hands of a run, all on one kind of machine."""

    ray: Any
    hardware: Hardware
    threads: int
    device: Device
    hands: list[Any] = field(default_factory=list)

    def new_hand(self) -> Any:
        """One more actor, on a device that is free."""
        gpus = 1 if self.device.kind == "cuda" else 0
        return _hand(self.ray, self.hardware.device, self.threads, gpus)


_OPEN: list[Cluster] = []
"""The cluster of this process: planning asks it for its kind of machine, the run for its hands."""


def connect(hardware: Hardware, say: Callable[[str], None]) -> Cluster:
    """Start Ray on this box, or join the cluster, and take its devices: all those of one kind of machine.

    Raises UserError where Ray is not installed, cannot be reached or has no device.
    """
    if _OPEN:
        return _OPEN[0]
    try:
        import ray
    except ImportError as error:
        raise UserError("executor=ray needs Ray: pip install 'full-cycle-energy-benchmark[ray]' (in a checkout "
                        "'.[ray]')") from error  # fmt: skip
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would give its workers a niceness of 15: beside other work they starve, and pay for the time
    os.environ.setdefault("RAY_worker_niceness", "0")
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    try:
        if hardware.cluster:
            ray.init(address=hardware.cluster, log_to_driver=True)
        else:
            ray.init(num_cpus=max(os.cpu_count() or 1, hardware.workers or 1), include_dashboard=False,
                     _node_ip_address="127.0.0.1", log_to_driver=True)  # fmt: skip
    except Exception as error:  # Ray raises many kinds
        raise UserError(
            f"Ray cannot be had at {hardware.cluster or 'this box'}: {' '.join(str(error).split())}"
        ) from error
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    gpus = int(there.get("GPU", 0)) if hardware.device != "cpu" else 0
    wanted = hardware.workers or gpus or 1
    if hardware.device.startswith("cuda") and not gpus:
        raise UserError(f"hardware=gpu: Ray at {hardware.cluster or 'this box'} has no GPU")
    hands = [_hand(ray, hardware.device, threads, 1 if gpus else 0) for _ in range(min(wanted, gpus or wanted))]
    devices = ray.get([hand.device.remote() for hand in hands])
    machine = _chosen(hardware, devices)
    kept = [number for number, device in enumerate(devices) if device.machine == machine]
    for number, hand in enumerate(hands):
        if number not in kept:
            ray.kill(hand)
    say(f"ray: {len(kept)} worker(s) on {machine}" + _left_out(devices, machine))
    cluster = Cluster(ray, hardware, threads, devices[kept[0]], [hands[number] for number in kept])
    _OPEN.append(cluster)
    return cluster


def disconnect() -> None:
    """Leave the cluster; of this box, stop it."""
    while _OPEN:
        _OPEN.pop().ray.shutdown()


def _hand(ray: Any, device: str, threads: int, gpus: int) -> Any:
    options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0,
               "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}}}  # fmt: skip
    return ray.remote(Hand).options(**options).remote(device, threads)


def _chosen(hardware: Hardware, devices: Sequence[Device]) -> str:
    """The kind of machine that the run is pinned to: the named one, or that of most devices."""
    kinds = Counter(device.machine for device in devices)
    if hardware.train and hardware.train in kinds:
        return hardware.train
    return kinds.most_common(1)[0][0]


def _left_out(devices: Sequence[Device], machine: str) -> str:
    others = Counter(device.machine for device in devices if device.machine != machine)
    told = ", ".join(f"{count} of {name}" for name, count in others.items())
    return f"; left alone, because records of two machines do not mix: {told} (hardware.train= chooses)" if told else ""


def work_on_ray(  # noqa: PLR0913 # what a local run has in its worker
    cluster: Cluster, store: Store, data: Path, blocks: Sequence[Sequence[Life]], again: bool, whole: Whole | None,
    say: Callable[[str], None],
) -> str:  # fmt: skip
    """As `schedule.work`, on the hands of a cluster."""
    agenda, stopped = Agenda(store, blocks, again), ""
    folders = (store.results.resolve(), store.artifacts.resolve(), data.resolve(), cluster.hardware)
    announce(store, say, blocks)
    found = {key for key, job in agenda.keys().items() if _recorded(store, job)}
    for key, job in agenda.keys().items():
        if key in found:
            agenda.done(job)
    say(f"{len(found)} of {len(agenda.keys())} stages are recorded")
    if whole:
        whole.begin(agenda, found)
    run = _Run(cluster, agenda, whole, say, folders)
    try:
        with terminable():
            stopped = run.to_the_end()
    finally:
        run.close()
        disconnect()
    if agenda.failures:
        raise StageError("; ".join(dict.fromkeys(agenda.failures)), agenda.failures)
    return stopped and f"{stopped}; {len(agenda.left)} experiment(s) are left for the next run"


def _recorded(store: Store, job: StageJob) -> bool:
    try:
        return store.record(job.life.machine(job.phase), job.key) is not None
    except Unreadable:
        return False  # said when its turn comes


@dataclass
class _Run:
    """Hands that are idle, and jobs that are under way."""

    cluster: Cluster
    agenda: Agenda
    whole: Whole | None
    say: Callable[[str], None]
    folders: tuple[Any, ...]
    _idle: list[Any] = field(default_factory=list)
    _under_way: dict[Any, tuple[Any, Job]] = field(default_factory=dict)
    _lost: Counter[str] = field(default_factory=Counter)

    def to_the_end(self) -> str:
        """Hand out jobs until none is left; returns why a budget ended it early, if so."""
        ray, stopped = self.cluster.ray, ""
        ray.get([hand.start.remote(*self.folders) for hand in self.cluster.hands])
        self._idle = list(self.cluster.hands)
        while not self.agenda.finished:
            stopped = self._hand_out() or stopped
            if not self._under_way:
                if not self.agenda.finished:  # asking can show that nothing is left
                    time.sleep(BUSY_S / 2)
                continue
            ready, _ = ray.wait(list(self._under_way), timeout=BUSY_S)
            for ref in ready:
                self._take_back(ref)
        return stopped

    def close(self) -> None:
        """Let idle hands give their devices back; the others are ended with the cluster, as by a kill."""
        for hand in self._idle:
            self.cluster.ray.get(hand.close.remote())

    def _hand_out(self) -> str:
        while self._idle:
            job = self.agenda.take()
            if job is None:
                return ""
            why = self.whole.over(job) if self.whole else ""
            if why:
                self.agenda.again(job)
                self.agenda.stop()
                return why
            hand = self._idle.pop()
            self._under_way[hand.do.remote(job, self.agenda.again_measured)] = (hand, job)
        return ""

    def _take_back(self, ref: Any) -> None:
        hand, job = self._under_way.pop(ref)
        try:
            done: Done = self.cluster.ray.get(ref)
        except self.cluster.ray.exceptions.RayError as error:
            self._replace(job, " ".join(str(error).split())[:200])
            return
        self._idle.append(hand)
        if done.how == "end":
            raise StoreError("; ".join([done.words, *self.agenda.failures]))
        if done.how == "busy":
            self.agenda.busy(job, done.keys)
            return
        if done.how == "failed":
            self.agenda.failed(job, done.words)
            return
        self.agenda.done(job)
        if self.whole:
            self.whole.end(job, done.record, done.joules)
            self.whole.next(self.agenda.failures)

    def _replace(self, job: Job, why: str) -> None:
        """Give out a lost worker's job again, with another worker in its place."""
        name = job.key if isinstance(job, StageJob) else "+".join(sorted(job.group))
        self._lost[name] += 1
        self.say(f"a worker was lost: {why}")
        if self._lost[name] < TRIES:
            self.agenda.again(job)
        else:
            self.agenda.failed(job, f"its worker was lost {TRIES} times: {why}")
        hand = self.cluster.new_hand()
        self.cluster.ray.get(hand.start.remote(*self.folders))
        self._idle.append(hand)
