"""How much a filter is worth: one file, one function a criterion. The function takes a `subject.Subject`, then its own
settings by name, and gives a number per filter, of which the lowest go. Formulas as in NNI."""
