"""DARTS: differentiable search over the cells of a network (Liu, Simonyan and Yang 2019)."""
