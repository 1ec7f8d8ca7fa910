"""The only package that imports nni, which is archived: everything else runs without it."""
