"""Early stopping: scores of what was held out, and the weights that were best."""

import numpy
from sklearn.metrics import check_scoring

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """scikit-learn's rule: the validation score has to improve on the best one.

    Parameters
    ----------
    model : MultilayerPerceptron
        Holds the scores, the best of them, and the count of epochs without improvement.
    held_out : Examples

    Attributes
    ----------
    score : float or None
        Of the last epoch.
    """

    def __init__(self, model, held_out):
        self._model = model
        self._held_out = held_out
        self._scorer = None
        if model.scoring not in (None, "loss"):
            self._scorer = check_scoring(model, model.scoring)
        self._kept = [parameter.value.copy() for parameter in model._network.parameters()]
        self.score = None

    def converged(self):
        """Score the epoch that ends, keep its weights if they are the best, count if not."""
        model = self._model
        self.score = score = self._scored()
        model.validation_scores_.append(score)
        if score < model.best_validation_score_ + model.tol:
            model._no_improvement_count += 1
        else:
            model._no_improvement_count = 0
        if score > model.best_validation_score_:
            model.best_validation_score_ = score
            for parameter, value in zip(model._network.parameters(), self._kept, strict=True):
                numpy.copyto(value, parameter.value)
        return model._no_improvement_count > model.n_iter_no_change

    def _scored(self):
        model, held_out = self._model, self._held_out
        if model.scoring == "loss":
            return -held_out.loss(model)
        if self._scorer is not None:
            return held_out.score(model, self._scorer)
        return model._validation_score(held_out.raw(model._network), *held_out.targets())

    def restart(self):
        """Begin anew with another learning rate."""
        self._model._no_improvement_count = 0

    def restore(self):
        """Give the network the weights that were best."""
        for parameter, value in zip(self._model._network.parameters(), self._kept, strict=True):
            parameter.value[...] = value
