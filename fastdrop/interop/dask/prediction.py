"""Lazy predictions of a fitted estimator, block by block."""

import copy

import dask
import dask.array as da
import numpy

from fastdrop.callers import warned_before
from fastdrop.interop.dask.blocks import table

__all__ = ["predict", "predict_proba", "predict_samples"]


def predict(model, X, *, return_std=False, n_samples=100, random_state=None, tau=None):
    """Return the predictions of a fitted model for each row of a dask array, lazily.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        Copied now: later training changes no prediction.
    X : dask.array.Array, shape (n_samples, n_features)
        With known chunk sizes. Cut rows are joined.
    return_std : bool, optional
        Of a regressor: also return the standard deviation over samples with units dropped. Compute
        both by one ``dask.compute(values, std)``: apart, they are computed twice.
    n_samples, tau : optional
        As of `MLPRegressor.predict`.
    random_state : optional
        Decides the masks, which are the same for all blocks; an int gives those that it gives the
        model's own method. From anything else a seed is drawn now.

    Returns
    -------
    values : dask.array.Array, shape (n_samples,) or (n_samples, n_outputs)
        In the chunks of rows of X.
    std : dask.array.Array, shape of `values`
        With `return_std`.

    Raises
    ------
    TypeError
        If `X` is no dask array, or the model has no deviations to return.
    ValueError
        If `X` does not fit the model, or chunk sizes are unknown; scikit-learn's NotFittedError.

    Examples
    --------
    >>> import dask, dask.array as da, numpy, fastdrop, fastdrop.dask
    >>> x = numpy.linspace(-1, 1, 100).reshape(-1, 1)
    >>> model = fastdrop.MLPRegressor(hidden_layer_sizes=32, dropout=0.1, random_state=0)
    >>> model = model.fit(x, x.ravel())
    >>> X = da.linspace(-1, 1, 10**6, chunks=10**5).reshape(-1, 1)
    >>> values, std = fastdrop.dask.predict(model, X, return_std=True, random_state=0)
    >>> values.shape, std.chunksize
    ((1000000,), (100000,))
    >>> values[:5].compute().shape
    (5,)
    """
    if not return_std:
        return _lazy(model, "predict", X, {})
    options = {"return_std": True, "n_samples": n_samples, "tau": tau}
    options["random_state"] = _seed(random_state)
    both = _lazy(model, "predict", X, options, rows_axis=1)
    return both[0], both[1]


def predict_proba(model, X):
    """Return the probability of every class for each row of a dask array, lazily.

    Parameters
    ----------
    model : MLPClassifier
        Copied now.
    X : dask.array.Array, shape (n_samples, n_features)

    Returns
    -------
    dask.array.Array, shape (n_samples, n_classes)
        In the chunks of rows of X.

    Raises
    ------
    TypeError, ValueError
        As `predict`.

    Examples
    --------
    >>> import dask.array as da, numpy, fastdrop, fastdrop.dask
    >>> x = numpy.random.default_rng(0).standard_normal((200, 2))
    >>> model = fastdrop.MLPClassifier(16, max_iter=500, random_state=0).fit(x, x[:, 0] > 0)
    >>> fastdrop.dask.predict_proba(model, da.ones((10**6, 2), chunks=(10**5, 2))).shape
    (1000000, 2)
    """
    return _lazy(model, "predict_proba", X, {})


def predict_samples(model, X, n_samples=100, random_state=None):
    """Return predictions with units dropped, samples of the posterior, lazily.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        Copied now.
    X : dask.array.Array, shape (n_samples, n_features)
    n_samples : int, optional
        All samples of a block are in memory at once: with many, take smaller chunks of rows.
    random_state : optional
        As of `predict`: the same units are dropped for all rows of a sample, in all blocks.

    Returns
    -------
    dask.array.Array, shape (n_samples, n_rows, ...)
        As of the model's own method, in the chunks of rows of X.

    Raises
    ------
    TypeError, ValueError
        As `predict`.

    Examples
    --------
    >>> import dask.array as da, numpy, fastdrop, fastdrop.dask
    >>> x = numpy.linspace(-1, 1, 100).reshape(-1, 1)
    >>> model = fastdrop.MLPRegressor(hidden_layer_sizes=32, dropout=0.1, random_state=0)
    >>> model = model.fit(x, x.ravel())
    >>> X = da.from_array(x, chunks=(25, 1))
    >>> samples = fastdrop.dask.predict_samples(model, X, n_samples=20, random_state=0)
    >>> samples.shape, samples.chunks[1]
    ((20, 100), (25, 25, 25, 25))
    """
    options = {"n_samples": n_samples, "random_state": _seed(random_state)}
    return _lazy(model, "predict_samples", X, options, rows_axis=1)


def _seed(random_state):
    """A seed that every block can use: an int as it is."""
    from fastdrop.estimators.network import as_random_state

    if isinstance(random_state, int | numpy.integer):
        return int(random_state)
    return int(as_random_state(random_state).randint(2**31 - 1))


def _lazy(model, method, X, options, rows_axis=0):
    """Call a method of the model on every block of rows, and join its results along `rows_axis`.

    The method's own checks come first: a call on a row of zeros, which tells shape and dtype, and
    of which the method warns. Blocks do not repeat that.
    """
    if not hasattr(model, method):
        raise TypeError(f"model must have {method}, {type(model).__name__} has not")
    X = table(X)
    row = numpy.zeros((1, X.shape[1]), X.dtype)
    probe = _called(row, model=model, method=method, options=options, rows_axis=rows_axis)
    index, new = ("i", {}) if rows_axis == 0 else ("si", {"s": probe.shape[0]})
    if probe.ndim > len(index):
        index, new["k"] = index + "k", probe.shape[-1]
    model = copy.deepcopy(model)
    vars(model).pop("feature_names_in_", None)  # arrays have no names: the call above warned
    return da.blockwise(
        _called_on_block,
        index,
        X,
        "ij",
        new_axes=new,
        concatenate=True,
        dtype=probe.dtype,
        meta=numpy.empty((0,) * probe.ndim, probe.dtype),
        token=f"fastdrop-{method.replace('_', '-')}",
        model=dask.delayed(model, traverse=False),
        method=method,
        options=options,
        rows_axis=rows_axis,
    )


def _called_on_block(block, **given):
    with warned_before():
        return _called(block, **given)


def _called(block, *, model, method, options, rows_axis):
    if len(block):
        return numpy.asarray(getattr(model, method)(block, **options))
    # The estimators refuse no rows: those of one row are left out.
    row = numpy.zeros((1, block.shape[1]), block.dtype)
    result = _called(row, model=model, method=method, options=options, rows_axis=rows_axis)
    return numpy.delete(result, 0, axis=rows_axis)
