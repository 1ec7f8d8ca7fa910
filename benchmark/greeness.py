"""Greeness, the paper's figure of merit."""

from __future__ import annotations

import math

TAU = 2.0
"""The paper's exponent in Table 3."""


def greeness(acc_pct: float, tec_wh: float, iec_wh: float, mui: float, tau: float = TAU) -> float:
    """G(MUI) = acc^tau / (MUI * IEC + TEC), in percent^tau per W.h (Li et al., 2021, eq. 1).

    Accuracy in percent: the paper's text says 0 to 1, but only percent gives the numbers of its tables. NaN where an
    input is
    NaN; raises ValueError on a negative one, or where nothing at all was spent.
    """
    values = {"acc_pct": acc_pct, "tec_wh": tec_wh, "iec_wh": iec_wh, "mui": mui}
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    if acc_pct > 100:
        raise ValueError(f"acc_pct is in percent, got {acc_pct}")
    spent_wh = mui * iec_wh + tec_wh
    if math.isnan(spent_wh) or math.isnan(acc_pct):
        return math.nan
    if spent_wh == 0:
        raise ValueError("G is undefined where neither training nor inference spends energy")
    return float(acc_pct**tau / spent_wh)
