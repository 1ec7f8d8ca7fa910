"""The door: `python -m benchmark COMMAND [name=value ...]`. Help needs nothing but Python; each command imports what
it needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmark.errors import UserError
from benchmark.streams import unbreakable

HELP = """\
The full-cycle energy benchmark: what a deep-learning method costs over its whole life, training and use, in measured
energy.

usage: python -m benchmark COMMAND [name=value ...]

  run      run one experiment: train, deploy, measure; what is recorded already does not run again
           (--measure-again: its inference is)
  plan     show its stages, keys, what is recorded, and what the rest may cost; runs nothing (--check: builds networks)
  study    plan and run every experiment of configs/experiment/NAME.yaml: study experiment=NAME
           (--dry-run: only what it will take; --only 'method=pruning/*'; --max-hours, --max-wh: where it stops)
  advise   name the greenest method for a number of inferences: advise mui=2e8 min_acc=70 (source=paper: by the
           paper's own table, before anything was run)
  report   make tables, figures and the page results/report.html from the records, and print the summary
           (source=paper: of the paper's own table; mui=1e7,5e8: G at these, too; country=DEU pue=1.2
           price_kwh=0.3: CO2e and money; exports=true: files for other tools; --no-figures)
  export   write all results into one file that another box can take: export file=results.zip
           (models=true: the networks, too)
  import   take what is new in such a file: import file=results.zip
  data     make a data set of your own, for data=NAME: data from=FOLDER name=NAME (train/CLASS/IMAGE and
           test/CLASS/IMAGE, or CLASS/IMAGE, or an .npz of arrays; resize=true: of another size than 32x32)
  check    judge every record; exits non-zero on a fault
  free     delete the networks and engines that no unfinished life needs (--dry-run: only list them); records stay
           (--without=DIR: whatever the results folder DIR still needs)
  device   say what meter and device this machine has, and why not a better one (--probe: find out what they can do;
           --compare: what other energy tools say of the same minute; --seconds=20)

examples
  python -m benchmark run method=baseline model=nni/vgg16 scale=smoke
  python -m benchmark run -m model=nni/vgg13,nni/vgg16 scale=small recipe=check
  python -m benchmark study experiment=baselines
  python -m benchmark report paths.results=results/.smoke

python -m benchmark run --help lists every name and choice, and with method=NAME that method's settings; COMMAND --help
says what any other command takes. With --config-dir DIR (any command, more than once), DIR is searched like configs/:
your own methods, models, data sets and studies, without a fork (CONTRIBUTING.md).
"""


OWN = ("benchmark", "methods")
"""Modules whose absence is a mistake of ours, and no missing installation."""

LINUX = ("fcntl", "resource")
"""Modules of Python that Windows has not."""

COMMANDS = ("run", "plan", "study", "report", "check", "free", "device", "export", "import", "advise", "data")

EXPERIMENTS = ("run", "plan", "study")
"""The commands that take every name of an experiment."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 refused or failed, 130 interrupted."""
    with unbreakable():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if words else 1
    if words[0] not in COMMANDS:
        from difflib import get_close_matches

        known = get_close_matches(words[0], COMMANDS) or COMMANDS
        return _refuse(f"unknown command {words[0]!r}; did you mean {', '.join(known)}?")
    try:
        from benchmark import commands
        from benchmark.plan.folders import take_config_dirs

        rest = take_config_dirs(words[1:])
        if any(word in ("-h", "--help") for word in rest):
            if words[0] not in EXPERIMENTS:
                return _help(words[0])
            _print_entry(words[0])
            return commands.choices(rest)
        return int(getattr(commands, words[0].replace("import", "take_in"))(rest))
    except ModuleNotFoundError as error:
        if error.name in OWN:
            raise
        if error.name in LINUX:
            return _refuse(f"this system ({sys.platform}) is not supported: run it on Linux, in WSL or in a container")
        return _refuse(
            f"{error.name} is not installed here: make setup, then . .venv/bin/activate (or pip install -e .)"
        )
    except KeyboardInterrupt:
        print("interrupted: everything measured is kept; the same command goes on from here", file=sys.stderr)
        return 130
    except UserError as error:
        return _refuse(str(error))
    except OSError as error:  # a folder that may not be looked into, a disk that fails: never our own mistake
        where = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{where}{error.strerror or error}; make it accessible, or choose another place")


def _print_entry(command: str) -> None:
    from benchmark.helping import entry

    print("\n".join(entry(command, HELP)) + "\n")


def _help(command: str) -> int:
    from benchmark.helping import help_of

    print(help_of(command, HELP), end="")
    return 0


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
