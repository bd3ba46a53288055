"""What both estimators share: parameters, fit, the network and what is kept of it."""

import numpy
from scipy import sparse
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastdrop.estimators.compatibility import check_weights, validate_data
from fastdrop.estimators.constraints import (
    CONSTRAINTS,
    check_solver,
    dropout_rates,
    layer_sizes,
    wanted_dtype,
)
from fastdrop.estimators.network import build, dense_layers, draw_weights, mask_seed
from fastdrop.estimators.objective import output
from fastdrop.estimators.rows import Rows, evaluate
from fastdrop.estimators.solver import Solver
from fastdrop.estimators.training import Examples, train
from fastdrop.estimators.uncertainty import Uncertainty
from fastdrop.nn import Dropout
from fastdrop.stream import MaskStream

__all__ = ["MultilayerPerceptron"]


class MultilayerPerceptron(Uncertainty, BaseEstimator):
    """Base of `MLPClassifier` and `MLPRegressor`.

    A subclass defines `_prepare`, which learns from y what it has to, `_targets`, what the network
    learns, `_outputs`, `_activation_of_output`, `_stratified`, `_validation_score` and `_shown`.

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

    # --- Fit -----------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit the model to data.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n_samples, n_features)
            Sparse data becomes dense one batch at a time.
        y : array_like, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array_like, shape (n_samples,), optional

        Returns
        -------
        object
            The estimator itself.

        Raises
        ------
        ValueError
            For data or a parameter that cannot be, by name; if the training diverges.
        """
        return self._fit(X, y, sample_weight, single=False)

    def _validate_params(self):
        check_solver(self.solver)
        super()._validate_params()

    def _fit(self, X, y, sample_weight, single):
        sizes = layer_sizes(self.hidden_layer_sizes)
        rates = [float(self.input_dropout), *dropout_rates(self.dropout, len(sizes))]
        if single and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        fresh = not hasattr(self, "coefs_") or not (self.warm_start or single)
        X, y = self._checked(X, y, fresh)
        self._prepare(y, fresh, single)
        target = self._targets(y)
        if sample_weight is not None:
            sample_weight = check_weights(sample_weight, X)
        self._random_state = check_random_state(self.random_state)
        self.n_outputs_ = self._outputs(target)
        architecture = {
            "sizes": [X.shape[1], *sizes, self.n_outputs_],
            "activation": self.activation,
            "rates": rates,
            "rows_per_mask": self.rows_per_mask,
            "exact_count": bool(self.exact_count),
            "dtype": self._dtype_of(X, fresh),
        }
        if fresh:
            self._begin(architecture)
        else:
            self._continue(architecture)
        self._new_curves(fresh)
        if not single or not hasattr(self, "_solver"):
            self._solver = Solver(self._network, self.get_params(deep=False))
        dtype = self._network.dtype
        if target.dtype.kind != "i":
            target = numpy.ascontiguousarray(target, dtype)
        if sample_weight is not None:
            sample_weight = sample_weight.astype(dtype, copy=False)
        train(self, Examples(Rows(X, dtype), target, sample_weight), single)
        if not all(numpy.isfinite(p.value).all() for p in self._network.parameters()):
            raise ValueError(
                "Solver produced non-finite parameter weights: learning_rate_init may be too "
                "large, or the data be in need of scaling"
            )
        return self

    def _dtype_of(self, X, fresh):
        if self.dtype is not None:
            return numpy.dtype(self.dtype)
        return numpy.dtype(X.dtype) if fresh else self._network.dtype

    def _begin(self, architecture):
        """Make a new network with new weights."""
        self._seed = mask_seed(self._random_state)
        self._architecture = architecture
        self._network = build(**architecture, seed=self._seed)
        draw_weights(self._network, self.activation, self._random_state)
        self._show_weights()
        self.n_layers_ = len(architecture["sizes"])
        self.out_activation_ = self._activation_of_output()
        self.t_ = 0

    def _continue(self, architecture):
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
        position = max((stream.position for stream in self._streams()), default=0)
        weights = self.coefs_, self.intercepts_
        self._architecture = architecture
        self._network = build(**architecture, seed=self._seed)
        self._copy_weights(*weights)
        for stream in self._streams():
            stream.position = position
        if hasattr(self, "_solver"):
            del self._solver

    def _new_curves(self, fresh):
        """Begin what a fit tells, where there is none to go on with."""
        if fresh:
            self.loss_curve_ = []
            self._no_improvement_count = 0
            self._best_mean_loss = numpy.inf
            self.best_loss_ = self.best_validation_score_ = self.validation_scores_ = None
        if self.early_stopping and self.validation_scores_ is None:
            self.validation_scores_ = []
            self.best_validation_score_ = -numpy.inf
            self.best_loss_ = None
        elif not self.early_stopping and self.best_loss_ is None:
            self.best_loss_ = numpy.inf
            self.validation_scores_ = self.best_validation_score_ = None

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
        return [layer.stream for layer in self._network.layers if isinstance(layer, Dropout)]

    # --- Prediction ------------------------------------------------------------------------------

    def _checked(self, X, y="no_validation", reset=False):
        """X, and y if given, checked and converted as far as scikit-learn asks."""
        kwargs = {}
        if not (isinstance(y, str) and y == "no_validation"):
            kwargs = {"multi_output": True, "y_numeric": self._numeric}
        return validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            dtype=wanted_dtype(self.dtype),
            reset=reset,
            **kwargs,
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
        if "_network" in state:
            self._take_over_weights()
            state["_network"] = [stream.state for stream in self._streams()]
        if "_solver" in state:
            state["_solver"] = self._solver.state()
        return state

    def __setstate__(self, state):
        """Make network and solver again."""
        super().__setstate__(state)
        if "_network" not in state:
            return
        self._network = build(**self._architecture, seed=self._seed)
        self._copy_weights(self.coefs_, self.intercepts_)
        dropouts = [layer for layer in self._network.layers if isinstance(layer, Dropout)]
        for layer, stream in zip(dropouts, state["_network"], strict=True):
            layer.stream = MaskStream.from_state(stream)
        if "_solver" in state:
            self._solver = Solver.from_state(self._network, state["_solver"])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
