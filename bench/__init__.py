"""Benchmarks of fastdrop against its rivals: ``python -m bench``.

A family of benchmarks is one module ``bench_<family>.py`` with a list ``CASES`` of `cases.Case`.
Every case brings its contenders, how to tell that each one's result is right, and the bars it
has to meet; `harness` times, `report` prints. Adding a family is adding that one file.
"""
