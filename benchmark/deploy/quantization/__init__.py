"""Symmetric INT8: what ranges are seen, where they are cut, the scales that follow, and where Q/DQ pairs stand."""
