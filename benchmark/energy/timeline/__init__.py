"""Readings on a timeline: the clock, the sampler, the recorders and the curves they fill. Knows no window."""
