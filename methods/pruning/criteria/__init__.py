"""Criteria, which score filters: one file with one function for each criterion.

The function takes a `subject.Subject`, then its own settings by name. It returns one number per filter; the filters
with the lowest numbers are removed. The formulas are those of NNI.
"""
