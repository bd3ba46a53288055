"""Fitting an estimator to more data than memory holds."""

import contextlib

import numpy

from fastdrop.arguments import integer
from fastdrop.callers import warn_caller
from fastdrop.interop.dask.blocks import row_blocks, stream, table

__all__ = ["fit"]


def fit(model, X, y, *, sample_weight=None, classes=None, epochs=1, shuffle_blocks=True):
    """Fit an estimator to dask arrays, one block of rows after the other.

    Every block goes through the model's `partial_fit`, which shuffles the rows inside and trains
    in batches, while dask's scheduler computes the next block: two blocks are in memory, and the
    arrays from which dask computes one.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        Or another estimator that has `partial_fit`. It starts with new weights, unless it has
        ``warm_start=True``.
    X : dask.array.Array, shape (n_samples, n_features)
        In chunks of rows, with known sizes; a chunk should hold many batches. Cut rows are joined.
    y : dask.array.Array or array_like, shape (n_samples,) or (n_samples, n_outputs)
        In any chunks; they become those of the rows of X.
    sample_weight : dask.array.Array or array_like, shape (n_samples,), optional
    classes : array_like, shape (n_classes,), optional
        All classes, of a classifier only. Without it, y is read once before to find them.
    epochs : int, optional
        Passes over the data; the model's `max_iter` and `tol` do nothing.
    shuffle_blocks : bool, optional
        Take the blocks in another order in every epoch, one chosen by the model's `random_state`;
        False: as they are stored. With ``model.shuffle=False`` nothing is shuffled at all.

    Returns
    -------
    object
        The model. Its `loss_curve_` has one value for each epoch, the mean over the rows, and
        `n_iter_` is the number of epochs.

    Raises
    ------
    TypeError
        If `X` is no dask array, `model` has no `partial_fit`, or `classes` are given for a model
        that is no classifier.
    ValueError
        Before anything is read: for unknown chunk sizes, shapes that do not fit, `epochs` below 1,
        ``solver="lbfgs"``, ``early_stopping=True``. For data that the model does not take; a note
        says in which block.
    KeyboardInterrupt
        When the user interrupts it before anything is learnt.

    Warns
    -----
    UserWarning
        When the user interrupts it later: the model keeps the weights trained so far.

    Notes
    -----
    After an error or an interrupt the model keeps the training on earlier blocks; an epoch that was
    not finished counts in `t_`, but not in `n_iter_` and `loss_curve_`. If nothing was
    learnt, the model is as it was before the call, fitted if it was fitted.

    The same `random_state`, data and chunks give the same model bit for bit, with any scheduler and
    number of workers. Other chunks give other batches, and so another model.

    Examples
    --------
    >>> import dask.array as da, fastdrop, fastdrop.dask
    >>> X = da.random.default_rng(0).standard_normal((2000, 4), chunks=(500, 4))
    >>> y = X[:, 0] > X[:, 1]
    >>> model = fastdrop.MLPClassifier((32,), dropout=0.1, random_state=0)
    >>> fastdrop.dask.fit(model, X, y, epochs=5).n_iter_
    5
    >>> float((fastdrop.dask.predict(model, X) == y).mean()) > 0.9
    True
    """
    _check_model(model, classes)
    epochs = integer(epochs, "epochs")
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    X = table(X)
    arrays = [X, row_blocks(y, "y", X, most_axes=2)]
    if sample_weight is not None:
        arrays.append(row_blocks(sample_weight, "sample_weight", X))
    if not X.shape[0]:
        raise ValueError(f"X must have at least one row, got shape {X.shape}")
    parameters = model.get_params(deep=False)
    fresh = not (parameters.get("warm_start", False) and hasattr(model, "n_features_in_"))
    numbers = numpy.flatnonzero(X.chunks[0])  # blocks without rows are left out
    if not fresh:
        classes = None
    elif classes is None and _is_classifier(model):
        classes = _classes(arrays[1], numbers)
    with _as_before_unless_taught(model) as taught, _settings(model, parameters) as state:
        if fresh:
            for name in set(vars(model)) - set(parameters):
                delattr(model, name)
        shuffled = shuffle_blocks and parameters.get("shuffle", True) and len(numbers) > 1
        orders = (state.permutation(numbers) if shuffled else numbers for _ in range(epochs))
        dtype = numpy.dtype(parameters.get("dtype") or X.dtype)
        shown = _progress(parameters.get("verbose", 0), epochs * len(numbers), dtype)
        with contextlib.closing(shown) as progress:
            _train(model, arrays, orders, classes, progress, taught)
    return model


