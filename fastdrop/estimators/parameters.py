"""The estimators' parameters: their types and ranges, and what is said about other values."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, TypeAlias

import numpy
from numpy.typing import ArrayLike, DTypeLike
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.metrics import get_scorer_names
from sklearn.utils import validation
from sklearn.utils._param_validation import Interval, Options, StrOptions

from fastdrop.callers import warn_caller
from fastdrop.stream import MaskStream
from fastdrop.types import Array, RowsPerMask

__all__ = [
    "Activation",
    "ClassWeight",
    "Data",
    "DropoutKind",
    "LearningRate",
    "Parameters",
    "RandomState",
    "Rate",
    "Scoring",
    "Sizes",
    "SolverName",
    "check_weights",
    "dropout_rates",
    "layer_sizes",
    "validate_data",
    "wanted_dtypes",
]

Data: TypeAlias = ArrayLike | sparse.spmatrix | sparse.sparray
Sizes: TypeAlias = int | Sequence[int] | Array
Rate: TypeAlias = float | Callable[[int], float]
RandomState: TypeAlias = int | numpy.random.RandomState | numpy.random.Generator | MaskStream | None
Activation: TypeAlias = Literal["relu", "identity", "logistic", "tanh", "selu"]
SolverName: TypeAlias = Literal["adam", "sgd", "lbfgs"]
LearningRate: TypeAlias = Literal["constant", "invscaling", "adaptive"]
DropoutKind: TypeAlias = Literal["bernoulli", "gaussian", "alpha"]
Scoring: TypeAlias = str | Callable[..., float] | None
ClassWeight: TypeAlias = dict[Any, float] | Sequence[dict[Any, float]] | Literal["balanced"] | None

FLOATS = numpy.dtype(numpy.float64), numpy.dtype(numpy.float32)


class Parameters(BaseEstimator):
    """Base of the estimators: what their constructors are given, of which each is an attribute."""

    # Names, ranges and messages are those of scikit-learn's own perceptrons.
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"identity", "logistic", "tanh", "relu", "selu"})],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state", numpy.random.Generator, MaskStream],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {numpy.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        # What scikit-learn's do not have.
        "dropout": ["array-like", callable, Interval(Real, 0, 1, closed="both")],
        "input_dropout": [callable, Interval(Real, 0, 1, closed="both")],
        "dropout_kind": [StrOptions({"bernoulli", "gaussian", "alpha"})],
        "rows_per_mask": [StrOptions({"batch"}), Interval(Integral, 1, None, closed="left")],
        "exact_count": ["boolean"],
        "max_norm": [None, Interval(Real, 0, None, closed="neither")],
        "scoring": [None, callable, StrOptions({"loss", *get_scorer_names()})],
        "dtype": [
            None,
            StrOptions({"float32", "float64"}),
            Options(type, {numpy.float32, numpy.float64}),
            numpy.dtype,
        ],
    }

    hidden_layer_sizes: Sizes
    activation: Activation
    solver: SolverName
    alpha: float
    batch_size: int | Literal["auto"]
    learning_rate: LearningRate
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: RandomState
    tol: float
    verbose: bool | int
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    dropout: Rate | Sequence[Rate] | Array
    input_dropout: Rate
    dropout_kind: DropoutKind
    rows_per_mask: RowsPerMask
    exact_count: bool
    max_norm: float | None
    dtype: DTypeLike | None
    scoring: Scoring

    def _keep(self, arguments: dict[str, Any]) -> None:
        """Make attributes of a constructor's arguments, its ``locals()``."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    def _check_parameters(
        self, rates: list[Rate], validation: dict[str, Any], single: bool
    ) -> None:
        """Refuse what does not go together, and warn of what leaves nothing to learn from."""
        if single and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.solver == "lbfgs":
            self._check_lbfgs(rates)
        self._check_dropout(rates)
        given = [name for name, value in validation.items() if value is not None]
        if given and not self._holds_out():
            raise ValueError(
                f"{given[0]} is for early_stopping=True, which solver='lbfgs' does not know, or "
                f"tau='fit', got early_stopping={self.early_stopping}, solver={self.solver!r}"
            )
        if given and ("X_val" not in given or "y_val" not in given):
            missing = "y_val" if "X_val" in given else "X_val"
            raise ValueError(f"{given[0]} was given without {missing}")
        if self.scoring is not None and not self.early_stopping:
            raise ValueError(
                f"scoring={self.scoring!r} is used with early_stopping=True only, got False"
            )

    def _check_lbfgs(self, rates: list[Rate]) -> None:
        """Refuse what the solver "lbfgs" cannot do."""
        if any(rates):
            raise ValueError(
                "solver='lbfgs' needs dropout=0 and input_dropout=0: it compares the losses of its "
                f"evaluations, and masks make each another function; got rates {rates}. "
                "Use solver='adam' or solver='sgd' with dropout"
            )
        if self.max_norm is not None:
            raise ValueError(
                f"solver='lbfgs' needs max_norm=None, got {self.max_norm}: it moves all weights at "
                "once. Use solver='adam' or solver='sgd', or alpha against large weights"
            )

    def _check_dropout(self, rates: list[Rate]) -> None:
        """Refuse what a kind of dropout cannot do, and warn of one that drops everything."""
        name = "input_dropout" if rates[0] == 1 else "dropout"
        kind = self.dropout_kind
        if kind == "bernoulli":
            if 1 in rates:
                warn_caller(
                    f"{name}=1 drops everything in training and prediction: the network learns "
                    "the biases behind it only"
                )
            return
        if self.rows_per_mask != 1 or self.exact_count:
            raise ValueError(
                f"dropout_kind={kind!r} needs rows_per_mask=1 and exact_count=False, which are for "
                f"masks of dropout_kind='bernoulli', got rows_per_mask={self.rows_per_mask!r} and "
                f"exact_count={self.exact_count}"
            )
        if kind == "alpha" and self.activation != "selu":
            raise ValueError(
                "dropout_kind='alpha' needs activation='selu', whose mean and variance it keeps, "
                f"got activation={self.activation!r}"
            )
        if 1 in rates:
            raise ValueError(
                f"dropout_kind={kind!r} needs rates below 1, where it can keep the variance, got "
                f"{name}=1"
            )

    def _holds_out(self) -> bool:
        """Whether some examples are not trained on; lbfgs stops by its own rule, as there."""
        return self.early_stopping and self.solver != "lbfgs"


