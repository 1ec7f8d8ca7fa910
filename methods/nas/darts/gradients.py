"""The gradient of the validation loss with respect to DARTS's architecture parameters: first and second order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from methods.nas.darts.supernet import SearchNetwork

EPSILON = 0.01
"""The step of the finite difference, divided by the norm of its direction."""

Labelled = tuple[Tensor, Tensor]
"""Images and labels."""


class Step(NamedTuple):
    """The result of an architecture step's pass: loss and logits on the validation batch, and the gradients.

    The gradients are those of the architecture parameters.
    """

    loss: Tensor
    logits: Tensor
    gradients: tuple[Tensor, ...]


class Ahead(NamedTuple):
    """The weight step that second order takes in advance: its learning rate, momentum, weight decay and buffers.

    The momentum buffers are named by parameter; before the first step there are none.
    """

    lr: float | Tensor
    momentum: float
    weight_decay: float
    buffers: Mapping[str, Tensor]


def first_order(network: SearchNetwork, valid: Labelled) -> Step:
    """The gradient of the validation loss at the present weights (DARTS, xi = 0)."""
    logits = network(valid[0])
    loss = functional.cross_entropy(logits, valid[1])
    return Step(loss.detach(), logits.detach(), torch.autograd.grad(loss, network.architecture()))


def second_order(network: SearchNetwork, train: Labelled, valid: Labelled, ahead: Ahead) -> Step:
    """The gradient of the validation loss after one weight step on the training batch (DARTS, equations 7 and 8).

    The step is SGD's with momentum and weight decay, without clipping. The Hessian product is a finite difference over
    w +- epsilon v with epsilon = 0.01 / |v|. All passes run in train mode. The three passes on the training batch
    update the running statistics; the pass with the unrolled weights does not. In float32 half a percent of the
    difference is noise.
    """
    weights, alphas = network.weights(), network.architecture()
    loss = functional.cross_entropy(network(train[0]), train[1])
    gradients = torch.autograd.grad(loss, list(weights.values()))
    unrolled = {
        name: _stepped(weight.detach(), gradient, ahead, name).requires_grad_()
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    logits: Tensor = functional_call(network, {**unrolled, **statistics}, (valid[0],))
    valid_loss = functional.cross_entropy(logits, valid[1])
    found = torch.autograd.grad(valid_loss, [*alphas, *unrolled.values()])
    direct, along = found[: len(alphas)], dict(zip(weights, found[len(alphas) :], strict=True))
    epsilon = EPSILON / torch.linalg.vector_norm(torch.stack([part.norm() for part in along.values()]))
    ahead_of, behind = (_alpha_gradient(network, train, along, sign * epsilon) for sign in (1, -1))
    corrected = tuple(
        own - ahead.lr * (plus - minus) / (2 * epsilon)
        for own, plus, minus in zip(direct, ahead_of, behind, strict=True)
    )
    return Step(valid_loss.detach(), logits.detach(), corrected)


def _stepped(weight: Tensor, gradient: Tensor, ahead: Ahead, name: str) -> Tensor:
    moment = gradient + ahead.weight_decay * weight
    if name in ahead.buffers:
        moment = moment + ahead.momentum * ahead.buffers[name]
    return weight - ahead.lr * moment


def _alpha_gradient(
    network: SearchNetwork, train: Labelled, along: Mapping[str, Tensor], step: Tensor
) -> tuple[Tensor, ...]:
    """The gradient of the training loss with respect to the architecture, at the weights plus `step` times `along`."""
    moved = {name: weight.detach() + step * along[name] for name, weight in network.weights().items()}
    logits: Tensor = functional_call(network, moved, (train[0],))
    return torch.autograd.grad(functional.cross_entropy(logits, train[1]), network.architecture())


def buffers_of(optimiser: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The momentum buffers that an SGD has, by the name of the parameter."""
    found = {name: optimiser.state[weight].get("momentum_buffer") for name, weight in weights.items()}
    return {name: buffer for name, buffer in found.items() if buffer is not None}
