"""Keras on the fastest of its backends that is installed: its dropout, and a training step.

A process has one backend, chosen before Keras is imported; ``KERAS_BACKEND`` chooses another.
"""

import functools
import importlib.util
import os

import numpy

from .. import verify
from ..cases import SEED, Contender, Skipped, needs
from ..work.step import LEARNING_RATE, MOMENTUM

__all__ = [
    "alpha_dropout",
    "backend",
    "dropout",
    "gaussian_dropout",
    "spatial_dropout",
    "training_step",
]

BACKENDS = ("jax", "torch")


def backend():
    """Return the name of the fastest backend that is installed."""
    return next((name for name in BACKENDS if importlib.util.find_spec(name)), "numpy")


def _needs_keras(make):
    """Decorate as `needs` does, and choose the backend before Keras is imported."""

    @functools.wraps(make)
    def chosen(*arguments):
        os.environ.setdefault("KERAS_BACKEND", backend())
        return needs("keras", "Keras")(make)(*arguments)

    return chosen


def _imported():
    """Return Keras; the words for its backend; and whether that has to be bound to processors."""
    import keras

    used = keras.backend.backend()
    return keras, f"on the backend {used}", used == "jax"


@_needs_keras
def dropout(x, rate):
    """The function that Keras' layer calls."""
    keras, note, bound = _imported()
    seed = keras.random.SeedGenerator(SEED)
    tensor = keras.ops.convert_to_tensor(x)

    def run():
        y = keras.random.dropout(tensor, rate, seed=seed)
        return y.block_until_ready() if bound else y

    return Contender(
        "Keras",
        run,
        check=lambda y: verify.check_rival(keras.ops.convert_to_numpy(y), x, 1 - rate),
        calls="keras.random.dropout",
        note=note,
        bound=bound,
    )


def _layer(kind, x, check, *arguments, **options):
    """A layer of Keras, in training."""
    keras, note, bound = _imported()
    layer = getattr(keras.layers, kind)(*arguments, seed=SEED, **options)
    tensor = keras.ops.convert_to_tensor(x)

    def run():
        y = layer(tensor, training=True)
        return y.block_until_ready() if bound else y

    return Contender(
        "Keras",
        run,
        check=lambda y: check(keras.ops.convert_to_numpy(y)),
        calls=f"keras.layers.{kind}.call",
        note=note,
        bound=bound,
    )


@_needs_keras
def gaussian_dropout(x, rate):
    """The layer, in training."""
    return _layer("GaussianDropout", x, lambda y: verify.check_factors(y, x, rate), rate)


@_needs_keras
def alpha_dropout(x, rate):
    """The layer, in training."""
    limit = 8 / x.size**0.5

    def check(y):
        verify.require(abs(y.mean() - x.mean()) < limit, "the mean has changed")
        verify.require(abs(y.var() - x.var()) < 2 * limit, "the variance has changed")

    return _layer("AlphaDropout", x, check, rate)


@_needs_keras
def spatial_dropout(x, rate, data_format):
    """The layer of whole channels of images, in training."""
    axes = (2, 3) if data_format == "channels_first" else (1, 2)

    def check(y):
        dropped = (y == 0).all(axis=axes)
        limit = 6 * (rate * (1 - rate) / dropped.size) ** 0.5
        verify.require(abs(dropped.mean() - rate) < limit, "another share is dropped")
        verify.require(((y != 0).any(axis=axes) != dropped).all(), "channels are not whole")

    return _layer("SpatialDropout2D", x, check, rate, data_format=data_format)


@_needs_keras
def training_step(work, optimiser, rate):
    """`train_on_batch` of a model of Dense and Dropout layers."""
    keras, note, bound = _imported()
    if keras.backend.backend() == "numpy":
        return Skipped("Keras", "its NumPy backend does not train")
    layers = [keras.Input((work.units[0],))]
    for units in work.units[1:-1]:
        layers += [keras.layers.Dense(units, activation="relu"), keras.layers.Dropout(rate)]
    model = keras.Sequential([*layers, keras.layers.Dense(work.units[-1])])
    options = {"momentum": MOMENTUM} if optimiser == "SGD" else {}
    model.compile(
        getattr(keras.optimizers, optimiser)(LEARNING_RATE, **options),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def run():
        return float(numpy.ravel(model.train_on_batch(work.x, work.labels))[0])

    calls = "keras.Sequential.train_on_batch"
    return Contender("Keras", run, work.check_value, calls, note=note, bound=bound)
