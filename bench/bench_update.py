"""Updates of weights: the active part of a matrix, against NumPy's update of all of it.

A size is (units in, units out). A work names the rule and the rate at which units are dropped on
both sides; the gradient of what is left is compact, as layers hand it over. The rivals know no
masks: they update everything, which is what a framework without masks does.
"""

import functools
import math

import numpy

import fastdrop
from fastdrop import optim
from fastdrop.aligned import aligned_empty, aligned_zeros
from fastdrop.parameters import Parameter

from . import verify
from .cases import SEED, Bar, Case, Contender, needs

__all__ = ["CASES"]

SIZE = (1024, 1024)
RATE, MOMENTUM, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.9, 0.999, 1e-8
NUMPY = "NumPy, in place"


def _weights_and_gradient(size):
    """Everybody's arrays begin at a line of the cache, as those of fastdrop's layers do."""
    generator = numpy.random.default_rng(SEED)
    arrays = [aligned_empty(size, numpy.float32) for _ in range(2)]
    for array in arrays:
        generator.standard_normal(size, dtype=numpy.float32, out=array)
    return arrays


# --- fastdrop ----------------------------------------------------------------------------------


def _own(size, rule, rate):
    """Return fastdrop's contender: one step of the optimiser."""
    w, gradient = _weights_and_gradient(size)
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
        step = _step(rule, gradient[index].astype(float), moments, opt.steps)
        expected[index] -= step.astype(numpy.float32)
        close = numpy.allclose(w, expected, rtol=1e-5, atol=1e-6)
        verify.require(close, "the weights did not make the step")
        dropped = numpy.ones(size, bool)
        dropped[index] = False
        untouched = numpy.array_equal(w[dropped], before[dropped])
        verify.require(untouched, "what was dropped has moved")

    return Contender("fastdrop", run, check, f"fastdrop.optim.{OPTIMISERS[rule]}.step")


def _step(rule, gradient, moments, number):
    """How far step `number` goes, in float64."""
    if rule == "adam":
        first = BETA1 * moments[0] + (1 - BETA1) * gradient
        second = BETA2 * moments[1] + (1 - BETA2) * gradient**2
        second = second / (1 - BETA2**number)
        return RATE * first / (1 - BETA1**number) / (numpy.sqrt(second) + EPSILON)
    return RATE * (MOMENTUM * moments[0] + gradient)


# --- Rivals ------------------------------------------------------------------------------------


def _numpy(size, rule):
    """Every operation writes to an array that is there, one pass through memory each."""
    w, g = _weights_and_gradient(size)
    u, v, some = (aligned_zeros(size, numpy.float32) for _ in range(3))
    steps = 0

    def sgd():
        numpy.multiply(u, MOMENTUM, out=u)
        numpy.add(u, g, out=u)
        numpy.multiply(u, RATE, out=some)

    def adam():
        numpy.multiply(u, BETA1, out=u)
        numpy.multiply(g, 1 - BETA1, out=some)
        numpy.add(u, some, out=u)
        numpy.multiply(v, BETA2, out=v)
        numpy.multiply(g, g, out=some)
        numpy.multiply(some, 1 - BETA2, out=some)
        numpy.add(v, some, out=v)
        numpy.sqrt(v, out=some)
        numpy.multiply(some, 1 / math.sqrt(1 - BETA2**steps), out=some)
        numpy.add(some, EPSILON, out=some)
        numpy.divide(u, some, out=some)
        numpy.multiply(some, RATE / (1 - BETA1**steps), out=some)

    update = adam if rule == "adam" else sgd

    def run():
        nonlocal steps
        steps += 1
        update()
        return numpy.subtract(w, some, out=w)

    def check(result):
        verify.require(numpy.array_equal(result, w), "the result is not the weights")
        before, moments, number = w.copy(), [u.astype(float), v.astype(float)], steps + 1
        run()
        expected = before - _step(rule, g.astype(float), moments, number)
        close = numpy.allclose(w, expected, rtol=1e-5, atol=1e-6)
        verify.require(close, "the weights did not make the step")

    return Contender(NUMPY, run, check, "numpy.subtract", note="everything is updated; one thread")


@needs("torch", "torch, fused")
def _torch(size, rule):
    import torch

    w, g = (torch.from_numpy(array) for array in _weights_and_gradient(size))
    w.requires_grad_(True)
    w.grad = g
    if rule == "adam":
        opt = torch.optim.Adam([w], RATE, (BETA1, BETA2), EPSILON, fused=True)
    else:
        opt = torch.optim.SGD([w], RATE, momentum=MOMENTUM, fused=True)
    steps = 0

    def run():
        nonlocal steps
        steps += 1
        opt.step()
        return w.detach()

    def check(result):
        now = w.detach().numpy()
        verify.require(numpy.array_equal(result.numpy(), now), "the result is not the weights")
        before = now.copy()
        state = opt.state[w]
        names = ("exp_avg", "exp_avg_sq") if rule == "adam" else ("momentum_buffer",)
        moments = [state[name].numpy().astype(float) for name in names]
        run()
        expected = before - _step(rule, g.numpy().astype(float), moments, steps)
        close = numpy.allclose(now, expected, rtol=1e-5, atol=1e-6)
        verify.require(close, "the weights did not make the step")

    calls = f"torch.optim.{OPTIMISERS[rule]}.step"
    return Contender("torch, fused", run, check, calls, note="everything is updated")


# --- Cases -------------------------------------------------------------------------------------

OPTIMISERS = {"sgd-momentum": "SGD", "adam": "Adam"}
BARS = {"sgd-momentum": 4, "adam": 8}


def _contenders(size, *, rule, rate):
    return [_own(size, rule, rate), _numpy(size, rule), _torch(size, rule)]


CASES = [
    Case(
        f"{rule}/{rate:g}",
        SIZE,
        functools.partial(_contenders, rule=rule, rate=rate),
        calls=f"fastdrop.optim.{name}.step",
        bars=[Bar(NUMPY, times_faster=BARS[rule])] if rate == 0.5 else [],
    )
    for rule, name in OPTIMISERS.items()
    for rate in (0.5, 0.8, 0.0)
]
