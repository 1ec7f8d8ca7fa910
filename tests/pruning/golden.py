"""The two small networks of pruning_golden.json and its protocol, without a word of how pruning is done."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmark.plan.task import Recipe
from tests.data import golden_inputs

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "pruning_golden.json").read_text())
CASES = {case["id"]: case for case in GOLDEN["cases"]}
CRITERIA = {"l1": "l1", "l2": "l2", "fpgm": "fpgm", "taylor": "taylorfo", "apoz": "apoz", "mean": "activation_mean"}

# SGD lr 0.01, momentum 0.9, no weight decay, mean cross-entropy
RECIPE = Recipe(
    name="golden", epochs=1, batch_size=8, lr=0.01, weight_decay=0.0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
)


class Plain(nn.Module):
    """Three convolutions, the second with a bias; four columns of the linear layer per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 2)
        x = functional.max_pool2d(functional.relu(self.bn2(self.conv2(x))), 2)
        x = functional.max_pool2d(functional.relu(self.bn3(self.conv3(x))), 2)
        return self.fc(x.flatten(1))


class Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if width != out:
            self.shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class Residual(nn.Module):
    """A stem, a block with an identity shortcut, one with a projection, global pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.block1 = Block(8, 8, 1)
        self.block2 = Block(8, 16, 2)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.block2(self.block1(functional.relu(self.bn1(self.conv1(x)))))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def net(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A golden network with its golden weights, in eval mode."""
    module = {"plain": Plain, "residual": Residual}[name]().to(dtype)
    state = {
        key: torch.tensor(0) if "constant" in entry else torch.from_numpy(golden_inputs.build(entry))
        for key, entry in GOLDEN["nets"][name]["state"].items()
    }
    module.load_state_dict(state)
    return module.eval()


def batch(name: str, number: int, dtype: torch.dtype = torch.float64):
    """Golden batch `number` (they repeat): images, labels, indices."""
    found = GOLDEN["nets"][name]["batches"][number % 2]
    images = torch.from_numpy(golden_inputs.build(found["images"])).to(dtype)
    return images, torch.tensor(found["labels"]), torch.arange(len(images))


def full_size_state(module: nn.Module, base: int) -> dict:
    """The state that `full_size` describes: tensor k has seed base + k, in ranges by kind."""
    state = {}
    for k, (name, value) in enumerate(module.state_dict().items()):
        shape = list(value.shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        if name.endswith("running_mean"):
            low, high = -0.2, 0.2
        elif name.endswith("running_var"):
            low, high = 0.5, 1.5
        elif len(shape) == 4:
            high = (6 / (shape[1] * shape[2] * shape[3])) ** 0.5
            low = -high
        elif len(shape) == 2:
            high = (3 / shape[1]) ** 0.5
            low = -high
        elif isinstance(module.get_submodule(name.rpartition(".")[0]), nn.Linear):
            low, high = -0.1, 0.1
        else:
            low, high = (0.5, 1.5) if name.endswith("weight") else (-0.5, 0.5)
        state[name] = torch.from_numpy(golden_inputs.tensor(base + k, shape, low, high))
    return state
