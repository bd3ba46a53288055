"""Whole training steps: forward, loss, backward and update, against torch and against rate 0.

A size is (examples in the batch, units of the input, of the hidden layers, of the output). Hidden
layers have a ReLU, and dropout where a rate is named; the input has none.
"""

import functools
import itertools
import tracemalloc

import fastdrop

from . import step_rivals as rivals
from . import verify
from .cases import SEED, Bar, Case, Contender

__all__ = ["CASES"]

LARGE = (128, 784, 1024, 1024, 10)
WIDE = (128, 784, 2048, 2048, 10)
SMALL = (64, 64, 256, 256, 10)
KINDS = {"batchwise": "batch", "groups-of-32": 32, "per-sample": 1}
STEP_RATES = (0.0, 0.2, 0.5, 0.8)
IMPLEMENTATIONS = ("foreach", "fused")
TORCH = tuple(f"torch, {kind}" for kind in IMPLEMENTATIONS)
TORCH_PLAIN = tuple(f"torch without dropout, {kind}" for kind in IMPLEMENTATIONS)
CALLS = "fastdrop.nn.Sequential.backward"


def _network(units, rate, rows_per_mask, optimiser):
    """Return a network and its optimiser; rate None leaves the dropout layers out."""
    nn = fastdrop.nn
    layers = []
    for units_in, units_out in itertools.pairwise(units[:-1]):
        layers += [nn.Dense(units_in, units_out), nn.ReLU()]
        if rate is not None:
            layers.append(nn.Dropout(rate, rows_per_mask=rows_per_mask))
    net = nn.Sequential([*layers, nn.Dense(*units[-2:])], rng=SEED)
    options = {"momentum": rivals.MOMENTUM} if optimiser == "SGD" else {}
    make = getattr(fastdrop.optim, optimiser)
    return net, make(net, learning_rate=rivals.LEARNING_RATE, **options)


def _own(work, rate, rows_per_mask, optimiser="SGD", name="fastdrop"):
    """Return fastdrop's contender for a step."""
    net, opt = _network(work.units, rate, rows_per_mask, optimiser)
    loss = fastdrop.nn.SoftmaxCrossEntropy()
    x, labels = work.x, work.labels

    def run():
        value, grad = loss(net.forward(x, training=True), labels)
        net.backward(grad)
        opt.step()
        return value

    def check(value):
        work.check_value(value)
        work.check_network(net, opt)

    return Contender(name, run, check, calls=CALLS)


# --- Against torch -----------------------------------------------------------------------------


def _against_torch(size, *, kind, rate, optimiser):
    work = rivals.Work(size)
    own = _own(work, rate or None, KINDS.get(kind, 1), optimiser)
    rates = [0.0] if rate == 0 else [rate, 0.0]
    torch = [
        rivals.torch_step(work, optimiser, one, implementation)
        for one in rates
        for implementation in IMPLEMENTATIONS
    ]
    return [own, *torch]


def _torch_cases():
    limits = [
        # optimiser, kind, size, threads, bar with dropout, bar without any
        ("SGD", "batchwise", LARGE, 2, 3.0, 2.0),
        ("SGD", "groups-of-32", LARGE, 2, 2.3, 1.6),
        ("SGD", "per-sample", LARGE, 2, 1.8, 1.15),
        ("Adam", "batchwise", LARGE, None, 3.0, None),
        ("Adam", "per-sample", LARGE, None, 1.8, None),
        ("SGD", "batchwise", WIDE, 1, 3.3, None),
        ("SGD", "per-sample", WIDE, 1, 1.7, None),
        ("SGD", "batchwise", SMALL, None, 3.0, None),
        ("SGD", "per-sample", SMALL, None, 2.0, None),
    ]
    for optimiser, kind, size, threads, dropped, plain in limits:
        bars = [Bar(TORCH, times_faster=dropped, threads=threads)]
        if plain is not None:
            bars.append(Bar(TORCH_PLAIN, times_faster=plain, threads=threads))
        yield Case(
            f"{optimiser}/{kind}/0.5",
            size,
            functools.partial(_against_torch, kind=kind, rate=0.5, optimiser=optimiser),
            calls=CALLS,
            bars=bars,
        )
    for size in (LARGE, SMALL):
        yield Case(
            "SGD/none/0",
            size,
            functools.partial(_against_torch, kind="none", rate=0, optimiser="SGD"),
            calls=CALLS,
            bars=[Bar(TORCH_PLAIN, at_most=1.05)],
        )


# --- Against its own step at other rates -------------------------------------------------------


def _rates(size, *, kind):
    work = rivals.Work(size)
    return [_own(work, rate, KINDS[kind], name=f"fastdrop, rate {rate:g}") for rate in STEP_RATES]


def _rate_cases():
    for kind in ("batchwise", "per-sample"):
        bars = [
            # A higher rate is never slower.
            Bar(f"fastdrop, rate {lower:g}", at_most=1, contender=f"fastdrop, rate {higher:g}")
            for lower, higher in itertools.pairwise(STEP_RATES)
        ]
        if kind == "batchwise":
            bars.append(Bar("fastdrop, rate 0", times_faster=2.2, contender="fastdrop, rate 0.5"))
        yield Case(
            f"rates/{kind}",
            LARGE,
            functools.partial(_rates, kind=kind),
            calls=CALLS,
            bars=bars,
        )


# --- Memory of a later step --------------------------------------------------------------------


def _later_step(size, *, kind):
    work = rivals.Work(size)
    net, opt = _network(work.units, 0.5, KINDS[kind], "SGD")
    loss = fastdrop.nn.SoftmaxCrossEntropy()

    def step():
        _, grad = loss(net.forward(work.x, training=True), work.labels)
        return grad

    for _ in range(3):
        net.backward(step())
        opt.step()

    def run():
        tracemalloc.start()
        try:
            net.backward(step())
            opt.step()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def check(value):
        # What is returned is seen: the output and the gradient of the loss.
        least = 2 * work.batch * work.units[-1] * 4
        verify.require(value >= least, f"{value} bytes are less than what is returned")

    return [Contender("fastdrop", run, check, calls=CALLS)]


def _memory_cases():
    for kind in KINDS:
        # Below one array of activations: no array of weights, none of activations either.
        yield Case(
            f"later-step-memory/{kind}",
            LARGE,
            functools.partial(_later_step, kind=kind),
            calls=CALLS,
            bars=[Bar(at_most=LARGE[0] * LARGE[2] * 4, isa=None)],
            unit="bytes",
        )


CASES = [*_torch_cases(), *_rate_cases(), *_memory_cases()]