def layer_sizes(hidden_layer_sizes: Sizes) -> list[int]:
    """Return the units of the hidden layers as a list of ints.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int

    Raises
    ------
    ValueError
        If one is no int, or below 1.
    """
    given: Any = hidden_layer_sizes
    sizes = list(given) if hasattr(given, "__iter__") else [given]
    for size in sizes:
        if not isinstance(size, Integral) or isinstance(size, bool):
            raise ValueError(f"hidden_layer_sizes must be ints, got {sizes}")
        if size <= 0:
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}")
    return [int(size) for size in sizes]


def dropout_rates(dropout: Any, layers: int) -> list[Rate]:
    """Return the rate of each hidden layer.

    Parameters
    ----------
    dropout : float, callable, or sequence of them
    layers : int
        Hidden layers.

    Returns
    -------
    list of float or callable

    Raises
    ------
    ValueError
        If there is not one for every layer, or one is not in [0, 1].
    """
    if getattr(dropout, "ndim", None) == 0:
        dropout = dropout.item()
    rates = list(dropout) if hasattr(dropout, "__iter__") else [dropout] * layers
    if len(rates) != layers:
        raise ValueError(
            f"dropout must be a float or a schedule, or have one for each of the {layers} hidden "
            f"layers, got {len(rates)}: {rates}"
        )
    for rate in rates:
        if callable(rate):
            continue  # a schedule, whose rates are checked when they are used
        if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= float(rate) <= 1:
            raise ValueError(f"dropout must have rates in [0, 1], got {rate!r} in {rates}")
    return [rate if callable(rate) else float(rate) for rate in rates]


def wanted_dtypes(dtype: DTypeLike | None) -> tuple[numpy.dtype[Any], ...]:
    """Return the dtypes of data that are left as they are; others are converted to the first.

    Returns
    -------
    tuple of numpy.dtype
        That which is asked for, or float64 and float32.

    Raises
    ------
    ValueError
        For a dtype that is neither float32 nor float64.
    """
    if dtype is None:
        return FLOATS
    wanted = numpy.dtype(dtype).newbyteorder("=")
    if wanted.char not in "fd":
        raise ValueError(f"dtype must be None, float32 or float64, got {wanted}")
    return (wanted,)


def validate_data(estimator: BaseEstimator, *args: Any, **kwargs: Any) -> Any:
    """Check and convert data, and remember or compare features and their names."""
    if hasattr(validation, "validate_data"):
        return validation.validate_data(estimator, *args, **kwargs)
    return estimator._validate_data(*args, **kwargs)  # before scikit-learn 1.6


def check_weights(sample_weight: ArrayLike | None, x: Any, name: str = "sample_weight") -> Array:
    """Return sample weights as an array of the dtype of x, one for each row.

    Parameters
    ----------
    sample_weight : array_like, float or None
        None: 1 for each.
    x : array or sparse matrix, shape (n_samples, n_features)
    name : str, optional
        The argument's, for messages.

    Returns
    -------
    numpy.ndarray, shape (n_samples,)

    Raises
    ------
    ValueError
        Where there is not one for every row, one is negative or not finite, or all are 0.
    """
    weights: Array = validation._check_sample_weight(sample_weight, x, dtype=x.dtype)
    if (weights < 0).any():
        raise ValueError(
            f"Negative values in data passed to `{name}`, the least is {weights.min()}"
        )
    if not weights.any():
        raise ValueError(f"{name} must not be 0 for every sample")
    return weights
