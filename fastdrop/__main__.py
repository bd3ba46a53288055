"""The command line: ``python -m fastdrop info`` and ``python -m fastdrop demo``."""

import argparse
import sys

from fastdrop import demo
from fastdrop._version import __version__
from fastdrop.config import show_config


def build_parser():
    """The parser of the command line, with one subcommand per job."""
    parser = argparse.ArgumentParser(
        prog="python -m fastdrop", description="Dropout for NumPy, in C."
    )
    parser.add_argument("--version", action="version", version=f"fastdrop {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="print what this installation can do and what it uses")
    demo.add_arguments(
        commands.add_parser(
            "demo",
            help="train a small network on handwritten digits, with and without dropout",
            description=(
                "Train a small multilayer perceptron on the handwritten digits that scikit-learn "
                "ships, with and without dropout, and print one table. Ctrl-C ends it with the "
                "table so far."
            ),
        )
    )
    return parser


def main(arguments=None):
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        Instead of ``sys.argv[1:]``.
    """
    options = build_parser().parse_args(arguments)
    try:
        if options.command == "info":
            show_config()
            return 0
        return demo.run_demo(options)
    except KeyboardInterrupt:  # before or after the training
        return 130


if __name__ == "__main__":
    sys.exit(main())
