"""What a fit of either estimator does, from arguments to a trained network."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar, cast

import numpy
from numpy.typing import ArrayLike
from sklearn.base import _fit_context
from sklearn.utils.metaestimators import available_if

from fastdrop import nn
from fastdrop.estimators.examples import Examples, Rows, split
from fastdrop.estimators.network import (
    as_random_state,
    build,
    draw_weights,
    dropout_layers,
    mask_seed,
)
from fastdrop.estimators.parameters import (
    Data,
    Parameters,
    check_weights,
    dropout_rates,
    layer_sizes,
)
from fastdrop.estimators.solvers import Solver, minimise
from fastdrop.estimators.training import train
from fastdrop.types import Array

__all__ = ["Fitting", "if_epochs", "validated"]

# Lists that a fit appends to.
CURVES = ("loss_curve_", "validation_scores_")
Method = TypeVar("Method", bound=Callable[..., Any])


def validated(method: Method) -> Method:
    """Decorate a method: parameters are checked before it runs."""
    return cast(Method, _fit_context(prefer_skip_nested_validation=True)(method))


def if_epochs(method: Method) -> Method:
    """Decorate a method: it is there where the solver goes by epochs."""
    return cast(Method, available_if(_has_epochs)(method))


def _has_epochs(estimator: Parameters) -> bool:
    if estimator.solver == "lbfgs":
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. lbfgs is not stochastic."
        )
    return True


class Fitting(Parameters):
    """The fit of a `MultilayerPerceptron`, of which this is a part.

    A subclass defines `_prepare`, which learns from y what it has to, `_targets`, what the network
    learns, `_check_targets`, `_outputs`, `_activation_of_output`, `_stratified` and
    `_validation_score`.

    Attributes
    ----------
    _network : nn.Sequential
        Trained; its last Dense gives raw scores, of which `_output` makes probabilities or values.
        `coefs_` and `intercepts_` are its arrays themselves.
    """

    _network: nn.Sequential
    best_loss_: Any  # float, or None with early stopping
    best_validation_score_: Any  # float or None
    coefs_: list[Array]
    intercepts_: list[Array]
    loss_: float
    loss_curve_: list[float]
    validation_scores_: Any  # list of float or None
    n_features_in_: int
    n_iter_: int
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    t_: int

    @validated
    def fit(
        self,
        X: Data,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: Data | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the model to data.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n_samples, n_features)
            Sparse data becomes dense one batch at a time. A fit computes in the dtype of X; float32
            is faster than float64.
        y : array_like, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array_like, shape (n_samples,), optional
        X_val, y_val : optional
            As X and y: early stopping scores these rows, instead of `validation_fraction` of X, and
            the fit trains on all of X.
        sample_weight_val : array_like, optional
            The weights of these examples.

        Returns
        -------
        object
            The estimator itself. A fit that fails leaves it as it was before.

        Raises
        ------
        ValueError
            For data or a parameter that cannot be, by name; if the training diverges.
        """
        validation = {"X_val": X_val, "y_val": y_val, "sample_weight_val": sample_weight_val}
        with self._all_or_nothing(single=False):
            self._fit(X, y, sample_weight, validation, single=False)
        return self

    @if_epochs
    @validated
    def partial_fit(self, X: Data, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit for one epoch, going on from the weights there are.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n_samples, n_features)
        y : array_like, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array_like, shape (n_samples,), optional

        Returns
        -------
        object
            The estimator itself. A fit that fails leaves it as it was before.
        """
        with self._all_or_nothing(single=True):
            self._fit(X, y, sample_weight, {}, single=True)
        return self

    def _is_fresh(self, single: bool) -> bool:
        """Whether a fit begins with new weights."""
        return not hasattr(self, "coefs_") or not (self.warm_start or single)

    @contextlib.contextmanager
    def _all_or_nothing(self, single: bool) -> Iterator[None]:
        """Put everything back as it was if the block fails.

        But for what a solver remembers of gradients: a `partial_fit` that has made steps before it
        fails leaves the next one without.
        """
        before = dict(vars(self))
        lengths = {name: len(before[name]) for name in CURVES if isinstance(before.get(name), list)}
        network, solver = before.get("_network"), before.get("_solver")
        if self._is_fresh(single):
            network = None  # another one will be trained
        if network is not None:
            self._take_over_weights()
            values = self._save_weights(network)
            positions = [layer.stream.position for layer in dropout_layers(network)]
            steps = solver.steps if solver is not None else 0
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            for name, length in lengths.items():
                del before[name][length:]
            if network is not None:
                for parameter, value in zip(network.parameters(), values, strict=True):
                    parameter.value[...] = value
                for layer, position in zip(dropout_layers(network), positions, strict=True):
                    layer.stream.position = position
                if solver is not None and solver.steps != steps:
                    del self._solver
            raise

    def _save_weights(self, network: nn.Sequential) -> list[Array]:
        """Copies of a network's weights, in arrays that are kept for the next time."""
        values = [parameter.value for parameter in network.parameters()]
        spare: list[Array] | None = getattr(self, "_spare", None)
        if spare is None or [a.dtype for a in spare] != [a.dtype for a in values]:
            self._spare = spare = [numpy.empty_like(value) for value in values]
        for copy, value in zip(spare, values, strict=True):
            numpy.copyto(copy, value)
        return spare

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        validation: dict[str, Any],
        single: bool,
        kind: type[Examples] = Examples,
    ) -> None:
        """Train. `kind` makes the `Examples` that are learnt from, of its arguments."""
        sizes = layer_sizes(self.hidden_layer_sizes)
        rates = [*dropout_rates([self.input_dropout], 1), *dropout_rates(self.dropout, len(sizes))]
        self._check_parameters(rates, validation, single)
        fresh = self._is_fresh(single)
        X, y = self._checked(X, y, fresh)
        self._prepare(y, fresh, single)
        target = self._targets(y)
        sample_weight = self._weights_of(X, y, sample_weight, single)
        self._random_state = as_random_state(self.random_state)
        self.n_outputs_ = self._outputs(target)
        architecture = {
            "sizes": [X.shape[1], *sizes, self.n_outputs_],
            "activation": self.activation,
            "rates": rates,
            "rows_per_mask": self.rows_per_mask,
            "exact_count": bool(self.exact_count),
            "kind": self.dropout_kind,
            "dtype": self._dtype_of(X, fresh),
        }
        if fresh:
            self._begin(architecture)
        elif hasattr(self, "_network"):
            self._continue(architecture)
        else:
            self._adopt(architecture)
        training = self._examples(X, y, target, sample_weight, kind)
        held_out = None
        if validation.get("X_val") is not None:
            held_out = self._validation(**validation)
        elif self._holds_out():
            training, held_out = split(self, training)
        with numpy.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
            if self.solver == "lbfgs":
                self.__dict__.pop("_solver", None)
                minimise(self, training)
            else:
                self._new_curves(fresh)
                self._renew_solver(single)
                train(self, training, held_out if self.early_stopping else None, single)
            self._look_back(held_out)

    def _weights_of(
        self, X: Any, y: Array, sample_weight: ArrayLike | None, single: bool
    ) -> Array | None:
        """The weight of each example as an array, None if all weigh the same."""
        return None if sample_weight is None else check_weights(sample_weight, X)

    def _examples(
        self,
        X: Any,
        y: Array,
        target: Array,
        weights: Array | None,
        kind: type[Examples] = Examples,
    ) -> Examples:
        """Data and targets as the network wants them."""
        dtype = self._network.dtype
        if target.dtype.kind != "i":
            with numpy.errstate(over="ignore"):
                converted = numpy.ascontiguousarray(target, dtype)
            if not numpy.isfinite(converted).all():
                raise ValueError(
                    f"y has values up to {abs(target).max():.3g}, which overflow {dtype}: scale y, "
                    "or compute in float64 (dtype='float64')"
                )
            target = converted
        if weights is not None:
            weights = weights.astype(dtype, copy=False)
        return kind(Rows(X, dtype), target, weights, y, numpy.arange(X.shape[0]))

    def _validation(
        self, X_val: Data, y_val: ArrayLike, sample_weight_val: ArrayLike | None
    ) -> Examples:
        """The user's own validation data, as `Examples`."""
        X, y = self._checked(X_val, y_val)
        self._check_targets(y)
        target = self._targets(y)
        if self._outputs(target) != self.n_outputs_:
            raise ValueError(
                f"y_val must have {self.n_outputs_} outputs as y, got {self._outputs(target)}"
            )
        if sample_weight_val is not None:
            sample_weight_val = check_weights(sample_weight_val, X, "sample_weight_val")
        return self._examples(X, y, target, sample_weight_val)

    def _look_back(self, held_out: Examples | None) -> None:
        """Measure what the examples that were held out tell of the fitted network."""

    def _renew_solver(self, single: bool) -> None:
        """A new solver for `fit`; for `partial_fit` the one there is, with today's parameters."""
        settings = self.get_params(deep=False)
        if not single or not hasattr(self, "_solver"):
            self._solver = Solver(self._network, settings)
        elif any(self._solver.settings[name] != settings[name] for name in self._solver.settings):
            self._solver = Solver.from_state(self._network, self._solver.state(), settings)

    def _dtype_of(self, X: Any, fresh: bool) -> numpy.dtype[Any]:
        if self.dtype is not None:
            return numpy.dtype(self.dtype)
        taken: numpy.dtype[Any] = X.dtype
        return self._network.dtype if not fresh and hasattr(self, "_network") else taken

    def _begin(self, architecture: dict[str, Any]) -> None:
        """Make a new network with new weights."""
        self._make(architecture)
        draw_weights(self._network, self.activation, self._random_state)
        self._show_weights()
        self.t_ = 0

    def _adopt(self, architecture: dict[str, Any]) -> None:
        """Make a network of weights that were set before the first fit."""
        sizes = architecture["sizes"]
        expected: tuple[list[Any], list[Any]]
        expected = list(itertools.pairwise(sizes)), [(size,) for size in sizes[1:]]
        weights = list(self.coefs_), list(getattr(self, "intercepts_", ()))
        for name, arrays, shapes in zip(("coefs_", "intercepts_"), weights, expected, strict=True):
            if [numpy.shape(array) for array in arrays] != shapes:
                raise ValueError(
                    f"{name} must have the shapes {shapes}, as features, hidden_layer_sizes and "
                    f"outputs ask for, got {[numpy.shape(array) for array in arrays]}"
                )
        self._make(architecture)
        self._copy_weights(*weights)
        self.n_features_in_ = sizes[0]
        self.t_ = getattr(self, "t_", 0)

    def _make(self, architecture: dict[str, Any]) -> None:
        """Make a network, all weights 0."""
        self._seed = mask_seed(self._random_state)
        self._mask_position = 0
        self._architecture = architecture
        self._network = build(**architecture, seed=self._seed)
        self.n_layers_ = len(architecture["sizes"])
        self.out_activation_ = self._activation_of_output()

    def _continue(self, architecture: dict[str, Any]) -> None:
        """Go on with the weights there are; anything but their shapes may have changed."""
        before = self._architecture
        if architecture["sizes"] != before["sizes"]:
            raise ValueError(
                "hidden_layer_sizes, features and outputs must stay as they were for warm_start "
                f"and partial_fit: the layers had {before['sizes']} units, now they would have "
                f"{architecture['sizes']}"
            )
        self._take_over_weights()
        if architecture == before:
            return
        self._mask_position = max([self._mask_position, *(s.position for s in self._streams())])
        weights = self.coefs_, self.intercepts_
        self._architecture = architecture
        self._network = build(**architecture, seed=self._seed)
        self._copy_weights(*weights)
        for stream in self._streams():
            stream.position = self._mask_position
        if hasattr(self, "_solver"):
            self._solver = Solver.from_state(self._network, self._solver.state())

    def _new_curves(self, fresh: bool) -> None:
        """Begin what a fit tells, where there is none to go on with."""
        if fresh or not hasattr(self, "_no_improvement_count"):
            self.loss_curve_ = []
            self._no_improvement_count = 0
            self.best_loss_ = self.best_validation_score_ = self.validation_scores_ = None
        if self.early_stopping and self.validation_scores_ is None:
            self.validation_scores_ = []
            self.best_validation_score_ = -numpy.inf
            self.best_loss_ = None
        elif not self.early_stopping and self.best_loss_ is None:
            self.best_loss_ = numpy.inf
            self.validation_scores_ = self.best_validation_score_ = None
