#!/bin/sh
# The main job. On a machine with a GPU: a study (EXPERIMENT, default baselines) at full scale. Without one: the same study at
# smoke scale. DATA is a folder that holds cifar-100-python/. On a GPU TensorRT is installed first, where possible
# (TENSORRT=no skips this); without it engine=auto is torch, and INT8 is refused with the reason.
set -eu
python="${VENV:-.venv}/bin/python"
experiment="${EXPERIMENT:-baselines}"
data="${DATA:-data}"
if "$python" -m benchmark device hardware=gpu >/dev/null 2>&1; then
    if [ "${TENSORRT:-yes}" != no ] && ! "$python" -c 'import importlib.util as u; exit(u.find_spec("tensorrt") is None)'; then
        echo "TensorRT is not installed: trying '.[gpu]' (several GB, minutes)"
        "$python" -m pip install --quiet --disable-pip-version-check --editable '.[gpu]' >"${VENV:-.venv}/tensorrt.log" 2>&1 || true
    fi
    "$python" -c 'from benchmark.deploy.engines import kind_named
kind = kind_named("tensorrt")
print("TensorRT:", kind.why_unavailable("int8", "cuda") or kind.version())'
    exec "$python" -m benchmark study "experiment=$experiment" "paths.data=$data" "$@"
fi
echo "no GPU here: running the study $experiment at smoke scale (estimated energy, one epoch on a tiny subset)"
# real CIFAR-100 where it is in the folder or can be downloaded, otherwise synthetic images
fetch='import pathlib, sys; from benchmark.vision.download import ensure; ensure("cifar100", pathlib.Path(sys.argv[1]))'
if "$python" -c "$fetch" "$data" >/dev/null 2>&1; then
    set -- "paths.data=$data" "$@"
else
    echo "CIFAR-100 is not under $data/ and cannot be downloaded: using synthetic images of the same shape"
    set -- data=synthetic "$@"
fi
exec "$python" -m benchmark study "experiment=$experiment" scale=smoke "$@"
