"""One training run of the study: its settings and the network.

A run is made of epochs that are asked for one by one, so that several runs can be timed in turn.
It gets training examples and nothing else; what it is measured on is its caller's business.
"""

import dataclasses
import itertools

import numpy

from fastdrop import nn, optim

__all__ = ["ARMS", "MOMENTUM", "Batches", "FastdropRun", "Settings", "build"]

MOMENTUM = 0.9
# Rows per mask, exact count; "none" has no dropout at all.
ARMS = {
    "none": None,
    "per-sample": (1, False),
    **{f"{rows} rows": (rows, False) for rows in (4, 8, 16, 32, 64)},
    "batchwise": ("batch", False),
    "exact count": ("batch", True),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes, but for the examples.

    Parameters
    ----------
    arm : str
        One of `ARMS`.
    hidden : tuple of int
        Units of each hidden layer.
    learning_rate : float
        The first one; it falls linearly to 0, which it would reach one step after the last.
    epochs : int
    max_norm : float or None
        Bound on the norm of each unit's incoming weights.
    rate, input_rate : float
        Dropout rates of the hidden layers and of the input; of no account where the arm is "none".
    seed : int
        Of the initial weights, the order of the examples and the masks. The first two are the same
        for every arm.
    batch : int
        Examples per step; all of them, if there are fewer. What is left of an epoch is left out.
    library : str
        Whose network: "fastdrop", "torch" or "sklearn".
    """

    arm: str
    hidden: tuple[int, ...]
    learning_rate: float
    epochs: int
    max_norm: float | None = None
    rate: float = 0.5
    input_rate: float = 0.2
    seed: int = 0
    batch: int = 128
    library: str = "fastdrop"

    def __post_init__(self):
        if self.arm not in ARMS:
            raise ValueError(f"arm must be one of {', '.join(ARMS)}, got {self.arm!r}")
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"epochs and batch must be positive, got {self.epochs}, {self.batch}")

    def at_arm(self, arm, **changes) -> "Settings":
        """Return these settings for another arm."""
        return dataclasses.replace(self, arm=arm, **changes)


class FastdropRun:
    """A network of fastdrop's in training.

    Parameters
    ----------
    settings : Settings
    training : Examples

    Examples
    --------
    >>> import numpy
    >>> from bench.studies.generalisation.data import Examples
    >>> from bench.studies.generalisation.training import FastdropRun, Settings
    >>> points = numpy.random.default_rng(0).standard_normal((64, 5), dtype=numpy.float32)
    >>> examples = Examples(points, (points.sum(axis=1) > 0).astype(int))
    >>> run = FastdropRun(Settings("32 rows", (16,), 0.1, epochs=3), examples)
    >>> run.epoch()
    >>> run.scores(points).shape
    (64, 2)
    """

    def __init__(self, settings, training):
        self.settings, self.training = settings, training
        self._batches = Batches(settings, training)
        self.network = build(settings, training)
        steps = self._batches.steps
        self._optimiser = optim.SGD(
            self.network,
            lambda step: settings.learning_rate * max(0.0, 1 - step / steps),
            momentum=MOMENTUM,
            max_norm=settings.max_norm,
        )
        self._loss = nn.SoftmaxCrossEntropy()

    def epoch(self):
        """Train for one epoch; FloatingPointError if the loss is not finite any more."""
        for images, labels in self._batches.epoch():
            _, gradient = self._loss(self.network.forward(images, training=True), labels)
            self.network.backward(gradient)
            self._optimiser.step()

    def scores(self, images):
        """Return the scores before the softmax, shape (examples, classes)."""
        return self.network.forward(images)


class Batches:
    """The training examples in an order that depends on the seed alone."""

    def __init__(self, settings, training):
        self._training = training
        self._size = min(settings.batch, len(training))
        self._random = numpy.random.default_rng(settings.seed)
        self._per_epoch = len(training) // self._size
        self.steps = self._per_epoch * settings.epochs

    def epoch(self):
        order = self._random.permutation(len(self._training))
        for number in range(self._per_epoch):
            chosen = order[number * self._size : (number + 1) * self._size]
            yield self._training.images[chosen], self._training.labels[chosen]


def build(settings, training):
    """Return the network: dropout of the input, then Dense - ReLU - dropout, and a last Dense.

    Parameters
    ----------
    settings : Settings
    training : Examples
        For the numbers of inputs and of classes.

    Returns
    -------
    nn.Sequential
        Its initial weights depend on the seed and the sizes, not on the arm.
    """

    def dropout(rate):
        if ARMS[settings.arm] is None or rate == 0:
            return []
        rows_per_mask, exact_count = ARMS[settings.arm]
        return [nn.Dropout(rate, rows_per_mask=rows_per_mask, exact_count=exact_count)]

    layers = dropout(settings.input_rate)
    sizes = (training.images.shape[1], *settings.hidden)
    for units_in, units_out in itertools.pairwise(sizes):
        layers += [nn.Dense(units_in, units_out), nn.ReLU(), *dropout(settings.rate)]
    classes = int(training.labels.max()) + 1
    return nn.Sequential([*layers, nn.Dense(sizes[-1], classes)], rng=settings.seed)
