"""Searches that train little or nothing: scores of untrained networks, and the honest yardstick, random search."""
