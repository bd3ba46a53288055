"""Fits and Monte Carlo passes of everybody's, and how to tell that they are right."""

import functools
import warnings

import numpy
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import fastdrop

from . import verify
from .cases import SEED, Contender, needs
from .environment import torch_generator

__all__ = [
    "PASSES",
    "Work",
    "own_fit",
    "own_moments",
    "own_samples",
    "rival_moments",
    "scikit_learn_fit",
    "torch_samples",
]

# Of the 1000 passes that the bar is about: everybody's time is linear in them, and what fastdrop
# computes once weighs more among fewer.
PASSES = 40
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
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(self.x, self.labels)

    @functools.cached_property
    def regressor(self):
        """A fitted regressor with dropout, of as many values as there are classes."""
        model = fastdrop.MLPRegressor(**self.options, dropout=RATE, max_iter=2)
        enough = numpy.resize(self.x, (ENOUGH, self.x.shape[1]))
        target = numpy.resize(enough, (ENOUGH, self.classes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
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


def _digits():
    from .studies.generalisation.data import load_digits

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


def _fit(work, name, make, epochs, calls, check, **options):
    def run():
        fitted[:] = [make(**work.options, **options, max_iter=epochs)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are few
            fitted[0].fit(work.x, work.labels)
        return numpy.array(fitted[0].loss_curve_)

    def check_curve(curve):
        work.check_fit(fitted[0], epochs, curve)
        check(curve)

    fitted = []
    return Contender(name, run, check_curve, calls=calls, note=work.data)


def own_fit(work, epochs, rate, rows_per_mask):
    """Return fastdrop's contender for a fit; without dropout it has to lose what sklearn's does."""
    options = {"dropout": rate, "rows_per_mask": rows_per_mask}
    expected = []

    def check(curve):
        if rate:
            return
        if not expected:
            expected.append(scikit_learn_fit(work, epochs).run())
        close = numpy.allclose(curve, expected[0], rtol=1e-3, atol=1e-4)
        verify.require(close, f"the losses are {curve}, scikit-learn's {expected[0]}")

    calls = "fastdrop.MLPClassifier.fit"
    return _fit(work, "fastdrop", fastdrop.MLPClassifier, epochs, calls, check, **options)


def scikit_learn_fit(work, epochs):
    """Return scikit-learn's contender, which has no dropout."""
    calls = "sklearn.neural_network.MLPClassifier.fit"
    return _fit(work, "scikit-learn", MLPClassifier, epochs, calls, lambda curve: None)


def _check_samples(work, samples):
    shape = (PASSES, work.examples, work.classes)
    verify.require(samples.shape == shape, f"the samples have shape {samples.shape}, not {shape}")
    sums = samples.sum(axis=2)
    verify.require(numpy.allclose(sums, 1, atol=1e-4), "a row's probabilities do not add up to 1")
    different = samples.std(axis=0).max() > 0
    verify.require(different, "all samples are the same: nothing was dropped")


def own_samples(work):
    """Return fastdrop's contender for Monte Carlo passes: one set of units for each."""
    model = work.trained

    def run():
        return model.predict_samples(work.x, PASSES, random_state=SEED)

    def check(samples):
        _check_samples(work, samples)
        streams = _streams(work)
        for number in (0, PASSES - 1):
            expected = _probabilities(_dense_pass(work, model, streams, number))
            close = numpy.allclose(samples[number], expected, atol=1e-4)
            verify.require(close, f"sample {number} is not that of a dense pass")

    calls = "fastdrop.MLPClassifier.predict_samples"
    return Contender("fastdrop", run, check, calls=calls, note=f"{PASSES} passes")


def _streams(work):
    """The mask streams of samples with this seed."""
    words = numpy.random.RandomState(SEED).randint(0, 2**32, 4, dtype=numpy.uint32)
    return fastdrop.MaskStream([int(word) for word in words]).spawn(len(work.hidden))


def _dense_pass(work, model, streams, number):
    """Raw scores of one pass, in float64, with nothing left out but by multiplying by zero."""
    x = work.x.astype(float)
    *hidden, last = zip(model.coefs_, model.intercepts_, strict=True)
    for (weight, bias), stream in zip(hidden, streams, strict=True):
        x = numpy.maximum(x @ weight + bias, 0)
        mask = stream.draw(x.shape, rate=RATE, rows_per_mask="batch", at=number)
        x = x * mask.to_array(dtype=float) * mask.scale
    return x @ last[0] + last[1]


def _probabilities(scores):
    powers = numpy.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def own_moments(work):
    """Return fastdrop's contender for mean and deviation of a prediction."""
    model = work.regressor

    def run():
        return model.predict(work.x, return_std=True, n_samples=SAMPLES, random_state=SEED)

    def check(moments):
        streams = _streams(work)
        passes = [_dense_pass(work, model, streams, number) for number in range(SAMPLES)]
        expected = numpy.mean(passes, axis=0), numpy.std(passes, axis=0)
        for one, other in zip(moments, expected, strict=True):
            close = numpy.allclose(one.reshape(other.shape), other, atol=1e-4)
            verify.require(close, "mean or deviation are not those of dense passes")

    calls = "fastdrop.MLPRegressor.predict"
    return Contender("fastdrop", run, check, calls=calls, note=f"{SAMPLES} samples")


def rival_moments(work):
    """Return the contenders that stack samples as rows by hand, each sample one set of units."""
    return [_numpy_moments(work), needs("torch", "torch")(_torch_moments)(work)]


def _check_moments(work, moments):
    mean, std = moments
    shape = (work.examples, work.classes)
    verify.require(mean.shape == std.shape == shape, f"{mean.shape} is not {shape}")
    model = work.regressor
    passes = numpy.stack(
        [_dense_pass(work, model, _streams(work), number) for number in range(SAMPLES)]
    )
    # Other masks, the same distribution: apart by some errors of a mean.
    apart = abs(mean - passes.mean(axis=0)) / (passes.std(axis=0) / SAMPLES**0.5 + 1e-6)
    verify.require(apart.max() < 10, "the mean is not that of samples with units dropped")


def _numpy_moments(work):
    model = work.regressor
    (first, bias), *others = zip(model.coefs_, model.intercepts_, strict=True)
    generator = numpy.random.default_rng(SEED)

    def run():
        h = numpy.maximum(work.x @ first + bias, 0)[None]
        for number, (weight, shift) in enumerate(others):
            units = generator.random((SAMPLES, 1, h.shape[2]), dtype=numpy.float32) >= RATE
            h = h * (units * numpy.float32(1 / (1 - RATE)))
            h = h.reshape(-1, h.shape[2]) @ weight + shift
            h = h.reshape(SAMPLES, work.examples, -1)
            if number + 1 < len(others):
                numpy.maximum(h, 0, out=h)
        return numpy.mean(h, axis=0), numpy.std(h, axis=0)

    check = functools.partial(_check_moments, work)
    return Contender("NumPy", run, check, calls="numpy.std", note="samples stacked by hand")


def _torch_moments(work):
    import torch

    model = work.regressor
    (first, bias), *others = (
        (torch.from_numpy(weight.T.copy()), torch.from_numpy(shift))
        for weight, shift in zip(model.coefs_, model.intercepts_, strict=True)
    )
    x = torch.from_numpy(work.x)
    functional = torch.nn.functional

    def run():
        with torch.inference_mode():
            h = functional.relu(functional.linear(x, first, bias))[None]
            for number, (weight, shift) in enumerate(others):
                h = h * functional.dropout(h.new_ones(SAMPLES, 1, h.shape[2]), RATE)
                h = functional.linear(h, weight, shift)
                if number + 1 < len(others):
                    h = functional.relu(h)
            return h.mean(dim=0), h.std(dim=0)

    return Contender(
        "torch",
        run,
        lambda moments: _check_moments(work, [one.numpy() for one in moments]),
        calls="torch.nn.functional.linear",
        note=f"samples stacked by hand; draws with {torch_generator()}",
    )


def torch_samples(work):
    """Return torch's contenders: in train mode, and with what a careful user may do beyond it.

    The layer in front of all dropout can be computed once, and a mask be drawn for all rows.
    """
    names = ("torch", "torch, first layer once", "torch, unit masks")
    return [needs("torch", name)(_torch_samples)(work, name) for name in names]


def _torch_samples(work, name):
    import torch

    class UnitDropout(torch.nn.Module):
        def forward(self, x):
            units = torch.nn.functional.dropout(x.new_ones(1, x.shape[1]), RATE)
            return x * units

    model = work.trained
    dropout = (
        UnitDropout if name.endswith("unit masks") else functools.partial(torch.nn.Dropout, RATE)
    )
    layers = []
    for weight, bias in zip(model.coefs_, model.intercepts_, strict=True):
        linear = torch.nn.Linear(*weight.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight.T))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.ReLU(), dropout()]
    whole = torch.nn.Sequential(*layers[:-2]).train()
    x = torch.from_numpy(work.x)

    def run():
        samples = torch.empty(PASSES, work.examples, work.classes)
        with torch.inference_mode():
            inputs, net = (x, whole) if name == "torch" else (whole[:2](x), whole[2:])
            for number in range(PASSES):
                scores = torch.nn.Sequential.forward(net, inputs)
                samples[number] = scores.softmax(dim=1)
        return samples

    return Contender(
        name,
        run,
        lambda samples: _check_samples(work, samples.numpy()),
        calls="torch.nn.Sequential.forward",
        note=f"{PASSES} passes; draws with {torch_generator()}",
    )
