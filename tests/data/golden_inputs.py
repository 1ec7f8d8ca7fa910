#!/usr/bin/env python3
# ruff: noqa: T201, UP031 -- a copy of the script that came with the golden values; below this header it is unchanged
# fmt: off
"""Rebuild every tensor named in distillation_golden.json from its recipe.

The recipe needs no random number generator: element k (C order) of a tensor with
seed s comes from a 32-bit integer mix, so any language gives the same bits.

    h = (s * 2654435769 + k * 2246822519 + 374761393)      mod 2**32
    h = h xor (h >> 16);  h = h * 2246822507               mod 2**32
    h = h xor (h >> 13);  h = h * 3266489909               mod 2**32
    h = h xor (h >> 16);  u = h / 2**32                    in [0, 1)
    value = lo + (hi - lo) * u                             in float64

Usage
    golden_inputs.py                  rebuild all tensors, compare their checksums
    golden_inputs.py --show kd        print one case: tensors and expected values
    golden_inputs.py --npz DIR        also write DIR/<case>.npz

As a module:  load() -> dict;  case_arrays(golden, "kd") -> {name: ndarray};
              model_param(kind, shape) -> ndarray for the network oracles.
Needs numpy only.
"""
import argparse
import json
import math
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
JSON_PATH = os.path.join(HERE, "distillation_golden.json")
M32 = np.uint64(0xFFFFFFFF)


def unit(seed, count):
    """`count` numbers in [0, 1) for this seed."""
    k = np.arange(count, dtype=np.uint64)
    h = (np.uint64(seed * 2654435769 % 2**32) + k * np.uint64(2246822519)
         + np.uint64(374761393)) & M32
    h = h ^ (h >> np.uint64(16))
    h = (h * np.uint64(2246822507)) & M32
    h = h ^ (h >> np.uint64(13))
    h = (h * np.uint64(3266489909)) & M32
    h = h ^ (h >> np.uint64(16))
    return h.astype(np.float64) / 4294967296.0


def tensor(seed, shape, lo, hi):
    """float64 array of `shape`, uniform-looking in [lo, hi)."""
    count = int(np.prod(shape, dtype=np.int64)) if len(shape) else 1
    return (lo + (hi - lo) * unit(seed, count)).reshape(shape)


def build(entry):
    """One tensor from its JSON entry."""
    if "values" in entry:                                   # given literally
        return np.asarray(entry["values"], dtype=entry.get("dtype", "float64"))
    if "constant" in entry:
        return np.full(entry["shape"], entry["constant"], dtype=np.float64)
    return tensor(entry["seed"], entry["shape"], entry["lo"], entry["hi"])


def model_param(kind, shape):
    """Value of a network parameter: depends on its kind and shape only, never on
    its name or position, so any naming of the layers gives the same network.

    kind: conv_weight [out, in/groups, kh, kw], linear_weight [out, in],
          linear_bias, conv_bias, bn_weight, bn_bias
    """
    if kind == "conv_weight":
        r = math.sqrt(6.0 / (shape[1] * shape[2] * shape[3]))
        return tensor(1, shape, -r, r)
    if kind == "linear_weight":
        r = math.sqrt(3.0 / shape[1])
        return tensor(2, shape, -r, r)
    if kind == "linear_bias":
        return tensor(3, shape, -0.1, 0.1)
    if kind == "conv_bias":
        return tensor(4, shape, -0.1, 0.1)
    if kind == "bn_weight":
        return tensor(5, shape, 0.9, 1.1)
    if kind == "bn_bias":
        return tensor(6, shape, -0.1, 0.1)
    raise ValueError(kind)


def model_input(batch):
    return tensor(7, [batch, 3, 32, 32], -2.0, 2.0)


def load(path=JSON_PATH):
    with open(path) as fh:
        return json.load(fh)


def case_arrays(golden, name):
    case = golden["cases"][name]
    out = {}
    for group in ("inputs", "modules"):
        for key, entry in case.get(group, {}).items():
            out[key] = build(entry)
    return out


def checksum(a):
    a = np.asarray(a, dtype=np.float64).ravel()
    w = np.arange(1, a.size + 1, dtype=np.float64)
    return {"sum": float(math.fsum(a)), "sumsq": float(math.fsum(a * a)),
            "weighted": float(math.fsum(a * w) / a.size)}


def main(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("--show")
    p.add_argument("--npz")
    args = p.parse_args(argv)
    golden = load()
    bad = total = 0
    for name, case in golden["cases"].items():
        arrays = case_arrays(golden, name)
        for group in ("inputs", "modules"):
            for key, entry in case.get(group, {}).items():
                got = checksum(arrays[key])
                total += 1
                for field, want in entry["checksum"].items():
                    if not math.isclose(got[field], want, rel_tol=1e-12, abs_tol=1e-12):
                        bad += 1
                        print("MISMATCH", name, key, field, got[field], want)
        if args.npz:
            os.makedirs(args.npz, exist_ok=True)
            np.savez(os.path.join(args.npz, name + ".npz"), **arrays)
        if args.show == name:
            for key, arr in arrays.items():
                print(key, arr.shape, arr.ravel()[:4])
            print(json.dumps(case["expected"], indent=1))
    m = golden["models"]["_recipe"]
    got = checksum(model_input(m["batch"]))
    total += 1
    for field, want in m["input_checksum"].items():
        if not math.isclose(got[field], want, rel_tol=1e-12, abs_tol=1e-12):
            bad += 1
            print("MISMATCH model input", field)
    print("%d tensors in %d cases rebuilt, %d mismatches" % (total, len(golden["cases"]), bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
