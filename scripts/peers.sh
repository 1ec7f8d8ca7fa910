#!/bin/sh
# Compares Zeus and CodeCarbon with our tracer on one fake GPU, in a separate environment (about three minutes, mostly asleep).
# usage: scripts/peers.sh [python] > table.md      the tests' output goes to standard error, the table to standard output
set -eu
cd "$(dirname "$0")/.."
test -x .venv-peers/bin/python || "${1:-python3}" -m venv .venv-peers
.venv-peers/bin/python -m pip install --quiet 'zeus==0.16.*' 'codecarbon==3.3.*' nvidia-ml-py numpy 'pydantic>=2' pytest >&2
table=$(mktemp)
trap 'rm -f "$table"' EXIT
# tests/conftest.py needs torch, which this environment does not have
status=0
PEERS_TABLE="$table" .venv-peers/bin/python -m pytest --confcutdir=tests/peers tests/peers >&2 || status=$?
cat "$table"
exit "$status"
