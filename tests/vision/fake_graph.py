"""CUDA graphs played on a CPU: records the device operations of a step and replays them, Python left out.

Like the real ones it freezes every Python value, executes nothing while it captures, and refuses to hand a device
value to the host meanwhile. Like torch up to 2.11 it is left half open by a capture that fails: until `abandon` ends it,
nothing random runs.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ITEM = torch.ops.aten._local_scalar_dense.default
BATCH_NORM = torch.ops.aten.native_batch_norm.default
"""Writes its running statistics, arguments 3 and 4, without saying so in its schema."""


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list = []
        self.before: list = []  # outside tensors that were written to, and what was in them

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is ITEM:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore words")
        for number, argument in enumerate(function._schema.arguments):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written or (function is BATCH_NORM and number in (3, 4)):
                value = args[number] if number < len(args) else kwargs.get(argument.name)
                self.before += [(t, t.clone()) for t in tree_leaves(value) if isinstance(t, torch.Tensor)]
        out = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, out))
        return out


class _Drawing(TorchDispatchMode):
    """Refuses to draw while a broken capture is open."""

    def __init__(self, graphs: FakeGraphs) -> None:
        super().__init__()
        self.graphs = graphs

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if self.graphs.half_open and torch.Tag.nondeterministic_seeded in function.tags:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        return function(*args, **(kwargs or {}))


class FakeGraphs:
    """A `benchmark.vision.graph.Backend`. `lost` replays, counted over all graphs, do nothing: a driver gone wrong."""

    def __init__(self, lost: int = 0) -> None:
        self.captures = self.replays = self.attempts = 0
        self.lost = lost
        self.half_open = False

    def stream(self):
        return _Drawing(self)

    def abandon(self):
        self.half_open = False

    def capture(self, work):
        self.attempts += 1
        recorder = _Recorder()
        generator = torch.get_rng_state()
        try:
            with recorder:
                work()
        except RuntimeError:
            self.half_open = True
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904 # as torch
        finally:
            torch.set_rng_state(generator)
            with torch.no_grad():
                for tensor, value in reversed(recorder.before):  # nothing has happened
                    tensor.data.copy_(value)
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            if self.replays > self.lost:
                _replay(recorder.operations)

        return replay


def _replay(operations) -> None:
    now: dict[int, torch.Tensor] = {}

    def current(leaf):
        return now.get(id(leaf), leaf) if isinstance(leaf, torch.Tensor) else leaf

    with torch.no_grad():
        for function, args, kwargs, out in operations:
            new = function(*tree_map(current, args), **tree_map(current, kwargs))
            for old_leaf, new_leaf in zip(tree_leaves(out), tree_leaves(new), strict=True):
                if isinstance(old_leaf, torch.Tensor) and old_leaf is not new_leaf:
                    now[id(old_leaf)] = new_leaf
