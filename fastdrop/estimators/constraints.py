"""Which values the parameters of the estimators may have, and what is said about others."""

from numbers import Integral, Real

import numpy
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import Interval, Options, StrOptions

from fastdrop.stream import MaskStream

__all__ = [
    "CONSTRAINTS",
    "OF_CLASSIFIERS",
    "OF_REGRESSORS",
    "check_lbfgs",
    "check_loss",
    "dropout_rates",
    "layer_sizes",
    "wanted_dtypes",
]

# Names, ranges and messages are those of scikit-learn's own perceptrons.
FLOATS = numpy.dtype(numpy.float64), numpy.dtype(numpy.float32)
CONSTRAINTS = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions({"identity", "logistic", "tanh", "relu"})],
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

OF_CLASSIFIERS = {"class_weight": [None, dict, list, StrOptions({"balanced"})]}
OF_REGRESSORS = {
    "loss": [StrOptions({"squared_error", "poisson"})],
    "tau": [None, StrOptions({"fit"})],
}


def check_lbfgs(rates, max_norm):
    """Refuse what the solver "lbfgs" cannot do.

    Raises
    ------
    ValueError
        For a dropout rate that is not 0, or a bound on norms.
    """
    if any(rates):
        raise ValueError(
            "solver='lbfgs' needs dropout=0 and input_dropout=0: it compares the losses of its "
            f"evaluations, and masks make each another function; got rates {rates}. "
            "Use solver='adam' or solver='sgd' with dropout"
        )
    if max_norm is not None:
        raise ValueError(
            f"solver='lbfgs' needs max_norm=None, got {max_norm}: it moves all weights at once. "
            "Use solver='adam' or solver='sgd', or alpha against large weights"
        )


def check_loss(loss):
    """Say what was probably meant where the sizes of the layers came to be the regressor's loss.

    Raises
    ------
    ValueError
        For anything but a str.
    """
    if not isinstance(loss, str):
        raise ValueError(
            "The 'loss' parameter of MLPRegressor must be a str among {'poisson', "
            f"'squared_error'}}. Got {loss!r} instead. loss is the first parameter, as in "
            f"scikit-learn: write MLPRegressor(hidden_layer_sizes={loss!r}) for the layers' sizes"
        )


def layer_sizes(hidden_layer_sizes):
    """Return the units of the hidden layers as a list of ints.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int

    Raises
    ------
    ValueError
        If one is no int, or below 1.
    """
    given = hidden_layer_sizes
    sizes = list(given) if hasattr(given, "__iter__") else [given]
    for size in sizes:
        if not isinstance(size, Integral) or isinstance(size, bool):
            raise ValueError(f"hidden_layer_sizes must be ints, got {sizes}")
        if size <= 0:
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}")
    return [int(size) for size in sizes]


def dropout_rates(dropout, layers):
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
        if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= rate <= 1:
            raise ValueError(f"dropout must have rates in [0, 1], got {rate!r} in {rates}")
    return [rate if callable(rate) else float(rate) for rate in rates]


def wanted_dtypes(dtype):
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