def _check_model(model, classes):
    """Refuse models that do not learn block by block, and classes for those that have none."""
    if getattr(model, "solver", None) == "lbfgs":
        raise ValueError("solver='lbfgs' needs all data in memory: use 'adam' or 'sgd'")
    if not hasattr(model, "partial_fit"):
        raise TypeError(f"model must have partial_fit, {type(model).__name__} has not")
    if getattr(model, "early_stopping", False):
        raise ValueError(
            "model must not have early_stopping=True, which partial_fit does not support"
        )
    if classes is not None and not _is_classifier(model):
        raise TypeError(f"classes is for classifiers only, model is a {type(model).__name__}")


@contextlib.contextmanager
def _as_before_unless_taught(model):
    """Put everything back if the block fails before something was learnt.

    Yields
    ------
    list of int
        For the numbers of the blocks that the model has learnt from.
    """
    before, taught = dict(vars(model)), []
    lengths = {name: len(value) for name, value in before.items() if isinstance(value, list)}
    try:
        yield taught
    except BaseException:
        if not taught:
            vars(model).clear()
            vars(model).update(before)
            for name, length in lengths.items():
                del before[name][length:]
        raise


@contextlib.contextmanager
def _settings(model, parameters):
    """Lend the model one random generator for all its blocks, and keep it silent; yield that.

    An int as `random_state` would shuffle every block alike in every epoch.
    """
    from fastdrop.estimators.network import as_random_state

    state = as_random_state(parameters.get("random_state"))
    lent = {"random_state": state, "verbose": 0}
    model.set_params(**{name: lent[name] for name in lent if name in parameters})
    try:
        yield state
    finally:
        model.set_params(**{name: parameters[name] for name in lent if name in parameters})


def _progress(verbose, blocks, dtype):
    from fastdrop.progress import Progress

    return Progress(verbose, blocks, dtype, unit="block")


def _train(model, arrays, orders, classes, progress, taught):
    """Stream the blocks of all epochs through `partial_fit`, and set the attributes of a fit."""
    begin = len(getattr(model, "loss_curve_", ()))
    losses, done = [], 0
    try:
        for order in orders:
            total = learnt = 0
            with contextlib.closing(stream(arrays, order)) as blocks:
                for number in order:
                    rows, loss = _learn(model, blocks, number, classes, taught)
                    done += 1
                    progress.done(done, loss)
                    if rows:
                        classes = None
                        total += loss * rows
                        learnt += rows
            if not learnt:
                raise ValueError("sample_weight must not be 0 for every sample")
            losses.append(total / learnt)
    except _Told:
        pass
    except KeyboardInterrupt:
        if not taught:
            raise
        warn_caller("Training interrupted by user. The model keeps what it has learnt")
    finally:
        if taught:
            _tell(model, begin, losses)


def _tell(model, begin, losses):
    """Set the attributes of a fit: of epochs, not of calls of `partial_fit`."""
    if hasattr(model, "loss_curve_"):
        model.loss_curve_[begin:] = losses
        if losses:
            model.loss_ = losses[-1]
    model.n_iter_ = len(losses)


class _Told(KeyboardInterrupt):
    """An interrupt that `partial_fit` has met, told the user of, and kept for itself."""


def _learn(model, blocks, number, classes, taught):
    """Let the model learn the next block; return how many rows, and the loss.

    A block whose weights are all 0 teaches nothing. The loss is NaN where the model has none.
    """
    given = {} if classes is None else {"classes": classes}
    try:
        X, y, *weight = next(blocks)
        if weight:
            if not weight[0].any():
                return 0, numpy.nan
            given["sample_weight"] = weight[0]
        model.partial_fit(X, y, **given)
    except Exception as error:
        error.add_note(f"in fastdrop.dask.fit, block {number} of the rows of X")
        raise
    taught.append(int(number))
    if getattr(model, "_interrupted", False):
        raise _Told
    return len(X), getattr(model, "loss_", numpy.nan)


def _is_classifier(model):
    from sklearn.base import is_classifier

    return is_classifier(model)


def _classes(y, numbers):
    """The classes that occur, from one pass over y; the number of labels where there are several.

    Raises
    ------
    ValueError
        If y holds no classes.
    """
    from sklearn.utils.multiclass import check_classification_targets

    if y.ndim == 2:
        return numpy.arange(y.shape[1])
    found = None
    for (block,) in stream([y], numbers):
        check_classification_targets(block)
        values = numpy.unique(block)
        found = values if found is None else numpy.union1d(found, values)
    return found
