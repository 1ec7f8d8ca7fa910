#!/bin/sh
# Parses and builds our exports with TensorRT-RTX, without a GPU, in a separate environment (about 250 MB).
# usage: scripts/trt_check.sh [python]     skipped, with the reason, where the package cannot be installed
set -eu
cd "$(dirname "$0")/.."
test -x .venv-trt/bin/python || "${1:-python3}" -m venv .venv-trt
# this package decides whether there is anything to check; the others are needed to import our build function
if ! .venv-trt/bin/python -m pip install --quiet --disable-pip-version-check 'tensorrt-rtx-cu13>=1.7,<2' 2>.venv-trt/why; then
    echo "trt-check skipped: tensorrt-rtx-cu13 cannot be installed here: $(tail -n 1 .venv-trt/why)"
    exit 0
fi
.venv-trt/bin/python -m pip install --quiet --disable-pip-version-check 'pydantic>=2' numpy
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python scripts/trt_check.py write "$work"
PYTHONPATH=. .venv-trt/bin/python scripts/trt_check.py build "$work"
