"""Parameters and gradients for the tests of the optimisers."""

import numpy
from conftest import values

from fastdrop.optim import SGD, Adam, AdamW, RMSprop
from fastdrop.parameters import Parameter

RATE = 0.05
DTYPES = (numpy.float32, numpy.float64)
MAKERS = {
    "SGD": lambda params, **more: SGD(params, RATE, **more),
    "momentum": lambda params, **more: SGD(params, RATE, momentum=0.9, **more),
    "nesterov": lambda params, **more: SGD(params, RATE, 0.9, nesterov=True, **more),
    "Adam": lambda params, **more: Adam(params, RATE, **more),
    "AdamW": lambda params, **more: AdamW(params, RATE, **{"weight_decay": 0.1} | more),
    "RMSprop": lambda params, **more: RMSprop(params, RATE, **more),
    "RMSprop, momentum": lambda params, **more: RMSprop(params, RATE, momentum=0.8, **more),
}


OPTIONS = {
    "SGD": (SGD, {}),
    "decay": (SGD, {"weight_decay": 0.1}),
    "momentum": (SGD, {"momentum": 0.9}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "dampening": (SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    "up": (SGD, {"momentum": 0.9, "maximize": True, "weight_decay": 0.1}),
    "Adam": (Adam, {}),
    "Adam up": (Adam, {"maximize": True, "weight_decay": 0.1}),
    "amsgrad": (Adam, {"amsgrad": True, "beta2": 0.6}),
    "AdamW amsgrad": (AdamW, {"amsgrad": True, "beta2": 0.6, "weight_decay": 0.1}),
    "RMSprop": (RMSprop, {"weight_decay": 0.1}),
    "RMSprop up": (RMSprop, {"momentum": 0.8, "maximize": True, "weight_decay": 0.1}),
    "AdamW up": (AdamW, {"maximize": True, "weight_decay": 0.1}),
}


def make(kind, params, **more):
    cls, options = OPTIONS[kind]
    return cls(params, RATE, **options, **more)


def packed(kept, offset=0):
    bits = numpy.concatenate([numpy.ones(offset, bool), kept])
    return numpy.packbits(bits, bitorder="little"), offset


def parameters(dtype=numpy.float64, seed=0, shape=(7, 5)):
    return [
        Parameter("dense0.weight", values(shape, dtype, seed)),
        Parameter("dense0.bias", values(shape[1], dtype, seed + 1)),
    ]


def give_gradients(params, step, rows=None, columns=None, compact=False):
    """Gradients that depend on the step alone; NaN where a unit is not active."""
    for number, parameter in enumerate(params):
        shape = parameter.value.shape
        grad = values(shape, parameter.value.dtype, 100 + 2 * step + number)
        parameter.rows = None if rows is None else packed(rows, 3)
        parameter.columns = None if columns is None else packed(columns, 5)
        kept = [numpy.ones(n, bool) for n in shape]
        if grad.ndim == 1:
            parameter.rows = None
        elif rows is not None:
            kept[0] = rows
        if columns is not None:
            kept[-1] = columns
        active = numpy.ix_(*kept)
        parameter.compact = compact
        parameter.grad = numpy.full(shape, numpy.nan, parameter.value.dtype)
        parameter.grad[active] = grad[active]
        if compact:
            parameter.grad = parameter.grad[active]
