"""A place, and experiments small enough to be worked in a test."""

from __future__ import annotations

from pathlib import Path

from benchmark.deploy.engines import kinds
from benchmark.plan.config import Experiment, experiment
from benchmark.plan.deployment import Here
from benchmark.plan.life import Life, Place, lives, place_of
from benchmark.records.store import Store
from benchmark.run.schedule import work
from benchmark.run.workbench import Site
from benchmark.run.worker import Worker

HERE = Place(train_machine="here", infer_machine="here", engine_version="0")
GPU = Here(device_kind="cuda", machine="here", engines=kinds())
CPU = Here(device_kind="cpu", machine="here", engines=kinds())


class Fake:
    """An engine kind that can do everything on a GPU, and is preferred to all."""

    name = "fake"
    preference = 99
    buffers = ("torch",)

    def why_unavailable(self, precision: str, device_kind: str) -> str:
        return "" if device_kind == "cuda" else "fake needs a GPU"

    def version(self) -> str:
        return "1.2"

    def prove(self, precision: str, device: str) -> None:
        pass


FAKED = Here(device_kind="cuda", machine="here", engines=(*GPU.engines, Fake()))


def here_of(device) -> Here:
    """This machine with a device, as planning sees it."""
    return Here(device_kind=device.kind, machine=device.machine, engines=kinds())


def work_all(site_root: Path, device, lives, say=lambda line: None, **options) -> None:
    """Work lives as one block, under a root folder."""
    store = Store(site_root / "results", site_root / "artifacts")
    work(Worker(Site(device, store, site_root / "data"), say), [lives], **options)


def lives_of(experiment: Experiment, device, store) -> list[Life]:
    """An experiment's lives on a device."""
    return lives(experiment, place_of(experiment, here_of(device), store.runs()))


QUICK = {
    "idle_s": 0.01, "warmup_s": 0.01, "warmup_cap_s": 0.1, "window_s": 0.05, "windows": 3, "curve_window_s": 0.02,
    "batch_sizes": [1, 8],
}  # fmt: skip  # one value a line would hide the shape


def tiny_experiment(root: Path, inference=QUICK, train_hardware=None, **task) -> Experiment:
    """A baseline of `tests.tiny` on synthetic images; keyword arguments replace values of the task."""
    recipe = {"name": "t", "epochs": 2, "batch_size": 32, "lr": 0.05, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    values = {
        "model": {"name": "tiny", "builder": "tests.tiny:tiny"},
        "data": {"name": "synthetic", "classes": 10},
        "scale": {"name": "test", "train_images": 64, "test_images": 32},
        "recipe": recipe,
        "seed": 0,
        "train_precision": "fp32",
        **task,
    }
    return experiment(
        {
            "method": {"_target_": "methods.baseline.Baseline", "name": "baseline"},
            "task": values,
            "hardware": {"device": "cpu", "train": train_hardware},
            "inference": inference,
            "engine": "torch",
            "seeds": 1,
            "asked": {"tau": 2},
            "paths": {"data": root / "data", "artifacts": root / "artifacts", "results": root / "results"},
        }
    )  # fmt: skip  # one value a line would hide the shape
