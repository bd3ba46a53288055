"""What both estimators say of their uncertainty."""

import functools
from numbers import Integral

import numpy
from scipy import sparse
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from fastdrop.callers import warn_caller
from fastdrop.estimators.constraints import dropout_rates
from fastdrop.estimators.network import as_random_state
from fastdrop.estimators.sampling import Posterior, log_densities, log_mean

__all__ = ["Uncertainty"]

MOST_SAMPLES = 2**31 - 1


def _words(random_state):
    """A seed for masks from any random state."""
    words = as_random_state(random_state).randint(0, 2**32, 4, dtype=numpy.uint32)
    return [int(word) for word in words]


# A RandomState takes longer to make than ten samples of a row.
_seed_of = functools.lru_cache(maxsize=64)(_words)


def _shortest(rates):
    """Rates of the hidden layers as one number if they are equal, otherwise as a list."""
    if rates and len(set(rates)) == 1:
        return str(rates[0]) if callable(rates[0]) else f"{rates[0]:g}"
    return str(rates)


class Uncertainty:
    """Monte Carlo dropout of a fitted `MultilayerPerceptron`, of which this is a part.

    A subclass defines `_shown`, which makes what the estimator returns of its outputs.
    """

    def predict_samples(self, X, n_samples=100, random_state=None):
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
        X = self._checked(X)
        samples = self._samples(X, n_samples, random_state)
        outputs = self._shown(numpy.empty((0, self.n_outputs_))).shape[1:]
        result = numpy.empty((n_samples, X.shape[0], *outputs), self._network.dtype)
        for numbers, rows, raw in samples:
            shown = self._shown(self._output(raw.reshape(-1, self.n_outputs_)))
            result[numbers, rows] = shown.reshape(*raw.shape[:2], *outputs)
        return result

    def _samples(self, X, n_samples, random_state):
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

    def _tell_rates(self):
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

    def _log_likelihood(self, X, target, tau, n_samples, random_state):
        """Logarithm of the mean likelihood of each row of checked data, shape (n_rows,)."""
        if target.ndim == 2 and target.shape[1] != self.n_outputs_:
            raise ValueError(f"y must have {self.n_outputs_} outputs, got {target.shape[1]}")

        def densities(raw, rows):
            return log_densities(raw, target[rows], self.out_activation_, tau)

        samples = self._samples(X, n_samples, random_state)
        return log_mean(samples, X.shape[0], densities)
