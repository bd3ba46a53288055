"""The regressor."""

from numbers import Real

import numpy
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_scalar, column_or_1d
from sklearn.utils.validation import check_is_fitted

from fastdrop.callers import warn_caller
from fastdrop.estimators.base import MultilayerPerceptron
from fastdrop.estimators.constraints import CONSTRAINTS, OF_REGRESSORS, check_loss
from fastdrop.estimators.network import mask_seed
from fastdrop.estimators.sampling import Posterior, best_precision, moments

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
    n_iter_no_change, max_fun, dropout, input_dropout, rows_per_mask, exact_count, max_norm, \
    dtype, scoring
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

    _parameter_constraints = CONSTRAINTS | OF_REGRESSORS
    _numeric = True

    def __init__(
        self,
        loss="squared_error",
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
        tau=None,
    ):
        self.loss = loss
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            dropout=dropout,
            input_dropout=input_dropout,
            rows_per_mask=rows_per_mask,
            exact_count=exact_count,
            max_norm=max_norm,
            dtype=dtype,
            scoring=scoring,
        )
        self.tau = tau

    def _validate_params(self):
        check_loss(self.loss)
        super()._validate_params()

    def _prepare(self, y, fresh, single):
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

    def _check_targets(self, y):
        """All values can be learnt that `_targets` lets pass."""

    def _targets(self, y):
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson" and (y < 0).any():
            raise ValueError(
                f"loss='poisson' needs values of `y` that are at least 0, got {y.min()}"
            )
        return numpy.asarray(y.reshape(len(y), -1), numpy.float64)

    def _outputs(self, target):
        return target.shape[1]

    def _activation_of_output(self):
        return "exp" if self.loss == "poisson" else "identity"

    def _stratified(self):
        return False

    def _validation_score(self, raw, target, weights):
        """The coefficient of determination, or NaN where a prediction overflows."""
        values = self._output(raw)
        if not numpy.isfinite(values).all():
            return numpy.nan
        return float(r2_score(target, values, sample_weight=weights))

    def _check_parameters(self, rates, validation, single):
        super()._check_parameters(rates, validation, single)
        if self.tau == "fit" and self.loss == "poisson":
            raise ValueError(NO_NOISE)
        if self.tau == "fit" and single:
            raise ValueError("partial_fit does not support tau='fit': it holds no examples out")

    def _holds_out(self):
        return super()._holds_out() or self.tau == "fit"

    def _look_back(self, held_out):
        """Choose the precision under which the examples that were held out are the most likely."""
        vars(self).pop("tau_", None)
        if self.tau == "fit":
            held_out = held_out.part(MOST_ROWS)
            posterior = Posterior(self._network, mask_seed(self._random_state))
            samples = posterior.samples(held_out.features(), n_samples=100)
            self.tau_ = best_precision(samples, *held_out.targets())

    def predict(self, X, return_std=False, n_samples=100, random_state=None, tau=None):
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
        X = self._checked(X)
        if n_samples == 1:
            warn_caller("n_samples=1 has no spread: std is 0, but for tau")
        samples = self._samples(X, n_samples, random_state)
        mean, variance = moments(samples, (X.shape[0], self.n_outputs_), self._output)
        dtype = self._network.dtype
        std = numpy.sqrt(variance + noise)
        return self._shown(mean).astype(dtype), self._shown(std).astype(dtype)

    def _precision(self, tau):
        if self.out_activation_ == "exp":
            raise ValueError(NO_NOISE)
        if isinstance(tau, str) and tau == "fit":
            if not hasattr(self, "tau_"):
                raise ValueError("tau='fit' needs a fit with the parameter tau='fit', got none")
            return self.tau_
        return check_scalar(tau, "tau", Real, min_val=0, include_boundaries="neither")

    def predictive_log_likelihood(self, X, y, tau=None, n_samples=100, random_state=None):
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
        X, y = self._checked(X, y)
        return self._log_likelihood(X, self._targets(y), tau, n_samples, random_state)

    def _shown(self, values):
        """Values (n_samples, n_outputs), without the axis of a single output."""
        return values.ravel() if values.shape[1] == 1 else values
