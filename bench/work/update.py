"""Weights and gradients of an update, and how far a step of an optimiser goes."""

import numpy

from fastdrop.aligned import aligned_empty

from ..cases import SEED

__all__ = ["BETA1", "BETA2", "EPSILON", "MOMENTUM", "OPTIMISERS", "RATE", "arrays", "step"]

RATE, MOMENTUM, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.9, 0.999, 1e-8
# Class of the optimiser, in fastdrop as in torch.
OPTIMISERS = {"sgd-momentum": "SGD", "adam": "Adam"}


def arrays(size):
    """Return weights and a gradient, both at a line of the cache as those of fastdrop's layers."""
    generator = numpy.random.default_rng(SEED)
    made = [aligned_empty(size, numpy.float32) for _ in range(2)]
    for array in made:
        generator.standard_normal(size, dtype=numpy.float32, out=array)
    return made


def step(rule, gradient, moments, number):
    """How far step `number` goes, in float64."""
    if rule == "adam":
        first = BETA1 * moments[0] + (1 - BETA1) * gradient
        second = BETA2 * moments[1] + (1 - BETA2) * gradient**2
        second = second / (1 - BETA2**number)
        return RATE * first / (1 - BETA1**number) / (numpy.sqrt(second) + EPSILON)
    return RATE * (MOMENTUM * moments[0] + gradient)
