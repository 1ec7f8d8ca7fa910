"""Every formula gives the golden values and gradients, in float64 and float32."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from methods.distillation import ab, at, cc, crd, dist, dkd, fitnet, fsp, ft, kd, nst, pkt, reviewkd, rkd, sp, vid
from methods.distillation.layers import ConvReg
from methods.distillation.logit_standardisation import standardise
from methods.distillation.term import Scene
from tests.distillation.golden import CASES, FLOAT32, assert_close, case, expected, take

THREE_STAGES = [("feat_s1", "feat_t1"), ("feat_s2", "feat_t2"), ("feat_s3", "feat_t3")]


def _names(given, prefix: str, names: dict[str, str] | None = None):
    """The tensors of a golden module, by the names that ours has."""
    found = {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
    return {names[key] if names else key: value for key, value in found.items()}


def _kd(given):
    s, t = given["logit_s"], given["logit_t"]
    loss, ce = kd.divergence(s, t, 4), functional.cross_entropy(s, given["target"])
    return {
        "loss": loss,
        "loss_T1": kd.divergence(s, t, 1),
        "cross_entropy": ce,
        "total_gamma0.1_alpha0.9_beta0": 0.1 * ce + 0.9 * loss,
    }


def _hint(given):
    s, t = given["feat_s"], given["feat_t"]
    regressor = ConvReg(tuple(s.shape[1:]), tuple(t.shape[1:]))
    names = {"conv.weight": "0.weight", "conv.bias": "0.bias", "bn.weight": "1.weight", "bn.bias": "1.bias"}
    take(regressor, _names(given, "regress.", names))
    out = regressor(s)
    given["conv_weight"] = regressor[0].weight
    return {"loss": fitnet.hint(out, t), "regressed_sum": out.sum(), "regressed_sumsq": out.pow(2).sum()}


def _at(given):
    stages = [at.attention(given[s], given[t]) for s, t in THREE_STAGES]
    return {"loss": sum(stages), "per_stage": stages}


def _nst(broadcast):
    def values(given):
        stages = [nst.selectivity(given[s], given[t], broadcast) for s, t in THREE_STAGES]
        return {"loss": sum(stages), "per_stage": stages}

    return values


def _sp(given):
    return {"loss": sp.similarity(given["feat_s"], given["feat_t"])}


def _cc(given):
    embedded = [given[f"feat_{x}"] @ given[f"embed_{x}.weight"].T + given[f"embed_{x}.bias"] for x in "st"]
    given |= {f"embed_{x}_weight": given[f"embed_{x}.weight"] for x in "st"}
    return {"loss": cc.correlation(*embedded)}


def _vid(given):
    names = {"conv1.weight": "mean.0.weight", "conv2.weight": "mean.2.weight", "conv3.weight": "mean.4.weight"}
    module = vid.Regressor(given["feat_s"].shape[1], given["feat_t"].shape[1])
    start = module.log_scale.detach().clone()
    take(module, _names(given, "vid.", {**names, "log_scale": "log_scale"}))
    assert torch.allclose(start, module.log_scale.float()), "the golden value is the initial one"
    given["log_scale"] = module.log_scale
    variance = functional.softplus(module.log_scale) + vid.LEAST_VARIANCE
    return {"loss": module(given["feat_s"], given["feat_t"]), "pred_var": variance[0]}


def _rkd(given):
    s, t = given["feat_s"], given["feat_t"]
    apart, angle = rkd.distance_loss(s, t), rkd.angle_loss(s, t)
    return {"loss": 25 * apart + 50 * angle, "distance_term": apart, "angle_term": angle}


def _pkt(given):
    loss = pkt.transfer(given["feat_s"], given["feat_t"])
    return {"loss": loss, "loss_times_30000": 30_000 * loss}


def _ab(given):
    stages, weights = [], [0.25, 0.5, 1]
    for number, weight in enumerate(weights, start=1):
        s, t = given[f"pre_s{number}"], given[f"pre_t{number}"]
        connect = ab.connector(tuple(s.shape[1:]), tuple(t.shape[1:]))
        names = {"conv.weight": "0.weight", "conv.bias": "0.bias", "bn.weight": "1.weight", "bn.bias": "1.bias"}
        own = _names(given, f"connector.stage{number}.", names)
        if own:
            take(connect, own)
        stages.append(weight * ab.SCALE * ab.boundaries(connect(s), t, 1.0))
    return {"loss": sum(stages), "per_stage_weighted": stages, "stage_weights": weights}


FT_NAMES = {
    f"{half}{number}_{layer}.{part}": f"{index}.{part}"
    for half in ("enc", "dec")
    for number in (1, 2, 3)
    for part in ("weight", "bias")
    for layer, index in (("conv", 2 * number - 2),)
}
TRANSLATOR_NAMES = {
    f"enc{number}_{layer}.{part}": f"{3 * number - 3 + offset}.{part}"
    for number in (1, 2, 3)
    for layer, offset in (("conv", 0), ("bn", 1))
    for part in ("weight", "bias")
}


def _ft(given):
    s, t = given["feat_s"], given["feat_t"]
    scene = Scene(((1, 1, 1), tuple(s.shape[1:]), (1,)), ((1, 1, 1), tuple(t.shape[1:]), (1,)), torch.zeros(0))
    halves = {f"encoder.{k}": v for k, v in _names(given, "paraphraser.enc", _cut("enc")).items()}
    halves |= {f"decoder.{k}": v for k, v in _names(given, "paraphraser.dec", _cut("dec")).items()}
    first = take(ft.Paraphrasing(scene, ft.FactorSettings()), halves)
    rebuilt = ft.reconstruction(first.decoder(first.encoder(t)), t)
    slopes = torch.autograd.grad(rebuilt, list(first.parameters()), retain_graph=True)
    main = ft.FT(
        Scene(scene.student, scene.teacher, scene.labels, prepared=first.float().state_dict()), ft.FactorSettings()
    )
    take(main.translator, _names(given, "translator.", TRANSLATOR_NAMES))
    take(main.encoder, {k.removeprefix("encoder."): v for k, v in halves.items() if k.startswith("encoder.")})
    factor_s, factor_t = main.translator(s), main.encoder(t)
    return {
        "loss": ft.transfer(factor_s, factor_t),
        "stage1_reconstruction_mse": rebuilt,
        "stage1_grad_abs_sum_all_params": sum(slope.abs().sum() for slope in slopes),
        "factor_t_shape": list(factor_t.shape),
        "factor_s_shape": list(factor_s.shape),
        "factor_t_sum": factor_t.sum(),
        "factor_s_sum": factor_s.sum(),
    }


def _cut(half: str) -> dict[str, str]:
    return {name.removeprefix(half): ours for name, ours in FT_NAMES.items() if name.startswith(half)}


def _fsp(broadcast):
    def values(given):
        maps = [[given[f"feat_{x}{k}"] for k in range(4)] for x in "st"]
        pairs = [fsp.flows(maps[0][k : k + 2], maps[1][k : k + 2], broadcast) for k in range(3)]
        return {"loss": fsp.flows(*maps, broadcast), "per_pair": pairs}

    return values


def _nce(given):
    return {"loss": crd.nce(given["scores"].squeeze(2), 40)}


def _dkd(alpha, beta, temperature):
    def values(given):
        s, t, labels = given["logit_s"], given["logit_t"], given["target"]
        parts = dkd.target_class(s, t, labels, temperature), dkd.other_classes(s, t, labels, temperature)
        loss, ce = alpha * parts[0] + beta * parts[1], functional.cross_entropy(s, labels)
        found = {"loss": loss, "tckd": parts[0], "nckd": parts[1], "cross_entropy": ce}
        found["kd_same_T"] = kd.divergence(s, t, temperature)
        return found | {f"total_epoch{n}": ce + min(n / 20, 1) * loss for n in (1, 5, 20, 100)}

    return values


def _dist(temperature):
    def values(given):
        inter, intra = dist.relations(given["logit_s"], given["logit_t"], temperature)
        loss, ce = temperature**2 * (inter + intra), functional.cross_entropy(given["logit_s"], given["target"])
        found = {"loss": loss, "inter_without_tau2": inter, "intra_without_tau2": intra, "cross_entropy": ce}
        return found | {"total_ce1_kd2": ce + 2 * loss}

    return values


def _standard(given):
    raw = given["logit_s"]
    found = {"cross_entropy": functional.cross_entropy(raw, given["target"]), "std_s_row0": raw[0].std()}
    return found | {"standardised_s_row0_first3": list(standardise(raw)[0, :3])}


def _ls_kd(given):
    s, t = given["logit_s"], given["logit_t"]
    found, loss = _standard(given), kd.divergence(standardise(s), standardise(t), 2)
    found |= {"loss": loss, "total": 0.1 * found["cross_entropy"] + 9 * loss}
    return found | {"loss_without_standardisation": kd.divergence(s, t, 2)}


def _ls_dkd(alpha, beta, temperature):
    def values(given):
        s, t = standardise(given["logit_s"]), standardise(given["logit_t"])
        tckd, nckd = (part(s, t, given["target"], temperature) for part in (dkd.target_class, dkd.other_classes))
        found, loss = _standard(given), alpha * tckd + beta * nckd
        return found | {"loss": loss} | {f"total_epoch{n}": found["cross_entropy"] + n / 20 * loss for n in (1, 20)}

    return values


def _hcl(given):
    parts = [reviewkd.hierarchical(given[f"f_s{k}"], given[f"f_t{k}"]) for k in range(4)]
    mse = [functional.mse_loss(given[f"f_s{k}"], given[f"f_t{k}"]) for k in range(4)]
    return {"loss": sum(parts), "parts": parts, "mse": mse}


ABF_NAMES = {
    f"{theirs}.{part}": f"{ours}.{part}"
    for theirs, ours in (
        ("conv1", "reduce.0"),
        ("bn1", "reduce.1"),
        ("conv2", "expand.0"),
        ("bn2", "expand.1"),
        ("att", "attention"),
    )
    for part in ("weight", "bias")
}


def _abf(size):
    def values(given):
        x, residual = given["x"], given["residual"]
        fusion = reviewkd.ABF(tuple(x.shape[1:]), (4, size, size), residual.shape[1], fuse=True)
        take(fusion, _names(given, "abf.", ABF_NAMES))
        out, handed = fusion(x, residual)
        given |= {"conv1_weight": fusion.reduce[0].weight, "conv2_weight": fusion.expand[0].weight}
        given["att_weight"] = fusion.attention.weight
        found = {"loss": out.pow(2).mean() + handed.pow(3).mean(), "output": out, "residual_out": handed}
        return found | {"output_shape": list(out.shape), "residual_out_shape": list(handed.shape)}

    return values


def _review(given):
    ours, theirs = ([given[f"feat_{x}{k}"] for k in (1, 2, 3)] for x in "st")
    student, teacher = (
        [(1, 16, 16), *(tuple(f.shape[1:]) for f in maps[:2]), maps[2].shape[1:2]] for maps in (ours, theirs)
    )
    term = reviewkd.ReviewKD(Scene(tuple(student), tuple(teacher), torch.zeros(0)), reviewkd.ReviewKD.Settings())
    for level, fusion in enumerate(term.fusions, start=1):
        take(fusion, _names(given, f"abf_{level}.", ABF_NAMES))
        given[f"abf_{level}.conv1.weight"] = fusion.reduce[0].weight
    features = [given["feat_s1"], *ours[:2], ours[2].flatten(1)]  # f[0] is never looked at
    loss = sum(reviewkd.hierarchical(s, t) for s, t in zip(term.review(features), theirs, strict=True))
    found = {"loss": loss, "loss_epoch5": loss * 5 / 20}
    return found | {"extra_params": sum(p.numel() for p in term.parameters())}


VALUES = {
    "kd": _kd,
    "hint_same": _hint,
    "hint_down": _hint,
    "hint_up": _hint,
    "at": _at,
    "nst": _nst(broadcast=False),
    "nst broadcast": _nst(broadcast=True),
    "sp": _sp,
    "cc": _cc,
    "vid_pool_s": _vid,
    "rkd": _rkd,
    "pkt": _pkt,
    "ab": _ab,
    "ft_same": _ft,
    "fsp": _fsp(broadcast=False),
    "fsp broadcast": _fsp(broadcast=True),
    "crd_nce_only": _nce,
    "dkd_k10": _dkd(1, 8, 4),
    "dkd_k100": _dkd(1, 2, 4),
    "dist_tau1": _dist(1),
    "dist_tau4": _dist(4),
    "ls_kd": _ls_kd,
    "ls_dkd": _ls_dkd(9, 72, 2),
    "ls_dkd_b": _ls_dkd(18, 36, 3),
    "review_hcl": _hcl,
    "review_abf_fuse": _abf(4),
    "review_abf_resize": _abf(7),
    "review_small": _review,
}
ELSEWHERE = {"crd", "alias_table"} | {name for name in CASES if name.startswith(("nas_", "qat_", "lsq_"))}
"""CRD has a file of its own, its alias table is never used in training; the rest is not about distillation."""
TOLD = {"conv", "loss_shape", "params"}
"""What a case says of itself."""


def test_every_case_is_looked_at():
    assert {name.split()[0] for name in VALUES} | ELSEWHERE == set(CASES)


@pytest.mark.parametrize("name", VALUES)
def test_values_and_gradients(name):
    given, wanted = case(name.split()[0]), expected(name.split()[0])
    found = VALUES[name](given)
    assert set(found) | TOLD | {key for key in wanted if key.startswith("grad_")} == set(wanted) | TOLD
    for key, value in found.items():
        assert_close(value, wanted[key])
    gradients = [key for key in wanted if key.startswith("grad_")]
    assert gradients
    of = [given[key.removeprefix("grad_")] for key in gradients]
    for key, slope in zip(gradients, torch.autograd.grad(found["loss"], of), strict=True):
        assert_close(slope, wanted[key])


@pytest.mark.parametrize("name", VALUES)
def test_values_in_float32(name):
    case_name = name.split()[0]
    found = VALUES[name](case(case_name, torch.float32))["loss"]
    assert found.dtype == torch.float32
    assert_close(found, CASES[case_name]["expected_float32_loss"], FLOAT32)
    assert_close(found, expected(case_name)["loss"], FLOAT32)
