"""What both estimators share: the network's arrays, prediction, uncertainty, copies and files."""

import functools
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy
from scipy import sparse
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from fastdrop._version import __version__
from fastdrop.arguments import native
from fastdrop.callers import warn_caller
from fastdrop.estimators.examples import evaluate
from fastdrop.estimators.fitting import Fitting
from fastdrop.estimators.network import (
    as_random_state,
    build,
    dense_layers,
    dropout_layers,
    output,
)
from fastdrop.estimators.parameters import (
    Data,
    RandomState,
    Rate,
    dropout_rates,
    validate_data,
    wanted_dtypes,
)
from fastdrop.estimators.sampling import Posterior, log_densities, log_mean
from fastdrop.estimators.solvers import Solver
from fastdrop.stream import MaskStream
from fastdrop.types import Array

__all__ = ["MultilayerPerceptron"]

MOST_SAMPLES = 2**31 - 1


def _words(random_state: RandomState) -> list[int]:
    """A seed for masks from any random state."""
    words = as_random_state(random_state).randint(0, 2**32, 4, dtype=numpy.uint32)
    return [int(word) for word in words]


# A RandomState takes longer to make than ten samples of a row.
_seed_of = functools.lru_cache(maxsize=64)(_words)


def _shortest(rates: list[Rate]) -> str:
    """Rates of the hidden layers as one number if they are equal, otherwise as a list."""
    if rates and len(set(rates)) == 1:
        return str(rates[0]) if callable(rates[0]) else f"{rates[0]:g}"
    return str(rates)


