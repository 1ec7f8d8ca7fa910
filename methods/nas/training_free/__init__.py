"""Searches that train little or nothing: scores of untrained networks, and random search as the reference."""
