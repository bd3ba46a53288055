"""Examples for fits and Monte Carlo passes, and how to tell that their results are right."""

import functools
import warnings

import numpy

import fastdrop

from .. import verify
from ..cases import SEED, Contender

__all__ = ["PASSES", "RATE", "SAMPLES", "Work", "check_moments", "dense_pass", "fit", "streams"]

# Of the 1000 passes that the bar is about: everybody's time is linear in them, and what fastdrop
# computes once weighs more among fewer.
PASSES = 20
RATE = 0.5
# Samples of which mean and deviation of a prediction are made.
SAMPLES = 100
# An epoch of so few steps learns something only from so many examples.
ENOUGH = 1000


class Work:
    """Examples for an estimator, and the sizes of its layers.

    Parameters
    ----------
    size : tuple of int
        Examples, features, units of the hidden layers, classes.
    dense : bool
        Whether to leave no zeros in the examples.
    """

    def __init__(self, size, dense=False):
        self.examples, features, *hidden, self.classes = size
        self.hidden = tuple(hidden)
        digits = _digits() if features == 784 else None
        self.data = "made-up examples" if digits is None else "MNIST's digits"
        self.x, self.labels = digits or _made_up(self.examples, features, self.classes)
        self.x, self.labels = self.x[: self.examples], self.labels[: self.examples]
        if dense:
            self.x = self.x - numpy.float32(0.1307)
        self.options = {
            "hidden_layer_sizes": self.hidden,
            "random_state": SEED,
            "tol": 0.0,
            "n_iter_no_change": 1000,
        }

    @functools.cached_property
    def trained(self):
        """A fitted classifier with dropout."""
        model = fastdrop.MLPClassifier(**self.options, dropout=RATE, max_iter=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the epochs are few
            return model.fit(self.x, self.labels)

    @functools.cached_property
    def regressor(self):
        """A fitted regressor with dropout, of as many values as there are classes."""
        model = fastdrop.MLPRegressor(**self.options, dropout=RATE, max_iter=2)
        enough = numpy.resize(self.x, (ENOUGH, self.x.shape[1]))
        target = numpy.resize(enough, (ENOUGH, self.classes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the epochs are few
            return model.fit(enough, target.squeeze())

    def check_fit(self, model, epochs, curve):
        """Require that a fit did its epochs, and learnt something."""
        whole = len(curve) == epochs and numpy.isfinite(curve).all()
        verify.require(whole, f"{curve} is not the loss of {epochs} epochs")
        verify.require(curve[-1] < 2.5, f"the loss is {curve[-1]} in the end")
        verify.require(numpy.array_equal(curve, model.loss_curve_), "another loss than the model's")
        if self.examples >= ENOUGH:
            accuracy = model.score(self.x, self.labels)
            verify.require(accuracy > 0.8, f"the accuracy is {accuracy:.3f}")

    def check_samples(self, samples):
        """Require probabilities for each pass and example, which differ between the passes."""
        shape = (PASSES, self.examples, self.classes)
        right = samples.shape == shape
        verify.require(right, f"the samples have shape {samples.shape}, not {shape}")
        sums = samples.sum(axis=2)
        verify.require(numpy.allclose(sums, 1, atol=1e-4), "probabilities do not add up to 1")
        different = samples.std(axis=0).max() > 0
        verify.require(different, "all samples are the same: nothing was dropped")


def streams(work):
    """The mask streams of samples with this seed."""
    words = numpy.random.RandomState(SEED).randint(0, 2**32, 4, dtype=numpy.uint32)
    return fastdrop.MaskStream([int(word) for word in words]).spawn(len(work.hidden))


def dense_pass(work, model, streams, number):
    """Raw scores of one pass, in float64, with nothing left out but by multiplying by zero."""
    x = work.x.astype(float)
    *hidden, last = zip(model.coefs_, model.intercepts_, strict=True)
    for (weight, bias), stream in zip(hidden, streams, strict=True):
        x = numpy.maximum(x @ weight + bias, 0)
        mask = stream.draw(x.shape, rate=RATE, rows_per_mask="batch", at=number)
        x = x * mask.to_array(dtype=float) * mask.scale
    return x @ last[0] + last[1]


def check_moments(work, moments):
    mean, std = moments
    shape = (work.examples, work.classes)
    verify.require(mean.shape == std.shape == shape, f"{mean.shape} is not {shape}")
    model = work.regressor
    passes = numpy.stack(
        [dense_pass(work, model, streams(work), number) for number in range(SAMPLES)]
    )
    # Other masks, the same distribution: apart by some errors of a mean.
    apart = abs(mean - passes.mean(axis=0)) / (passes.std(axis=0) / SAMPLES**0.5 + 1e-6)
    verify.require(apart.max() < 10, "the mean is not that of samples with units dropped")


def _digits():
    from ..studies.generalisation.data import load_digits

    try:
        digits = load_digits()
    except ModuleNotFoundError:
        return None
    return digits.training.images, digits.training.labels


def _made_up(examples, features, classes):
    """Noisy patterns, one for each class; a fifth of a pattern is not zero."""
    generator = numpy.random.default_rng(SEED)
    patterns = generator.random((classes, features)) * (generator.random((classes, features)) < 0.2)
    labels = numpy.arange(examples) % classes
    noise = 1 + 0.3 * generator.standard_normal((examples, features))
    return (patterns[labels] * noise).astype(numpy.float32), labels


def fit(work, name, make, epochs, calls, check=None, **options):
    """Return a contender that makes an estimator and fits it for some epochs.

    Parameters
    ----------
    work : Work
    name : str
    make : callable
        The estimator's class.
    epochs : int
    calls : str
    check : callable, optional
        Takes the losses of the epochs, beyond the checks that all fits have to pass.
    **options
        Arguments of the estimator beyond those of `work`.
    """

    def run():
        fitted[:] = [make(**work.options, **options, max_iter=epochs)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the epochs are few
            fitted[0].fit(work.x, work.labels)
        return numpy.array(fitted[0].loss_curve_)

    def check_curve(curve):
        work.check_fit(fitted[0], epochs, curve)
        if check is not None:
            check(curve)

    fitted = []
    return Contender(name, run, check_curve, calls=calls, note=work.data)
