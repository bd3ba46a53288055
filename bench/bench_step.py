"""Whole training steps: forward, loss, backward and update, against everybody who trains.

A size is (examples in the batch, units of the input, of the hidden layers, of the output). Hidden
layers have a ReLU, and dropout where a rate is named; the input has none.
"""

import functools
import itertools

import fastdrop

from .cases import SEED, Bar, Case, Contender
from .rivals import jax, keras, numpy_products, sklearn, thinc, torch
from .work.step import LEARNING_RATE, MOMENTUM, Work

__all__ = ["CASES"]

LARGE = (128, 784, 1024, 1024, 10)
WIDE = (128, 784, 2048, 2048, 10)
SMALL = (64, 64, 256, 256, 10)
KINDS = {"batchwise": "batch", "groups-of-32": 32, "per-sample": 1}
STEP_RATES = (0.0, 0.2, 0.5, 0.8, 0.9)
IMPLEMENTATIONS = ("foreach", "fused", "compiled")
TORCH = tuple(f"torch, {kind}" for kind in IMPLEMENTATIONS)
TORCH_PLAIN = tuple(f"torch without dropout, {kind}" for kind in IMPLEMENTATIONS)
OWN = {
    "batchwise": "fastdrop",
    "groups-of-32": "fastdrop, 32 rows",
    "per-sample": "fastdrop, per-sample",
}
PLAIN = "fastdrop, no dropout"
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
    options = {"momentum": MOMENTUM} if optimiser == "SGD" else {}
    make = getattr(fastdrop.optim, optimiser)
    return net, make(net, learning_rate=LEARNING_RATE, **options)


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


# --- Against everybody -------------------------------------------------------------------------


def _torch(work, optimiser, rate):
    """Return torch's contenders: eager with either optimiser, and compiled."""
    return [
        *(torch.training_step(work, optimiser, rate, kind) for kind in IMPLEMENTATIONS[:2]),
        torch.training_step(work, optimiser, rate, compiled=True),
    ]


def _against_torch(size, *, optimiser):
    work = Work(size)
    own = [_own(work, 0.5, KINDS[kind], optimiser, name) for kind, name in OWN.items()]
    return [
        *own,
        _own(work, None, 1, optimiser, PLAIN),
        *_torch(work, optimiser, 0.5),
        *_torch(work, optimiser, 0.0),
    ]


def _against_all(size, *, optimiser):
    work = Work(size)
    others = [
        jax.training_step(work, optimiser, 0.5),
        jax.training_step(work, optimiser, 0.0),
        keras.training_step(work, optimiser, 0.5),
        sklearn.training_step(work, optimiser),
    ]
    if optimiser == "Adam":
        others.append(thinc.training_step(work, 0.5))
    else:
        others.append(numpy_products.training_step(work, 0.5, gathered=False))
        others.append(numpy_products.training_step(work, 0.5, gathered=True))
    return [*_against_torch(size, optimiser=optimiser), *others]


def _bars(limits):
    """Return bars from (kind, threads, limit with dropout, limit without)."""
    for kind, threads, dropped, plain in limits:
        own = {"contender": OWN.get(kind, PLAIN), "threads": threads}
        if dropped is not None:
            yield Bar(TORCH, times_faster=dropped, **own)
        if plain is not None:
            yield Bar(TORCH_PLAIN, times_faster=plain, **own)


def _torch_cases():
    large = [
        ("batchwise", 2, 3.2, 2.0),
        ("groups-of-32", 2, 2.3, 1.5),
        ("per-sample", 2, 2.0, 1.25),
        ("none", None, None, 0.95),
    ]
    adam = [("batchwise", None, 3.0, None), ("per-sample", None, 1.8, None)]
    wide = [("batchwise", 1, 3.3, None), ("per-sample", 1, 1.7, None)]
    small = [("batchwise", None, 3.0, None), ("per-sample", None, 2.0, None)]
    for optimiser, size, limits, build, usual in (
        ("SGD", LARGE, large, _against_all, None),
        ("Adam", LARGE, adam, _against_all, (2,)),
        ("SGD", WIDE, wide, _against_torch, (1,)),
        ("SGD", SMALL, small, _against_torch, (1,)),
    ):
        yield Case(
            f"{optimiser}/0.5",
            size,
            functools.partial(build, optimiser=optimiser),
            calls=CALLS,
            bars=list(_bars(limits)),
            usual_threads=usual,
            extended=size == WIDE,
        )


# --- Rate by rate ------------------------------------------------------------------------------


def _by_rate(size, *, kind):
    work = Work(size)
    own = [_own(work, rate, KINDS[kind], name=f"fastdrop, rate {rate:g}") for rate in STEP_RATES]
    if kind != "batchwise":
        return own
    eager = [
        torch.training_step(work, "SGD", rate, name=f"torch, rate {rate:g}") for rate in STEP_RATES
    ]
    return [*own, *eager, sklearn.training_step(work, "SGD")]


def _rate_cases():
    for kind in KINDS:
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
            functools.partial(_by_rate, kind=kind),
            calls=CALLS,
            bars=bars,
            usual_threads=(2,),
        )


CASES = [*_torch_cases(), *_rate_cases()]
