"""The command line: ``python -m fastdrop info`` and, in a source checkout, ``demo``."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from fastdrop._version import __version__
from fastdrop.config import show_config

NO_DEMO = """\
The demo is in fastdrop's source checkout and not in the installed package. From a checkout, run
    python -m pip install -e '.[demo]' && python -m fastdrop demo"""


def load_demo() -> ModuleType | None:
    """The package ``examples/demo``, which lies beside this one in a checkout; None without it."""
    folder = Path(__file__).parents[1] / "examples" / "demo"
    if not (folder / "training.py").exists():
        return None
    spec = importlib.util.spec_from_file_location(
        "fastdrop_demo", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package


def build_parser(demo: Any) -> argparse.ArgumentParser:
    """The parser of the command line, with one subcommand per job.

    Parameters
    ----------
    demo : module or None
        What `load_demo` returned; where it is None, the demo takes any arguments.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastdrop", description="Dropout for NumPy, in C."
    )
    parser.add_argument("--version", action="version", version=f"fastdrop {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="print what this installation can do and what it uses")
    demo_parser = commands.add_parser(
        "demo",
        help="train a small network on handwritten digits, with and without dropout",
        description=(
            "Train a small multilayer perceptron on the handwritten digits that scikit-learn "
            "ships, with and without dropout, and print one table. Ctrl-C ends it with the "
            "table so far."
        ),
    )
    if demo is not None:
        demo.add_arguments(demo_parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        Instead of ``sys.argv[1:]``.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows ASCII only gets escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:  # as it is where it was closed: `fastdrop info >&-`
                sys.stdout.flush()
    except KeyboardInterrupt:  # before or after the training
        return 130
    except BrokenPipeError:  # `fastdrop info | head -1`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of a process that SIGPIPE ended


def _run(arguments: Sequence[str] | None) -> int:
    demo = load_demo()
    parser = build_parser(demo)
    options, unknown = parser.parse_known_args(arguments)
    if options.command == "demo" and demo is None:
        print(NO_DEMO, file=sys.stderr)
        return 1
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command == "info":
        show_config()
        return 0
    assert demo is not None
    return int(demo.run_demo(options))


if __name__ == "__main__":
    sys.exit(main())
