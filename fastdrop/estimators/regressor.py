"""The regressor."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Literal, overload

import numpy
from numpy.typing import ArrayLike, DTypeLike
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_scalar, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from fastdrop.callers import warn_caller
from fastdrop.estimators import parameters
from fastdrop.estimators.base import MultilayerPerceptron
from fastdrop.estimators.examples import Examples
from fastdrop.estimators.network import mask_seed
from fastdrop.estimators.sampling import Posterior, best_precision, moments
from fastdrop.types import Array, RowsPerMask

__all__ = ["MLPRegressor"]

NO_NOISE = "tau is the precision of Gaussian noise; loss='poisson' has none"
# Held-out examples by which a precision is chosen, at most.
MOST_ROWS = 2000


class MLPRegressor(RegressorMixin, MultilayerPerceptron):
    """scikit-learn's `MLPRegressor`, with dropout and a faster fit.

    Parameters, attributes and methods have the names, the meaning and the defaults that they have
    there, and without dropout the same `random_state` gives the same weights, but for rounding.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, optional
        Half the squared error, or half the Poisson deviance with the exponential as the activation
        of the output, for `y` that are at least 0.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, \
    power_t, max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, \
    nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, epsilon, \
    n_iter_no_change, max_fun, dropout, input_dropout, dropout_kind, rows_per_mask, exact_count, \
    max_norm, dtype, scoring
        As for `MLPClassifier`; `scoring` None is the coefficient of determination.
    tau : {None, "fit"}, optional
        "fit": estimate the precision of the noise on the examples that are held out, those of early
        stopping or otherwise `validation_fraction` of the data.

    Attributes
    ----------
    coefs_, intercepts_, loss_, best_loss_, loss_curve_, best_validation_score_, n_iter_, t_, \
    n_layers_, n_outputs_, n_features_in_, feature_names_in_
        As those of `MLPClassifier`.
    validation_scores_ : list of float or None
        R², or the score of `scoring`, after each epoch, with early stopping.
    out_activation_ : {"identity", "exp"}
    tau_ : float
        Precision of the noise, with ``tau="fit"``: that under which 100 samples of the network make
        the held-out examples the most likely ([1]_, section 4).

    Raises
    ------
    ImportError
        If scikit-learn is not installed, with the line that installs it.

    References
    ----------
    .. [1] Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model
       uncertainty in deep learning", ICML 2016.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import MLPRegressor
    >>> X = numpy.linspace(-1, 1, 200).reshape(-1, 1)
    >>> y = 3 * X.ravel() + 1
    >>> model = MLPRegressor(hidden_layer_sizes=64, dropout=0.1, max_iter=500, random_state=0)
    >>> model.fit(X, y).predict(X).shape
    (200,)
    >>> model.score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **parameters.Parameters._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
        "tau": [None, StrOptions({"fit"})],
    }
    _numeric = True
    loss: Literal["squared_error", "poisson"]
    tau: Literal["fit"] | None
    tau_: float

    def __init__(
        self,
        loss: Literal["squared_error", "poisson"] = "squared_error",
        hidden_layer_sizes: parameters.Sizes = (100,),
        activation: parameters.Activation = "relu",
        *,
        solver: parameters.SolverName = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: parameters.LearningRate = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: parameters.RandomState = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: parameters.Rate | Sequence[parameters.Rate] | Array = 0.0,
        input_dropout: parameters.Rate = 0.0,
        dropout_kind: parameters.DropoutKind = "bernoulli",
        rows_per_mask: RowsPerMask = 1,
        exact_count: bool = False,
        max_norm: float | None = None,
        dtype: DTypeLike | None = None,
        scoring: parameters.Scoring = None,
        tau: Literal["fit"] | None = None,
    ) -> None:
        self._keep(locals())

    def _validate_params(self) -> None:
        loss: Any = self.loss
        if not isinstance(loss, str):
            raise ValueError(
                "The 'loss' parameter of MLPRegressor must be a str among {'poisson', "
                f"'squared_error'}}. Got {loss!r} instead. loss is the first parameter, as in "
                f"scikit-learn: write MLPRegressor(hidden_layer_sizes={loss!r}) for the layers' "
                "sizes"
            )
        super()._validate_params()

    def _prepare(self, y: Array, fresh: bool, single: bool) -> None:
        """Check that the network goes on with the output that it was trained with."""
        if not fresh and getattr(self, "out_activation_", None) not in (
            None,
            self._activation_of_output(),
        ):
            before = "poisson" if self.out_activation_ == "exp" else "squared_error"
            raise ValueError(
                f"loss must stay as it was for warm_start and partial_fit: got {self.loss!r} "
                f"after {before!r}, whose network has another output"
            )

    def _check_targets(self, y: Array) -> None:
        """All values can be learnt that `_targets` lets pass."""

    def _targets(self, y: Array) -> Array:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson" and (y < 0).any():
            raise ValueError(
                f"loss='poisson' needs values of `y` that are at least 0, got {y.min()}"
            )
        return numpy.asarray(y.reshape(len(y), -1), numpy.float64)

    def _outputs(self, target: Array) -> int:
        return int(target.shape[1])

    def _activation_of_output(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _stratified(self) -> bool:
        return False

    def _validation_score(self, raw: Array, target: Array, weights: Array | None) -> float:
        """The coefficient of determination, or NaN where a prediction overflows."""
        values = self._output(raw)
        if not numpy.isfinite(values).all():
            return numpy.nan
        return float(r2_score(target, values, sample_weight=weights))

    def _check_parameters(
        self, rates: list[parameters.Rate], validation: dict[str, Any], single: bool
    ) -> None:
        super()._check_parameters(rates, validation, single)
        if self.tau == "fit" and self.loss == "poisson":
            raise ValueError(NO_NOISE)
        if self.tau == "fit" and single:
            raise ValueError("partial_fit does not support tau='fit': it holds no examples out")

    def _holds_out(self) -> bool:
        return super()._holds_out() or self.tau == "fit"

    def _look_back(self, held_out: Examples | None) -> None:
        """Choose the precision under which the examples that were held out are the most likely."""
        self.__dict__.pop("tau_", None)
        if held_out is not None and self.tau == "fit":
            held_out = held_out.part(MOST_ROWS)
            posterior = Posterior(self._network, mask_seed(self._random_state))
            samples = posterior.samples(held_out.features(), n_samples=100)
            self.tau_ = best_precision(samples, *held_out.targets())

    @overload
    def predict(
        self,
        X: parameters.Data,
        return_std: Literal[False] = False,
        n_samples: int = 100,
        random_state: parameters.RandomState = None,
        tau: float | Literal["fit"] | None = None,
    ) -> Array: ...

    @overload
    def predict(
        self,
        X: parameters.Data,
        return_std: Literal[True],
        n_samples: int = 100,
        random_state: parameters.RandomState = None,
        tau: float | Literal["fit"] | None = None,
    ) -> tuple[Array, Array]: ...

    def predict(
        self,
        X: parameters.Data,
        return_std: bool = False,
        n_samples: int = 100,
        random_state: parameters.RandomState = None,
        tau: float | Literal["fit"] | None = None,
    ) -> Array | tuple[Array, Array]:
        """Return the value of each row, and how uncertain it is if wanted.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n_samples, n_features)
        return_std : bool, optional
            Return mean and standard deviation over samples with units dropped, as
            `predict_samples` makes them; they are not kept. Otherwise every unit takes part, once.
        n_samples, random_state
            As for `predict_samples`; without `return_std` they do nothing.
        tau : float or "fit", optional
            Precision of the noise [1]_: its variance ``1 / tau`` adds to that of the samples, and
            the deviation is that of an observation. "fit" is `tau_`. Without one, the deviation is
            that of the model alone, and intervals made of it hold too few observations.

        Returns
        -------
        values : numpy.ndarray, shape (n_samples,) or (n_samples, n_outputs)
        std : numpy.ndarray, shape of `values`
            With `return_std`.

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
        >>> model.fit(X, X.ravel())
        MLPRegressor(dropout=0.1, hidden_layer_sizes=32, random_state=0)
        >>> mean, std = model.predict([[0.5], [3.0]], return_std=True, random_state=0)
        >>> (std[1] > std[0]).item()
        True
        """
        if not return_std:
            return self._shown(self._output(self._raw(X)))
        check_is_fitted(self)
        noise = 0.0 if tau is None else 1 / self._precision(tau)
        rows = self._checked(X)
        if n_samples == 1:
            warn_caller("n_samples=1 has no spread: std is 0, but for tau")
        samples = self._samples(rows, n_samples, random_state)
        mean, variance = moments(samples, (rows.shape[0], self.n_outputs_), self._output)
        dtype = self._network.dtype
        std = numpy.sqrt(variance + noise)
        return self._shown(mean).astype(dtype), self._shown(std).astype(dtype)

    def _precision(self, tau: float | Literal["fit"] | None) -> float:
        if self.out_activation_ == "exp":
            raise ValueError(NO_NOISE)
        if isinstance(tau, str) and tau == "fit":
            if not hasattr(self, "tau_"):
                raise ValueError("tau='fit' needs a fit with the parameter tau='fit', got none")
            return self.tau_
        return float(check_scalar(tau, "tau", Real, min_val=0, include_boundaries="neither"))

    def predictive_log_likelihood(
        self,
        X: parameters.Data,
        y: ArrayLike,
        tau: float | Literal["fit"] | None = None,
        n_samples: int = 100,
        random_state: parameters.RandomState = None,
    ) -> Array:
        """Return the logarithm of each row's likelihood, averaged over samples of the posterior.

        With S samples f_s of D outputs, equation 8 of the paper [1]_'s appendix::

            log(mean over s of exp(-tau / 2 * |y - f_s|**2)) - D / 2 * log(2 * pi / tau)

        With ``loss="poisson"`` the likelihood of a sample is that of Poisson counts.

        Parameters
        ----------
        X, n_samples, random_state
            As for `predict_samples`.
        y : array_like, shape (n_rows,) or (n_rows, n_outputs)
        tau : float or "fit"
            Precision of the noise, in the units of `y`: choose the best on held-out data, as the
            paper does, and as `tau_` was, which "fit" is. None with ``loss="poisson"``.

        Returns
        -------
        numpy.ndarray of float64, shape (n_rows,)
            Greater is better; the paper reports the mean.

        Raises
        ------
        TypeError, ValueError
            Without a `tau` greater than 0, or with one where there is no Gaussian noise.

        References
        ----------
        .. [1] Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model
           uncertainty in deep learning", ICML 2016, section 4.
        """
        check_is_fitted(self)
        if tau is not None or self.out_activation_ == "identity":
            tau = self._precision(tau)
        rows, values = self._checked(X, y)
        target = self._targets(values)
        return self._log_likelihood(rows, target, tau, n_samples, random_state)

    def _shown(self, values: Array) -> Array:
        """Values (n_samples, n_outputs), without the axis of a single output."""
        return values.ravel() if values.shape[1] == 1 else values
