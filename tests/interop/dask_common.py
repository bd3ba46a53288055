"""Data and estimators of the tests of fastdrop.dask."""

import dask.array as da
import numpy

import fastdrop

RNG = numpy.random.default_rng(0)
ROWS = 600
X = RNG.standard_normal((ROWS, 6)).astype(numpy.float32)
LABELS = numpy.where(X[:, 0] > X[:, 1], "left", "right")
VALUES = numpy.stack([X[:, 0] * X[:, 1], X[:, 2]], axis=1)
LAZY = da.from_array(X, chunks=(250, 6))


def classifier(**options):
    options = {"hidden_layer_sizes": (16,), "dropout": 0.2, "random_state": 0, **options}
    return fastdrop.MLPClassifier(**options)


def regressor(**options):
    options = {"hidden_layer_sizes": (16,), "dropout": 0.2, "random_state": 0, **options}
    return fastdrop.MLPRegressor(**options)
