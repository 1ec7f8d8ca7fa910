"""Fails where an INT8 engine of a trained network answers differently from its network.

usage: python scripts/ci_agreement.py STAGES_CSV PERCENT
"""

from __future__ import annotations

import sys

import pandas as pd

TRAINED_PCT = 5.0
"""Accuracy in percent up to which a network counts as guessing: its engine is not checked, because margins are tiny."""


def main(path: str, percent: float) -> int:
    """1 where an engine agrees with its network on less than `percent` of the test images, or where there is none."""
    stages = pd.read_csv(path)
    built = stages[(stages["phase"] == "deploy") & (stages["deploy_precision"] == "int8")]
    built = built[built["acc_pct"] >= TRAINED_PCT].drop_duplicates("key")
    for row in built.to_dict("records"):
        print(f"{row['method']} {row['model']}: {row['executed_precision']}, agrees on {row['agreement_pct']:.2f} %")
    if built.empty or not (built["agreement_pct"] >= percent).all():
        print(f"INT8 engines of trained networks must agree on {percent:g} % of the test images")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
