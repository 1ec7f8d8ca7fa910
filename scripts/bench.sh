#!/bin/sh
# The main job. On a machine with a GPU: the study `quick`, with what it and the longer ones will take; EXPERIMENT chooses another
# (table3, full, ...). Without a GPU: the study `demo`, every family on real images in a quarter of an hour; another study runs at
# smoke scale. DATA is a folder that holds cifar-100-python/. On a GPU TensorRT is installed first, where possible (TENSORRT=no
# skips this); without it engine=auto is torch, and INT8 is refused with the reason. More words go to the study: seeds=3
set -eu
python="${VENV:-.venv}/bin/python"
data="${DATA:-data}"
if "$python" -m benchmark device hardware=gpu >/dev/null 2>&1; then
    experiment="${EXPERIMENT:-quick}"
    if [ "${TENSORRT:-yes}" != no ] && ! "$python" -c 'import importlib.util as u; exit(u.find_spec("tensorrt") is None)'; then
        echo "TensorRT is not installed: trying '.[gpu]' (several GB, minutes)"
        "$python" -m pip install --quiet --disable-pip-version-check --editable '.[gpu]' >"${VENV:-.venv}/tensorrt.log" 2>&1 || true
    fi
    "$python" -c 'from benchmark.deploy.engines import kind_named
kind = kind_named("tensorrt")
print("TensorRT:", kind.why_unavailable("int8", "cuda") or kind.version())'
    if [ -z "${EXPERIMENT:-}" ]; then
        for longer in table3 full; do
            echo "the study $longer is: make bench EXPERIMENT=$longer"
            "$python" -m benchmark study "experiment=$longer" "paths.data=$data" dry_run=true 2>/dev/null | grep 'them about' || true
        done
        echo "the study $experiment, which runs now:"
    fi
    exec "$python" -m benchmark study "experiment=$experiment" "paths.data=$data" "$@"
fi
experiment="${EXPERIMENT:-demo}"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"  # cores may be shared: threads that spin while they wait take each other's time
# real CIFAR-100 where it is in the folder or can be downloaded, otherwise synthetic images
if why="$("$python" -m benchmark data name=cifar100 "paths.data=$data" 2>&1)"; then
    set -- "paths.data=$data" "$@"
elif [ -e "$data/cifar-100-python" ]; then
    echo "$why" >&2  # files that are there and are not CIFAR-100 are for the user to mend
    exit 1
else
    echo "$why"
    echo "so this run takes synthetic images of the same shape"
    set -- data=synthetic "$@"
fi
if [ "$experiment" = demo ]; then
    echo "no GPU here: running the study demo (every family, small networks and short recipes, estimated energy; about a quarter of an hour)"
    exec "$python" -m benchmark study experiment=demo "$@"
fi
echo "no GPU here: running the study $experiment at smoke scale (estimated energy, one epoch on a tiny subset)"
exec "$python" -m benchmark study "experiment=$experiment" scale=smoke "$@"
