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

__all__ = ["backend", "dropout", "gaussian_dropout", "training_step"]

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


@_needs_keras
def gaussian_dropout(x, rate):
    """The layer, in training."""
    keras, note, bound = _imported()
    layer = keras.layers.GaussianDropout(rate, seed=SEED)
    tensor = keras.ops.convert_to_tensor(x)

    def run():
        y = layer(tensor, training=True)
        return y.block_until_ready() if bound else y

    return Contender(
        "Keras",
        run,
        check=lambda y: verify.check_factors(keras.ops.convert_to_numpy(y), x, rate),
        calls="keras.layers.GaussianDropout.call",
        note=note,
        bound=bound,
    )


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
