"""Outside batteries of statistical tests on the mask stream, and on a weakened copy of it.

``python -m bench.studies.randomness --help`` explains the command;
docs/study/randomness.md holds its results.
"""
