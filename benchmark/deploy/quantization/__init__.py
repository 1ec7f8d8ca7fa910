"""Symmetric INT8: the observed ranges, where they are cut, the scales, and the placement of Q/DQ pairs."""
