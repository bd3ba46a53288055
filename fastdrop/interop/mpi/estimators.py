"""`fit`: the estimators on the rows of all ranks."""

import contextlib
import functools
import importlib
import warnings

import numpy

from fastdrop.arguments import as_array
from fastdrop.interop import needs
from fastdrop.interop.mpi.leaving import Interrupts
from fastdrop.interop.mpi.parallel import TIMEOUT, check_same, warn_of_threads
from fastdrop.interop.mpi.ranks import Ranks

__all__ = ["fit"]


def fit(model, X_rows, y_rows, comm=None, sample_weight=None, *, timeout=TIMEOUT):
    """Fit an estimator to the rows of all ranks, those of rank 0 first.

    Every rank gets the same fitted model. It is the same on any number of ranks that hold the same
    rows in the same order, but for the rounding of sums: batches, validation part and masks are
    those of all rows. With masks of units (``rows_per_mask="batch"``) or without dropout the model
    is also that of its own `fit`; other masks go to the rows of a batch in another order there.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        With the same parameters on all ranks. ``random_state`` may be anything: rank 0's is used.
        With ``warm_start=True`` all ranks go on with rank 0's model.
    X_rows : array_like or sparse matrix, shape (rows, n_features)
        This rank's. A rank may have no rows: shape (0, n_features).
    y_rows : array_like, shape (rows,) or (rows, n_outputs)
    comm : mpi4py.MPI.Intracomm, optional
        ``MPI.COMM_WORLD`` by default.
    sample_weight : array_like, shape (rows,), optional
        On all ranks or on none.
    timeout : float, optional
        Seconds to wait for another rank, as for `DataParallel`.

    Returns
    -------
    object
        `model`, fitted.

    Raises
    ------
    TypeError, ValueError
        On all ranks, with the rank whose rows, targets, weights or parameters cannot be or differ
        from rank 0's; for ``solver="lbfgs"`` and a `scoring` other than "loss", which need all rows
        in one place; what the estimator's own `fit` raises. The model is as it was before then.
    RankError
        If another rank failed in some other way, or does not come within the timeout.
    ImportError
        If scikit-learn is not installed.

    Notes
    -----
    Collective: all ranks call it. Every rank holds the targets and weights of all rows, and the
    features of its own only. A batch's rows are drawn from those of all ranks, so that ranks have
    unequal shares of it: of 256 rows, the larger of two shares has 134 on average. With
    `DataParallel` every rank may bring as many rows as the others.

    With ``tau="fit"``, every rank gets the rows that are held out, 2000 at most.

    Ctrl-C on any rank ends the fit on all after the same step, with a warning. Rank 0 shows
    progress and warnings.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import MLPClassifier, mpi
    >>> X = numpy.random.default_rng(0).standard_normal((200, 4))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> model = MLPClassifier((32,), dropout=0.2, max_iter=100, random_state=0)
    >>> bool(mpi.fit(model, X, y).score(X, y) > 0.9)
    True
    """
    ranks = Ranks.of(comm, timeout, "fit")
    try:
        _fit(ranks, model, X_rows, y_rows, sample_weight)
    except BaseException as error:
        ranks.fail(error)
        raise
    return model


def _fit(ranks, model, X, y, sample_weight):
    error = own = None
    try:
        _check_model(model)
        own = _Own(model, X, y, sample_weight)
    except Exception as caught:
        error = caught
    ranks.agree(error)
    warn_of_threads(ranks)
    everybody = _compared(ranks, model, own)
    X = own.rows_like(everybody)
    y = numpy.concatenate([y for _, y, _ in everybody if len(y)])
    weights = None
    if sample_weight is not None:
        weights = numpy.concatenate([weights for *_, weights in everybody])
    bounds = numpy.cumsum([0, *(shape[0] for (shape, *_), *_ in everybody)])
    interrupts = Interrupts()
    with interrupts, _quiet(ranks, model), _as_rank_0(ranks, model):
        examples = importlib.import_module("fastdrop.interop.mpi.examples")
        shares = examples.Shares(ranks, model, bounds, interrupts)
        error = None
        try:
            _fit_all(model, X, y, weights, functools.partial(examples.RankExamples, shares=shares))
        except Exception as caught:
            if caught is ranks.agreed or ranks.broken is not None:
                raise
            error = caught
        # Where one rank alone has an error, the others read this as the header of a step.
        ranks.agree(error)
    names = ranks.gather_objects(own.names)
    names = next((one for one in names if one is not None), None)
    if names is not None:
        model.feature_names_in_ = names


def _fit_all(model, X, y, weights, kind):
    """The estimator's fit on targets of all rows, with features of this rank's."""
    rows = importlib.import_module("fastdrop.estimators.examples")
    sparse = importlib.import_module("scipy.sparse")

    def examples(everything, *others):
        return kind(rows.Rows(X, everything.x.dtype), *others)

    # In the checks and for the shapes, a matrix without any entries stands for the features of all.
    stand_in = sparse.csr_matrix((len(y), X.shape[1]), dtype=X.dtype)
    with model._all_or_nothing(single=False):
        model._validate_params()
        model._fit(stand_in, y, weights, {}, single=False, kind=examples)


