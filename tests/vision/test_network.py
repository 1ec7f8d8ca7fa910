"""Freezing, loading, and the proof that what comes back is what went in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.plan.stage import Network
from benchmark.plan.task import Model
from benchmark.vision import network
from methods import training as plain_training
from methods.baseline import Training
from tests.bench import MeteredBench, PlainBench
from tests.vision import awkward_nets


def _model(name) -> Model:
    return Model(name=name, builder=f"tests.vision.awkward_nets:{name}")


def _built(kind, seed: int = 0) -> tuple[nn.Module, Model]:
    model = _model(kind.__name__.lower())
    torch.manual_seed(seed)
    return network.build_model(model, 10), model


def _answer(module, images):
    torch.manual_seed(0)
    with torch.no_grad():
        return module.eval()(images)


@pytest.mark.parametrize("kind", awkward_nets.STORABLE)
def test_what_the_builder_makes_beside_stored_tensors_comes_back(kind, recipe):
    module, model = _built(kind)
    for parameter in module.parameters():
        parameter.data.add_(0.1)  # as training would
    images = torch.randn(4, 3, 32, 32)
    loaded = network.load(network.freeze(module, model, 10, recipe))
    assert torch.equal(_answer(loaded, images), _answer(module, images))
    assert not loaded.training
    wanted = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in loaded.named_parameters()} == wanted


def test_tied_weights_stay_tied_also_when_shrunk(recipe):
    module, model = awkward_nets.tied(10, width=5), _model("tied")
    loaded = network.load(network.freeze(module, model, 10, recipe))
    assert loaded.first.weight is loaded.second.weight
    assert loaded.again is loaded.first
    assert loaded.first.weight.shape == (5, 5, 1, 1)
    assert (loaded.second.in_channels, loaded.second.out_channels) == (5, 5)
    assert len(list(loaded.parameters())) == len(list(module.parameters()))


def test_frozen_layers_that_were_shrunk_stay_frozen(recipe):
    loaded = network.load(network.freeze(awkward_nets.frozen(10, width=5), _model("frozen"), 10, recipe))
    assert loaded.conv.weight.shape[0] == 5
    assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == {
        "head.weight", "head.bias"
    }  # fmt: skip  # a line reads best


@pytest.mark.parametrize(("kind", "what"), awkward_nets.CHANCE.items())
def test_a_network_made_by_chance_is_refused_before_it_is_trained(kind, what, task, monkeypatch):
    task = task.model_copy(update={"model": _model(kind.__name__.lower())})
    monkeypatch.setattr(plain_training, "fit", lambda *given: pytest.fail("trained a network that cannot be stored"))
    with pytest.raises(
        ValueError, match=rf"{task.model.name} cannot be restored exactly .* the {what} differs.*Remedy"
    ):
        plain_training.train(PlainBench(), Training(task=task))


@pytest.mark.parametrize(("kind", "what"), awkward_nets.CHANGED.items())
def test_a_network_whose_training_moves_what_is_not_stored_is_refused_after_it(kind, what, task, recipe):
    module, model = _built(kind)
    network.prove(module, model, 10)  # fresh it can be stored
    with pytest.raises(
        ValueError, match=rf"the {what} differs.*Remedy: store what the network needs \(register_buffer"
    ):
        plain_training.train(PlainBench(), Training(task=task.model_copy(update={"model": model})))


def test_proving_and_counting_are_off_the_meter(task, monkeypatch):
    bench, seen = MeteredBench(), []
    for name in ("prove", "freeze", "count", "loaders", "fit"):
        plain = getattr(plain_training, name)
        monkeypatch.setattr(
            plain_training, name, lambda *given, n=name, p=plain: seen.append((n, bench.running)) or p(*given)
        )
    plain_training.train(bench, Training(task=task))
    assert seen == [("prove", False), ("loaders", False), ("fit", True), ("freeze", False), ("count", False)]


def test_weights_tied_after_building_are_refused_for_they_would_train_apart(recipe):
    module, model = _built(awkward_nets.Base)
    module.extra = None
    twin = nn.Linear(8, 10)
    twin.weight = module.head.weight
    module.head, module.conv.bias = twin, module.norm.bias
    with pytest.raises(
        ValueError, match=r"would train differently: conv.bias and norm.bias are tied in only one of them"
    ):
        network.freeze(module, model, 10, recipe)


def test_parts_put_in_later_are_named(recipe):
    module, model = _built(awkward_nets.Base)
    module.norm = nn.Identity()
    with pytest.raises(ValueError, match=r"base cannot be restored exactly.*do not fit.*norm"):
        network.freeze(module, model, 10, recipe)
    module, model = _built(awkward_nets.Base)
    module.register_forward_hook(lambda part, inputs, out: out * 2)
    with pytest.raises(ValueError, match="other answers, though all data agrees"):
        network.freeze(module, model, 10, recipe)


def test_state_that_is_no_tensor_is_refused(recipe):
    module, model = _built(awkward_nets.Noting)
    with pytest.raises(ValueError, match="noting cannot be stored: _extra_state of its state dict"):
        network.freeze(module, model, 10, recipe)


def test_proving_leaves_no_trace():
    module, model = _built(awkward_nets.Chancy)
    module.to(memory_format=torch.channels_last).train()
    module.norm.eval()
    hooks = [
        module.register_forward_hook(lambda *given: None),
        module.conv.register_forward_pre_hook(lambda *given: None),
    ]
    before = [part.training for part in module.modules()], [dict(part._forward_hooks) for part in module.modules()]
    tensors = {name: (tensor.clone(), tensor.stride()) for name, tensor in module.state_dict().items()}
    cudnn = torch.backends.cudnn
    switches = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    generator = torch.get_rng_state()
    network.prove(module, model, 10)
    assert torch.equal(torch.get_rng_state(), generator)
    assert before == (
        [part.training for part in module.modules()],
        [dict(part._forward_hooks) for part in module.modules()],
    )
    assert switches == (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    for name, (tensor, stride) in tensors.items():
        now = module.state_dict()[name]
        assert torch.equal(now, tensor)
        assert now.stride() == stride
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    for hook in hooks:
        hook.remove()


def test_loading_moves_no_generator_and_is_the_same_each_time(recipe):
    """Whatever the generators were at: a file is a function of itself."""
    module, model = _built(awkward_nets.Projected)
    tensors = module.state_dict()
    stored = Network(model.builder, {"classes": 10}, tensors, recipe.mean, recipe.std)
    loaded = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        loaded.append(network.load(stored))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(loaded[0].window, loaded[1].window)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_number_formats_come_back(dtype, recipe):
    module, model = _built(awkward_nets.Tied)
    module.to(dtype)
    loaded = network.load(network.freeze(module, model, 10, recipe))
    assert {tensor.dtype for tensor in loaded.state_dict().values() if tensor.is_floating_point()} == {dtype}
    assert loaded.norm.num_batches_tracked.dtype == torch.int64
    assert loaded.first.weight is loaded.second.weight
    images = torch.randn(2, 3, 32, 32, dtype=dtype)
    assert torch.equal(_answer(loaded, images), _answer(module, images))


def test_a_network_that_became_nan_is_not_blamed_for_its_state(recipe):
    module, model = _built(awkward_nets.Base)
    module.head.weight.data.fill_(torch.nan)
    assert network.freeze(module, model, 10, recipe).tensors["head.weight"].isnan().all()


def test_tied_tensors_stored_with_two_shapes_are_refused(recipe):
    _, model = _built(awkward_nets.Tied)
    tensors = awkward_nets.tied(10, width=5).state_dict()
    tensors["second.weight"] = torch.zeros(4, 5, 1, 1)
    with pytest.raises(ValueError, match=r"second.weight is tied to a tensor that is stored with another shape"):
        network.load(Network(model.builder, {"classes": 10}, tensors, recipe.mean, recipe.std))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda network: setattr(network[3], "p", 0.9), "the plain attribute 3.p differs"),
        (lambda network: setattr(network[1], "momentum", 0.001), "the plain attribute 1.momentum differs"),
        (
            lambda network: network[0].weight.requires_grad_(False),
            "0.weight is frozen in one of them and not in the other",
        ),
    ],
)
def test_what_a_later_stage_would_train_by_is_proved_too(change, said, recipe):
    """In eval mode these answer alike; trained on, they would not."""
    model = Model(name="tiny", builder="tests.tiny:tiny")
    net = network.build_model(model, 10)
    network.freeze(net, model, 10, recipe)
    change(net)
    with pytest.raises(ValueError, match=f"would train differently.*{said}"):
        network.freeze(net, model, 10, recipe)