class MultilayerPerceptron(Fitting):
    """Base of `MLPClassifier` and `MLPRegressor`.

    A subclass defines what `Fitting` asks for, and `_shown`, which makes of the
    outputs what `predict_samples` returns.
    """

    # --- The network's arrays --------------------------------------------------------------------

    def _show_weights(self) -> None:
        layers = dense_layers(self._network)
        self.coefs_ = [layer.weight for layer in layers]
        self.intercepts_ = [layer.bias for layer in layers]

    def _copy_weights(self, coefs: list[Array], intercepts: list[Array]) -> None:
        for layer, weight, bias in zip(dense_layers(self._network), coefs, intercepts, strict=True):
            layer.weight, layer.bias = weight, bias
        self._show_weights()

    def _take_over_weights(self) -> None:
        """Let the network use arrays that were put into `coefs_` or `intercepts_` since."""
        layers = dense_layers(self._network)
        same = all(
            mine is layer.weight and other is layer.bias
            for layer, mine, other in zip(layers, self.coefs_, self.intercepts_, strict=True)
        )
        if not same:
            self._copy_weights(self.coefs_, self.intercepts_)

    def _streams(self) -> list[MaskStream]:
        return [layer.stream for layer in dropout_layers(self._network)]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    # --- Prediction ------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any = "no_validation", reset: bool = False) -> Any:
        """X, and y if given, checked and converted as far as scikit-learn asks."""
        alone = isinstance(y, str) and y == "no_validation"
        if alone and not reset and self._needs_no_check(X):
            return X
        kwargs: dict[str, Any] = {} if alone else {"multi_output": True, "y_numeric": self._numeric}
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

    def _needs_no_check(self, X: Any) -> bool:
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

    def _raw(self, X: Data) -> Array:
        """Raw scores of checked or unchecked data, shape (n_samples, n_outputs)."""
        check_is_fitted(self)
        rows = self._checked(X)
        self._take_over_weights()
        return evaluate(self._network, rows.tocsr() if sparse.issparse(rows) else rows)

    def _output(self, raw: Array) -> Array:
        """Raw scores as probabilities or values, of the same shape."""
        return output(raw, self.out_activation_)

    # --- Monte Carlo dropout ----------------------------------------------------------------------

    def predict_samples(
        self, X: Data, n_samples: int = 100, random_state: RandomState = None
    ) -> Array:
        """Return predictions with units dropped: samples of the posterior [1]_.

        Each sample has one set of units, the same for all rows, whatever `rows_per_mask` is.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n_rows, n_features)
        n_samples : int, optional
        random_state : int, RandomState, Generator, MaskStream or None, optional
            Decides the masks: neither the number of rows nor that of the samples changes them. None
            takes entropy from the operating system with every call, so that forked processes do not
            repeat each other's masks; `numpy.random.seed` has no influence.

        Returns
        -------
        numpy.ndarray, shape (n_samples, ...)
            For each sample the result of `predict_proba` of the classifier or of `predict` of the
            regressor. Their mean is the prediction, their spread the uncertainty of the model.

        Warns
        -----
        UserWarning
            If the network was fitted without dropout, since all samples are equal then, or with
            other rates than those that have been set since.

        References
        ----------
        .. [1] Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model
           uncertainty in deep learning", ICML 2016, section 4.

        Examples
        --------
        >>> import numpy
        >>> from fastdrop import MLPRegressor
        >>> X = numpy.linspace(-1, 1, 100).reshape(-1, 1)
        >>> model = MLPRegressor(hidden_layer_sizes=32, dropout=0.1, random_state=0)
        >>> model.fit(X, X.ravel()).predict_samples(X[:5], n_samples=20, random_state=0).shape
        (20, 5)
        """
        check_is_fitted(self)
        rows = self._checked(X)
        samples = self._samples(rows, n_samples, random_state)
        outputs = self._shown(numpy.empty((0, self.n_outputs_))).shape[1:]
        result = numpy.empty((n_samples, rows.shape[0], *outputs), self._network.dtype)
        for numbers, places, raw in samples:
            shown = self._shown(self._output(raw.reshape(-1, self.n_outputs_)))
            result[numbers, places] = shown.reshape(*raw.shape[:2], *outputs)
        return result

    def _samples(
        self, X: Any, n_samples: int, random_state: RandomState
    ) -> Iterator[tuple[slice, slice, Array]]:
        """Raw scores of checked data, as `Posterior.samples` yields them."""
        if isinstance(n_samples, bool):
            raise TypeError(f"n_samples must be an int, got {n_samples}")
        check_scalar(n_samples, "n_samples", Integral, min_val=1, max_val=MOST_SAMPLES)
        self._take_over_weights()
        self._tell_rates()
        seed = None  # not NumPy's global state, which forked processes share
        if random_state is not None:
            seed = _seed_of(random_state) if isinstance(random_state, int) else _words(random_state)
        posterior = Posterior(self._network, seed)
        return posterior.samples(X.tocsr() if sparse.issparse(X) else X, n_samples)

    def _tell_rates(self) -> None:
        """Warn where the samples are not those that the parameters promise."""
        rates = self._architecture["rates"]
        text = f"input_dropout={_shortest(rates[:1])}, dropout={_shortest(rates[1:])}"
        wanted = dropout_rates([self.input_dropout], 1)
        wanted += dropout_rates(self.dropout, len(rates) - 1)
        if wanted != rates:
            warn_caller(
                f"the network was fitted with {text}, and has these rates until the next fit; set "
                f"since are input_dropout={_shortest(wanted[:1])}, dropout={_shortest(wanted[1:])}"
            )
        if not any(rates):
            warn_caller(f"the network was fitted with {text}: every sample is the same")

    def _log_likelihood(
        self,
        X: Any,
        target: Array,
        tau: float | None,
        n_samples: int,
        random_state: RandomState,
    ) -> Array:
        """Logarithm of the mean likelihood of each row of checked data, shape (n_rows,)."""
        if target.ndim == 2 and target.shape[1] != self.n_outputs_:
            raise ValueError(f"y must have {self.n_outputs_} outputs, got {target.shape[1]}")

        def densities(raw: Array, rows: slice) -> Array:
            return log_densities(raw, target[rows], self.out_activation_, tau)

        samples = self._samples(X, n_samples, random_state)
        return log_mean(samples, X.shape[0], densities)

    # --- Copies and files ------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
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

    def __setstate__(self, state: dict[str, Any]) -> None:
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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
