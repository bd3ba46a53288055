"""Small data and models for the tests of the estimators."""

import numpy

from fastdrop import MLPClassifier, MLPRegressor, nn


def data(n=120, outputs=1, dtype=numpy.float64):
    rng = numpy.random.default_rng(2)
    x = rng.standard_normal((n, 5))
    y = x @ rng.standard_normal((5, outputs)) + 0.1 * rng.standard_normal((n, outputs))
    return x.astype(dtype), y[:, 0] if outputs == 1 else y


def regressor(**options):
    options = {"hidden_layer_sizes": (24, 16), "random_state": 0, "max_iter": 8} | options
    return MLPRegressor(**options)


def classifier(**options):
    options = {"hidden_layer_sizes": (24, 16), "random_state": 0, "max_iter": 8} | options
    return MLPClassifier(**options)


def dropouts(model):
    return [layer for layer in model._network.layers if isinstance(layer, nn.Dropout)]