def _check_model(model):
    with needs("sklearn", "sklearn", "fastdrop.mpi.fit needs scikit-learn"):
        importlib.import_module("sklearn")
    base = importlib.import_module("fastdrop.estimators.base").MultilayerPerceptron
    if not isinstance(model, base):
        raise TypeError(
            f"model must be an MLPClassifier or MLPRegressor, got {type(model).__name__}"
        )
    if model.solver == "lbfgs":
        raise ValueError("solver='lbfgs' cannot be fitted on several ranks: use 'adam' or 'sgd'")
    if model.scoring not in (None, "loss"):
        raise ValueError(
            f"scoring must be None or 'loss' on several ranks, got {model.scoring!r}: a scorer "
            "needs all rows in one place"
        )


class _Own:
    """One rank's data, checked by itself.

    Attributes
    ----------
    X : numpy.ndarray or CSR matrix; None without rows
    y : numpy.ndarray
    weights : numpy.ndarray or None
    names : numpy.ndarray of str or None
        Of the features.
    """

    def __init__(self, model, X, y, sample_weight):
        clone = importlib.import_module("sklearn.base").clone(model)
        count = X.shape[0] if hasattr(X, "shape") and X.shape else len(X)
        self.y = as_array(y, "y_rows")
        if self.y.ndim == 0 or len(self.y) != count:
            raise ValueError(
                f"y_rows must have as many rows as X_rows, expected {count}, got shape "
                f"{self.y.shape}"
            )
        self.weights = None
        if sample_weight is not None:
            self.weights = as_array(sample_weight, "sample_weight")
            if self.weights.shape != (count,) or self.weights.dtype.kind not in "biuf":
                raise ValueError(
                    f"sample_weight must hold real numbers, shape ({count},), got dtype "
                    f"{self.weights.dtype} and shape {self.weights.shape}"
                )
            bad = self.weights[~(numpy.isfinite(self.weights) & (self.weights >= 0))]
            if bad.size:
                raise ValueError(f"sample_weight must be finite and at least 0, got {bad[0]}")
        self.X = None
        if count:
            self.X = clone._checked(X, reset=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the fit of all rows warns of their shape
                _, checked = clone._checked(self.X, self.y)
                clone._prepare(checked, True, False)
                clone._targets(checked)
        self.names = getattr(clone, "feature_names_in_", None)

    def record(self):
        """What the other ranks get to know: shape and dtype of X, targets, weights."""
        if self.X is None:
            return ((0, None), None), self.y[:0], self.weights
        return (self.X.shape, self.X.dtype.str), self.y, self.weights

    def rows_like(self, everybody):
        """The features; without rows, none of the others' width and dtype."""
        if self.X is not None:
            return self.X
        (_, columns), dtype = next(what for what, *_ in everybody if what[1] is not None)
        return numpy.empty((0, columns), dtype)


def _compared(ranks, model, own):
    """Records of all ranks, which fit together."""
    parameters = {k: v for k, v in model.get_params(deep=False).items() if k != "random_state"}
    lines = [("the class of model", type(model).__name__)]
    lines += [(name, repr(value)) for name, value in parameters.items()]
    lines += [("sample_weight", "none" if own.weights is None else "given")]
    check_same(ranks, lines)
    everybody = ranks.gather_objects(own.record())
    first = None
    for rank, ((shape, dtype), y, _) in enumerate(everybody):
        if not shape[0]:
            continue
        kind = "number" if y.dtype.kind in "biuf" else y.dtype.kind
        what = (shape[1], dtype, y.shape[1:], kind)
        if first is None:
            first = rank, what
        names = "features", "dtype of X_rows", "shape of y_rows without the rows", "kind of y_rows"
        for name, mine, other in zip(names, what, first[1], strict=True):
            if mine != other:
                ranks.refuse(
                    f"the ranks must agree on {name}: rank {rank} has {mine}, rank {first[0]} has "
                    f"{other}"
                )
    if first is None:
        ranks.refuse("X_rows must have a row on one rank at least, got none on all")
    return everybody


@contextlib.contextmanager
def _quiet(ranks, model):
    """Show progress and warnings on rank 0 only."""
    verbose = model.verbose
    with warnings.catch_warnings():
        if ranks.rank:
            warnings.simplefilter("ignore")
            model.verbose = False
        try:
            yield
        finally:
            model.verbose = verbose


@contextlib.contextmanager
def _as_rank_0(ranks, model):
    """Use the random state of rank 0, and go on from its model where the fit is a warm start."""
    given = model.random_state
    state = None
    if ranks.rank == 0:
        state = given, model.__getstate__() if model.warm_start else None
        if given is None:
            utils = importlib.import_module("sklearn.utils")
            state = int(utils.check_random_state(None).randint(2**31)), state[1]
    random_state, before = ranks.broadcast(state)
    if ranks.rank and before is not None:
        model.__setstate__(before)
    model.random_state = random_state
    try:
        yield
    finally:
        model.random_state = given
