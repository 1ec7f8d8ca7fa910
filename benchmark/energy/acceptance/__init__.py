"""Tries a board and its meters: what they can do (probing), and whether they can be trusted (trials, verdicts)."""
