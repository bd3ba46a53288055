"""What both estimators share: parameters, fit, the network and what is kept of it."""

import numpy
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fastdrop._version import __version__
from fastdrop.arguments import native
from fastdrop.callers import warn_caller
from fastdrop.estimators.compatibility import validate_data
from fastdrop.estimators.constraints import CONSTRAINTS, wanted_dtypes
from fastdrop.estimators.fitting import Fitting
from fastdrop.estimators.network import build, dense_layers, dropout_layers
from fastdrop.estimators.objective import output
from fastdrop.estimators.rows import evaluate
from fastdrop.estimators.solver import Solver
from fastdrop.estimators.uncertainty import Uncertainty
from fastdrop.stream import MaskStream

__all__ = ["MultilayerPerceptron"]


class MultilayerPerceptron(Fitting, Uncertainty, BaseEstimator):
    """Base of `MLPClassifier` and `MLPRegressor`.

    A subclass defines what `Fitting` and `Uncertainty` ask for, and `_validation_score`.

    Attributes
    ----------
    _network : nn.Sequential
        Trained; its last Dense gives raw scores, of which `_output` makes probabilities or values.
        `coefs_` and `intercepts_` are its arrays themselves.
    """

    _parameter_constraints = CONSTRAINTS

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        dropout=0.0,
        input_dropout=0.0,
        rows_per_mask=1,
        exact_count=False,
        max_norm=None,
        dtype=None,
        scoring=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.rows_per_mask = rows_per_mask
        self.exact_count = exact_count
        self.max_norm = max_norm
        self.dtype = dtype
        self.scoring = scoring

    # --- The network's arrays --------------------------------------------------------------------

    def _show_weights(self):
        layers = dense_layers(self._network)
        self.coefs_ = [layer.weight for layer in layers]
        self.intercepts_ = [layer.bias for layer in layers]

    def _copy_weights(self, coefs, intercepts):
        for layer, weight, bias in zip(dense_layers(self._network), coefs, intercepts, strict=True):
            layer.weight, layer.bias = weight, bias
        self._show_weights()

    def _take_over_weights(self):
        """Let the network use arrays that were put into `coefs_` or `intercepts_` since."""
        layers = dense_layers(self._network)
        same = all(
            mine is layer.weight and other is layer.bias
            for layer, mine, other in zip(layers, self.coefs_, self.intercepts_, strict=True)
        )
        if not same:
            self._copy_weights(self.coefs_, self.intercepts_)

    def _streams(self):
        return [layer.stream for layer in dropout_layers(self._network)]

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_network")

    # --- Prediction ------------------------------------------------------------------------------

    def _checked(self, X, y="no_validation", reset=False):
        """X, and y if given, checked and converted as far as scikit-learn asks."""
        alone = isinstance(y, str) and y == "no_validation"
        if alone and not reset and self._needs_no_check(X):
            return X
        kwargs = {} if alone else {"multi_output": True, "y_numeric": self._numeric}
        if isinstance(X, numpy.ndarray) or sparse.issparse(X):
            X = native(X)  # scikit-learn would make float64 of float32 in the other byte order
        return validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            dtype=wanted_dtypes(self.dtype),
            reset=reset,
            **kwargs,
        )

    def _needs_no_check(self, X):
        """Whether scikit-learn's check, which takes longer than a row's prediction, returns X."""
        return (
            type(X) is numpy.ndarray
            and X.ndim == 2
            and X.shape[0] > 0
            and X.shape[1] == getattr(self, "n_features_in_", None)
            and not hasattr(self, "feature_names_in_")
            and X.dtype.isnative
            and X.dtype in wanted_dtypes(self.dtype)
            and bool(numpy.isfinite(X).all())
        )

    def _raw(self, X):
        """Raw scores of checked or unchecked data, shape (n_samples, n_outputs)."""
        check_is_fitted(self)
        X = self._checked(X)
        self._take_over_weights()
        return evaluate(self._network, X.tocsr() if sparse.issparse(X) else X)

    def _output(self, raw):
        """Raw scores as probabilities or values, of the same shape."""
        return output(raw, self.out_activation_)

    # --- Copies and files ------------------------------------------------------------------------

    def __getstate__(self):
        """The estimator without work arrays: what its network and solver need to be made again."""
        state = dict(super().__getstate__())
        state["_fastdrop_version"] = __version__
        state.pop("_spare", None)
        if "_network" in state:
            self._take_over_weights()
            state["_network"] = [stream.state for stream in self._streams()]
        if "_solver" in state:
            state["_solver"] = self._solver.state()
        return state

    def __setstate__(self, state):
        """Make network and solver again."""
        state = dict(state)
        version = state.pop("_fastdrop_version", "before 0.1.0")
        if version != __version__:
            warn_caller(
                f"this {type(self).__name__} was pickled by fastdrop {version} and is loaded by "
                f"{__version__}: it may not work as it did, fit it again if so"
            )
        super().__setstate__(state)
        if "_network" not in state:
            return
        self._network = build(**self._architecture, seed=self._seed)
        self._copy_weights(self.coefs_, self.intercepts_)
        for layer, stream in zip(dropout_layers(self._network), state["_network"], strict=True):
            layer.stream = MaskStream.from_state(stream)
        if "_solver" in state:
            self._solver = Solver.from_state(self._network, state["_solver"])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
