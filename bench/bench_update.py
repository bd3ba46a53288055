"""Updates of weights: the active part of a matrix, against NumPy's update of all of it.

A size is (units in, units out). A work names the rule and the rate at which units are dropped on
both sides; the gradient of what is left is compact, as layers hand it over. The rivals know no
masks: they update everything, which is what a framework without masks does.
"""

import functools

import numpy

import fastdrop
from fastdrop import optim
from fastdrop.parameters import Parameter

from . import verify
from .cases import SEED, Bar, Case, Contender
from .rivals import numpy as plain
from .rivals import torch
from .work.update import BETA1, BETA2, EPSILON, MOMENTUM, OPTIMISERS, RATE, arrays, step

__all__ = ["CASES"]

SIZE = (1024, 1024)
NUMPY = "NumPy, in place"


# --- fastdrop ----------------------------------------------------------------------------------


def _own(size, rule, rate):
    """Return fastdrop's contender: one step of the optimiser."""
    w, gradient = arrays(size)
    weight = Parameter("weight", w)
    active = [numpy.arange(n) for n in size]
    if rate:
        stream = fastdrop.MaskStream(SEED)
        masks = [stream.draw((n,), rate=rate, exact_count=True) for n in size]
        weight.rows, weight.columns = ((mask.bits, 0) for mask in masks)
        active = [mask.indices() for mask in masks]
        weight.compact = True
    index = numpy.ix_(*active)
    weight.grad = gradient[index].copy()
    if rule == "adam":
        opt = optim.Adam([weight], RATE, BETA1, BETA2, EPSILON)
    else:
        opt = optim.SGD([weight], RATE, momentum=MOMENTUM)

    def run():
        opt.step()
        return w

    def check(result):
        """The step that follows is the one that the formulas make of what is there now."""
        verify.require(numpy.array_equal(result, w), "the result is not the weights")
        before, memory = w.copy(), opt.state_dict()
        run()
        moments = [array[index] for array in memory.values() if numpy.shape(array) == size]
        expected = before.copy()
        change = step(rule, gradient[index].astype(float), moments, opt.steps)
        expected[index] -= change.astype(numpy.float32)
        close = numpy.allclose(w, expected, rtol=1e-5, atol=1e-6)
        verify.require(close, "the weights did not make the step")
        dropped = numpy.ones(size, bool)
        dropped[index] = False
        untouched = numpy.array_equal(w[dropped], before[dropped])
        verify.require(untouched, "what was dropped has moved")

    return Contender("fastdrop", run, check, f"fastdrop.optim.{OPTIMISERS[rule]}.step")


# --- Cases -------------------------------------------------------------------------------------

BARS = {"sgd-momentum": 4, "adam": 8}


def _contenders(size, *, rule, rate):
    return [_own(size, rule, rate), plain.update(size, rule), torch.update(size, rule)]


CASES = [
    Case(
        f"{rule}/{rate:g}",
        SIZE,
        functools.partial(_contenders, rule=rule, rate=rate),
        calls=f"fastdrop.optim.{name}.step",
        bars=[Bar(NUMPY, times_faster=BARS[rule])] if rate == 0.5 else [],
        usual_threads=(1,),
    )
    for rule, name in OPTIMISERS.items()
    for rate in (0.5, 0.8, 0.0)
]
