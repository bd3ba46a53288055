"""The same training with torch and with scikit-learn, asked for epoch by epoch like fastdrop's."""

import warnings

import numpy

from fastdrop import get_num_threads

from .training import ARMS, MOMENTUM, Batches, build

__all__ = ["SklearnRun", "TorchRun"]


class TorchRun:
    """A network of torch's: the initial weights, batches, rates and rules of fastdrop's.

    It computes on as many threads as fastdrop. Dropout is `torch.nn.Dropout`, a mask for each
    example; the optimiser is torch's fused SGD, its fastest on a CPU, and max-norm one vectorised
    rescaling of each weight matrix behind it.

    Parameters
    ----------
    settings : Settings
        The arm "per-sample" or "none".
    training : Examples

    Raises
    ------
    ValueError
        If the arm is one that torch's layers do not have.
    """

    def __init__(self, settings, training):
        import torch

        if settings.arm not in ("none", "per-sample"):
            raise ValueError(f"torch has the arms none and per-sample, got {settings.arm!r}")
        self._torch = torch
        torch.set_num_threads(get_num_threads())
        self.settings = settings
        self._batches = Batches(settings, training)
        self.network = self._build(build(settings, training))
        steps = self._batches.steps
        self._optimiser = torch.optim.SGD(
            self.network.parameters(), lr=settings.learning_rate, momentum=MOMENTUM, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: max(0.0, 1 - step / steps)
        )
        self._loss = torch.nn.CrossEntropyLoss()

    def _build(self, ours):
        torch = self._torch
        # Masks come from torch's own generator; everything else is taken from our network.
        torch.manual_seed(self.settings.seed)
        layers = []
        for layer in ours.layers:
            kind = type(layer).__name__
            if kind == "Dense":
                linear = torch.nn.Linear(layer.units_in, layer.units_out)
                with torch.no_grad():
                    linear.weight.copy_(torch.from_numpy(layer.weight.T.copy()))
                    linear.bias.copy_(torch.from_numpy(layer.bias.copy()))
                layers.append(linear)
            elif kind == "ReLU":
                layers.append(torch.nn.ReLU())
            else:
                layers.append(torch.nn.Dropout(1 - layer.keep_prob))
        return torch.nn.Sequential(*layers)

    def epoch(self):
        """Train for one epoch; FloatingPointError if the loss is not finite any more."""
        torch, settings = self._torch, self.settings
        self.network.train()
        for images, labels in self._batches.epoch():
            self._optimiser.zero_grad()
            loss = self._loss(self.network(torch.from_numpy(images)), torch.from_numpy(labels))
            loss.backward()
            self._optimiser.step()
            self._schedule.step()
            if settings.max_norm is not None:
                self._bound(settings.max_norm)
        if not numpy.isfinite(loss.item()):
            raise FloatingPointError(f"torch: the loss is {loss.item()}")

    def _bound(self, max_norm):
        with self._torch.no_grad():
            for layer in self.network:
                if isinstance(layer, self._torch.nn.Linear):
                    norms = layer.weight.norm(dim=1, keepdim=True)
                    layer.weight.mul_((max_norm / norms).clamp_(max=1))

    def scores(self, images):
        """Return the scores before the softmax, shape (examples, classes)."""
        self.network.eval()
        with self._torch.no_grad():
            return self.network(self._torch.from_numpy(images)).numpy()


class SklearnRun:
    """scikit-learn's `MLPClassifier`, which has no dropout, no max-norm and no linear decay.

    SGD with momentum and a constant learning rate, no penalty, and its own initial weights and
    order; one epoch is one `partial_fit` of all examples, its momentum kept in between.

    Parameters
    ----------
    settings : Settings
        The arm "none" without max-norm.
    training : Examples

    Raises
    ------
    ValueError
        If the arm or the max-norm is one that scikit-learn does not have.
    """

    def __init__(self, settings, training):
        from sklearn.neural_network import MLPClassifier

        if ARMS[settings.arm] is not None or settings.max_norm is not None:
            raise ValueError(
                "scikit-learn has the arm none without max-norm, got "
                f"{settings.arm!r}, {settings.max_norm}"
            )
        self._training = training
        self._classes = numpy.arange(int(training.labels.max()) + 1)
        self.network = MLPClassifier(
            settings.hidden,
            solver="sgd",
            alpha=0.0,
            batch_size=min(settings.batch, len(training)),
            learning_rate_init=settings.learning_rate,
            momentum=MOMENTUM,
            nesterovs_momentum=False,
            random_state=settings.seed,
        )

    def epoch(self):
        """Train for one epoch; FloatingPointError if the loss is not finite any more."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # overflows, which end below
            try:
                self.network.partial_fit(
                    self._training.images, self._training.labels, classes=self._classes
                )
            except ValueError as error:
                if "finite" in str(error):
                    raise FloatingPointError(str(error)) from error
                raise
        if not numpy.isfinite(self.network.loss_):
            raise FloatingPointError(f"scikit-learn: the loss is {self.network.loss_}")

    def scores(self, images):
        """Return the logarithms of the probabilities, shape (examples, classes)."""
        # A probability that has underflown is 0; its logarithm is a warning and then finite here.
        return numpy.log(numpy.maximum(self.network.predict_proba(images), 1e-30))
