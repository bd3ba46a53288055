"""Examples to learn from, and those that are held out."""

import copy
from dataclasses import dataclass, replace

import numpy
from sklearn.model_selection import train_test_split

from fastdrop.estimators.objective import Objective
from fastdrop.estimators.rows import Rows, evaluate

__all__ = ["Examples", "split"]


@dataclass
class Examples:
    """Rows of data with what is to be learnt of them.

    Attributes
    ----------
    rows : Rows
    target : numpy.ndarray, shape (n_samples,) of class numbers, or (n_samples, n_outputs)
    weights : numpy.ndarray or None, shape (n_samples,)
    given : numpy.ndarray
        The targets as the user gave them.
    places : numpy.ndarray of int
        Which of the rows these are, in their order.
    """

    rows: Rows
    target: numpy.ndarray
    weights: numpy.ndarray | None
    given: numpy.ndarray
    places: numpy.ndarray

    def __len__(self):
        return len(self.places)

    def at(self, places):
        """The examples at these places among the rows."""
        return replace(self, places=places)

    def part(self, wanted):
        """At most this many of the examples, evenly spaced; of weight 0 not all, if possible."""
        places = self.places
        if self.weights is not None:
            places = places[self.weights[places] > 0]
        if len(places) > wanted:
            places = places[numpy.linspace(0, len(places) - 1, wanted).astype(int)]
        return self.at(places)

    def targets(self):
        """Their targets and weights, the latter None where all weigh the same."""
        weights = None if self.weights is None else self.weights[self.places]
        return self.target[self.places], weights

    def features(self):
        """Their rows of data, an array or CSR matrix of shape (n, n_features)."""
        return self.rows.x[self.places]

    def gradients(self, network, objective, places):
        """Let a network have the gradients of a batch.

        Parameters
        ----------
        network : nn.Sequential
        objective : Objective
        places : numpy.ndarray of int
            Of the batch's examples among the rows.

        Returns
        -------
        float
            The value of the objective.
        """
        weights = None if self.weights is None else self.weights[places]
        raw = network.forward(self.rows.take(places), training=True)
        value, grad = objective(raw, self.target[places], weights)
        network.backward(grad)
        return value

    def raw(self, network):
        """Raw scores of a network without masks, shape (n, outputs)."""
        return evaluate(network, self.rows, self.places)

    def loss(self, model):
        """The loss of a model's network without masks and penalty."""
        target, weights = self.targets()
        raw = self.raw(model._network)
        return Objective(model.out_activation_, model.n_outputs_)(raw, target, weights)[0]

    def loss_of_zeros(self, model):
        """The loss of a network that says 0 of everything: a scale for losses."""
        target, weights = self.targets()
        raw = numpy.zeros((len(self), model.n_outputs_), model._network.dtype)
        return Objective(model.out_activation_, model.n_outputs_)(raw, target, weights)[0]

    def score(self, model, scorer):
        """What a scorer of scikit-learn's says of a model.

        Its `predict` sees the rows as they are here, so names of features are not compared.
        """
        seen = copy.copy(vars(model))
        seen.pop("feature_names_in_", None)
        view = object.__new__(type(model))
        vars(view).update(seen)
        _, weights = self.targets()
        more = {} if weights is None else {"sample_weight": weights}
        return float(scorer(view, self.features(), self.given[self.places], **more))


def split(model, examples):
    """Hold out some of the examples.

    Parameters
    ----------
    model : MultilayerPerceptron
        Decides how many, and whether classes are to be there in their shares.
    examples : Examples

    Returns
    -------
    training, held_out : Examples

    Raises
    ------
    ValueError
        If too little is held out, or one of both parts has weights of 0 only.
    """
    # The numbers that scikit-learn's split takes from the random state, for the same parts.
    training, held_out = train_test_split(
        examples.places,
        random_state=model._random_state,
        test_size=model.validation_fraction,
        stratify=examples.given if model._stratified() else None,
    )
    if len(held_out) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            f"dataset. validation_fraction={model.validation_fraction} holds out {len(held_out)} "
            f"of {len(examples)} samples, at least 2 are needed"
        )
    if examples.weights is not None:
        for part, places in (("training", training), ("validation", held_out)):
            if not examples.weights[places].any():
                raise ValueError(
                    f"sample_weight is 0 for all {len(places)} samples of the {part} part, which "
                    f"validation_fraction={model.validation_fraction} and random_state split off "
                    f"{len(examples)} samples: {numpy.count_nonzero(examples.weights)} have a "
                    "weight. Leave out samples of weight 0, or give X_val and y_val"
                )
    return examples.at(training), examples.at(held_out)
