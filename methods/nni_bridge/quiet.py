"""NNI imported and called without its noise."""

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
    """`modules` of NNI imported, and what they print and log kept to themselves inside.

    NNI prints and logs a line per layer, registers with torch what torch has registered, and looks for layers where
    torch has other things by now: none of it is news.
    """
    import_torchvision()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*_register_pytree_node.*is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", r".*is already registered as pytree node", UserWarning)
        warnings.filterwarnings("ignore", r".*is found to be not a nn.Module", RuntimeWarning)
        for module in modules:  # what warns, and what creates the loggers
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
    """NNI's loggers; some of its parts give their own a level."""
    known = [logging.getLogger("nni"), *logging.root.manager.loggerDict.values()]
    return [one for one in known if isinstance(one, logging.Logger) and one.name.partition(".")[0] == "nni"]
