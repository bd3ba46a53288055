"""Everybody whom fastdrop is timed against, one module per library.

A rival's function makes the data and returns a `cases.Contender`, or `cases.Skipped` where the
library is not installed: it is imported inside `cases.needs` only. Every contender checks its own
result before it is timed.
"""
