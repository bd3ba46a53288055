"""When a fit without early stopping has converged: scikit-learn's rule, and one for dropout."""

import math

import numpy

from fastdrop.callers import warn_caller

__all__ = ["LossRule", "TrendRule", "stopping_rule"]

# Steps that the loss is averaged over at least. On unscaled data Adam takes 100 of them to settle,
# and masks make losses rise for as long; `python -m bench.studies.stopping` measures the rule.
LEAST_STEPS = 300
# Windows of losses without a lower mean that end a fit.
PATIENCE = 2
# Steps between two looks at the whole network, at least.
STEPS_BETWEEN = 10
# Training rows it is looked at with: a twentieth, and all of them up to this many. A look costs a
# few per cent of an epoch then, also where masks make steps four times faster than its products.
LEAST_ROWS = 200
# A batchwise fit ends far from its training data if their loss is so many times the lowest it had,
# and higher by this share of the loss that scores of 0 have; or if all of its units have died.
FAR = 1.25
FAR_OF_SCALE = 0.05


def stopping_rule(model, training, steps, single):
    """Return the rule for a fit.

    Parameters
    ----------
    model : MultilayerPerceptron
    training : Examples
    steps : int
        Of an epoch.
    single : bool
        Whether the fit has one epoch, as that of `partial_fit`. Nothing stops it, so the network
        is not looked at but for scikit-learn's rule, of which only numbers come.

    Returns
    -------
    LossRule or TrendRule
    """
    if single or not any(model._architecture["rates"]):
        return LossRule(model)
    return TrendRule(model, training, steps)


class LossRule:
    """scikit-learn's: the loss of an epoch has to improve on the best one.

    Parameters
    ----------
    model : MultilayerPerceptron
        Holds the count of epochs without improvement from one fit to the next.
    """

    def __init__(self, model):
        self._model = model

    def converged(self):
        """Look at the epoch that ends, and return whether the learning rate is used up."""
        model = self._model
        if model.loss_ > model.best_loss_ - model.tol:
            model._no_improvement_count += 1
        else:
            model._no_improvement_count = 0
        return model._no_improvement_count > model.n_iter_no_change

    def tell(self, batch):
        """Nothing is known of the network beside its losses."""

    def restart(self):
        """Begin anew with another learning rate."""
        self._model._no_improvement_count = 0


class TrendRule:
    """With dropout: the loss of the whole network, averaged over a window, has to fall on.

    The loss of an epoch is that of its masks, and with few steps to an epoch their noise is larger
    than what is learnt in ten epochs. So the network sees a part of the training rows without
    masks, and their loss is averaged over a window: `n_iter_no_change` epochs, and 300 steps at
    least. Training has converged when two windows bring the lowest average down by less than `tol`
    for every two epochs; scikit-learn's rule asks for `tol` in one of ten.

    Parameters
    ----------
    model : MultilayerPerceptron
    training : Examples
    steps : int
        Of an epoch.
    """

    def __init__(self, model, training, steps):
        self._model = model
        self._part = training.part(max(LEAST_ROWS, len(training) // 20))
        self._between = -(-STEPS_BETWEEN // steps)
        epochs = max(model.n_iter_no_change, -(-LEAST_STEPS // steps))
        self._window = math.inf if math.isinf(epochs) else -(-epochs // self._between)
        self._patience = PATIENCE * self._window
        self._least_fall = model.tol / 2 * self._patience * self._between
        self._losses, self._lowest_means = [], []
        self._lowest = math.inf

    def converged(self):
        """Look at the epoch that ends, and return whether the learning rate is used up."""
        if self._model.n_iter_ % self._between:
            return False
        self._losses.append(self._part.loss(self._model))
        self._lowest = min(self._lowest, self._losses[-1])
        if len(self._losses) < self._window:
            return False
        mean = float(numpy.mean(self._losses[-self._window :]))
        lowest = self._lowest_means
        lowest.append(min(mean, lowest[-1]) if lowest else mean)
        if len(lowest) <= self._patience:
            return False
        return lowest[-1 - self._patience] - lowest[-1] <= self._least_fall

    def tell(self, batch):
        """Warn if a batchwise fit ends far from where it has been, or knows nothing of the rows.

        Parameters
        ----------
        batch : int
            Rows of a batch.
        """
        model = self._model
        masks = model.rows_per_mask
        if not self._losses or (masks != "batch" and masks < batch):
            return
        loss, scale = self._part.loss(model), self._part.loss_of_zeros(model)
        said = None
        raw = self._part.raw(model._network)
        if len(raw) > 1 and 1 not in model._architecture["rates"] and (raw == raw[0]).all():
            said = "the network says the same of every row"
        elif loss > FAR * self._lowest and loss - self._lowest > FAR_OF_SCALE * scale:
            said = f"without masks their loss is {loss:.3g}, and was {self._lowest:.3g} before"
        if said:
            warn_caller(
                f"the fit with rows_per_mask={masks!r} ends far from its training data: {said}. A "
                "batch that shares one mask needs a smaller learning_rate_init, or several masks, "
                f"such as rows_per_mask={max(batch // 8, 1)}"
            )

    def restart(self):
        """Begin anew with another learning rate."""
        self._losses.clear()
        self._lowest_means.clear()
