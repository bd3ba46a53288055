"""The demo: ``python -m fastdrop demo``, in a source checkout only; no wheel contains it.

``training`` compares kinds of dropout, ``uncertainty`` shows the uncertainty of an estimator.
"""

from .training import add_arguments, run_demo

__all__ = ["add_arguments", "run_demo"]
