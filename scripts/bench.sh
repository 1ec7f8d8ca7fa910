#!/bin/sh
# The main job. On a machine with a GPU: a study (EXPERIMENT, default baselines) at full scale. Without one: the same study at
# smoke scale. DATA is a folder that holds cifar-100-python/.
set -eu
python="${VENV:-.venv}/bin/python"
experiment="${EXPERIMENT:-baselines}"
data="${DATA:-data}"
if "$python" -m benchmark device hardware=gpu >/dev/null 2>&1; then
    exec "$python" -m benchmark study "experiment=$experiment" "paths.data=$data" "$@"
fi
echo "no GPU here: running the study $experiment at smoke scale (estimated energy, one epoch on a tiny subset)"
# real CIFAR-100 where it lies or can be fetched, else the synthetic stand-in
fetch='import pathlib, sys; from benchmark.vision.download import ensure; ensure("cifar100", pathlib.Path(sys.argv[1]))'
if "$python" -c "$fetch" "$data" >/dev/null 2>&1; then
    set -- "paths.data=$data" "$@"
else
    echo "CIFAR-100 is not under $data/ and cannot be downloaded: using synthetic images of the same shape"
    set -- data=synthetic "$@"
fi
exec "$python" -m benchmark study "experiment=$experiment" scale=smoke "$@"
