"""Imports and calls NNI without its irrelevant output."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

from benchmark.vision.download import import_torchvision


@contextlib.contextmanager
def quiet(modules: Sequence[str]) -> Iterator[None]:
    """Import `modules` of NNI, and suppress what they print and log inside the context.

    NNI prints and logs a line per layer, registers types that torch has already registered, and expects layers where
    today's torch has other objects. None of these messages helps the user.
    """
    import_torchvision()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*_register_pytree_node.*is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", r".*is already registered as pytree node", UserWarning)
        warnings.filterwarnings("ignore", r".*is found to be not a nn.Module", RuntimeWarning)
        for module in modules:  # the imports warn, and create the loggers
            importlib.import_module(module)
        levels = {logger: logger.level for logger in _loggers()}
        for logger in levels:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    """NNI's loggers; some parts of NNI set a level on their own logger."""
    known = [logging.getLogger("nni"), *logging.root.manager.loggerDict.values()]
    return [one for one in known if isinstance(one, logging.Logger) and one.name.partition(".")[0] == "nni"]
