"""Cases of `mpi_cases.py`: the estimators, fitted on several ranks."""

import copy
import functools
import pickle
import warnings

import numpy
import pytest
from mpi_common import COMM, RANK, SIZE, TIMEOUT, assert_all_raise, case, parts, same_everywhere
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from fastdrop import MLPClassifier, MLPRegressor, mpi, nn

warnings.simplefilter("ignore", ConvergenceWarning)


def examples(rows=203, outputs=None, seed=0):
    generator = numpy.random.default_rng(seed)
    x = generator.standard_normal((rows, 7))
    y = x @ generator.standard_normal((7, outputs or 1)) + 0.1 * generator.standard_normal(
        (rows, 1)
    )
    return x, y if outputs else y[:, 0]


def mine(*arrays, uneven=True):
    cuts = parts(len(arrays[0]), uneven)
    return [array[cuts[RANK] : cuts[RANK + 1]] for array in arrays]


def assert_same_model(model, expected, bound=1e-8):
    for name in ("coefs_", "intercepts_"):
        for ours, theirs in zip(getattr(model, name), getattr(expected, name), strict=True):
            assert same_everywhere(ours)
            numpy.testing.assert_allclose(ours, theirs, rtol=bound, atol=bound)
    assert model.n_iter_ == expected.n_iter_
    numpy.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=bound)
    assert vars(model).keys() == vars(expected).keys()
    assert getattr(model, "tau_", 0) == pytest.approx(getattr(expected, "tau_", 0), rel=1e-6)


@case
def fits_are_those_of_the_estimators():
    x, y = examples()
    labels = numpy.array(["low", "mid", "high"])[numpy.digitize(y, [-1, 1])]
    two = numpy.stack([y > 0, x[:, 0] > 0], axis=1).astype(int)
    weights = numpy.random.default_rng(1).random(len(x))
    weights[: len(x) // 3] = 0
    options = {"batch_size": 50, "max_iter": 6, "random_state": 3, "dropout": 0.3}
    options |= {"rows_per_mask": "batch", "hidden_layer_sizes": (20, 11)}
    alpha = {"dropout_kind": "alpha", "activation": "selu", "rows_per_mask": 1, "shuffle": False}
    for model, *data in [
        (MLPRegressor(**options), x, y),
        (MLPRegressor(**options, solver="sgd", learning_rate="adaptive"), x, y),
        (MLPRegressor(**options), x, examples(outputs=3)[1], weights),
        (MLPRegressor(**options, early_stopping=True), x, y, weights),
        (MLPRegressor(**options | alpha), x, y),
        (MLPRegressor(**options, tau="fit"), sparse.csr_matrix(x), y),
        (MLPClassifier(**options), x, labels),
        (MLPClassifier(**options, class_weight="balanced"), sparse.csr_matrix(x), labels),
        (MLPClassifier(**options, early_stopping=True, scoring="loss"), x, labels),
        (MLPClassifier(**options, early_stopping=True), x, (y > 0).astype(int), weights),
        (MLPClassifier(**options), x, two),
        (MLPClassifier(**{**options, "dropout": 0.0, "shuffle": False}), x, labels),
    ]:
        expected = copy.deepcopy(model).fit(*data)
        rows = [numpy.arange(x.shape[0])]
        (rows,) = mine(*rows)
        X, y_rows, *more = (part[rows] for part in data)
        given = mpi.fit(model, X, y_rows, COMM, *more, timeout=TIMEOUT)
        assert given is model
        assert_same_model(model, expected)
        assert model.random_state == 3


@case
def masks_per_row_do_not_depend_on_the_ranks():
    x, y = examples(90)
    for rows_per_mask in (1, 8):
        options = {"dropout": 0.5, "input_dropout": 0.1, "rows_per_mask": rows_per_mask}
        options |= {"batch_size": 30, "max_iter": 4, "random_state": 0}
        expected = mpi.fit(
            MLPRegressor(hidden_layer_sizes=(16,), **options),
            x,
            y,
            COMM.Split(RANK),
            timeout=TIMEOUT,
        )
        for uneven in (False, True):
            model = MLPRegressor(hidden_layer_sizes=(16,), **options)
            mpi.fit(model, *mine(x, y, uneven=uneven), COMM, timeout=TIMEOUT)
            assert_same_model(model, expected)


@case
def float32_and_pickles_and_warm_starts():
    x, y = examples(80)
    x = x.astype(numpy.float32)
    options = {"dropout": 0.5, "max_iter": 3, "warm_start": True, "random_state": 1}
    options |= {"rows_per_mask": "batch"}
    model = MLPRegressor(hidden_layer_sizes=(16,), **options)
    mpi.fit(model, *mine(x, y), COMM, timeout=TIMEOUT)
    assert model.coefs_[0].dtype == numpy.float32
    again = pickle.loads(pickle.dumps(model))
    if RANK:  # rank 0's is taken
        again = MLPRegressor(hidden_layer_sizes=(16,), **options)
    for one in (model, again):
        mpi.fit(one, *mine(x, y), COMM, timeout=TIMEOUT)
        assert len(one.loss_curve_) == 6
    assert all((a == b).all() for a, b in zip(model.coefs_, again.coefs_, strict=True))


@case
def any_random_state():
    x, y = examples(40)
    for state in (None, numpy.random.RandomState(RANK), numpy.random.default_rng(RANK)):
        model = MLPRegressor(hidden_layer_sizes=(8,), dropout=0.5, max_iter=2, random_state=state)
        mpi.fit(model, *mine(x, y), COMM, timeout=TIMEOUT)
        assert all(same_everywhere(weights) for weights in model.coefs_)
        assert model.random_state is state


@case
def fits_that_cannot_be():
    x, y = examples(24)
    bad = SIZE - 1

    def fit(x=x, y=y, weights=None, **options):
        given = mine(x, y, uneven=False)
        change = options.pop("change", None)
        model = MLPRegressor(hidden_layer_sizes=(8,), max_iter=2, **options)
        if bad == RANK and change:
            given, model = change(*given, model)
        weights = None if weights is None else weights[RANK]
        return lambda: mpi.fit(model, *given, COMM, weights, timeout=TIMEOUT)

    nan = x.copy()
    nan[-1, 0] = numpy.nan
    one = numpy.ones(24 // SIZE)

    def classify(last, **options):
        """With these labels on the last rank."""
        labels = numpy.concatenate([x[: 24 - len(last), 0] > 0, last])
        model = MLPClassifier((8,), max_iter=2, **options)
        given = mine(x, labels, uneven=False)
        return lambda: mpi.fit(model, *given, COMM, timeout=TIMEOUT)

    rank = f"rank {bad}" if SIZE > 1 else ""
    checks = [
        (ValueError, [rank, "Input X contains NaN"], fit(nan)),
        (ValueError, [rank, "Input y contains NaN"], fit(y=nan[:, 0])),
        (ValueError, [rank, "at least 0"], fit(y=numpy.where(y == y[-1], -1, 1), loss="poisson")),
        (ValueError, [rank, "Unknown label type"], classify(one / 2)),
        (ValueError, [rank, "sample_weight", "-1"], fit(weights=[one] * bad + [-one])),
        (ValueError, [rank, "sample_weight", "nan"], fit(weights=[one] * bad + [one * numpy.nan])),
        (ValueError, [rank, "sample_weight", "complex"], fit(weights=[one] * bad + [one + 1j])),
        # All ranks have these: no one is named.
        (ValueError, ["^class_weight must"], classify(one, class_weight={0: 0, 1: 0})),
        (ValueError, ["^The 'alpha' parameter"], fit(alpha=-1)),
        (ValueError, ["lbfgs"], fit(solver="lbfgs")),
        (ValueError, ["scoring", "r2"], fit(scoring="r2", early_stopping=True)),
        (ValueError, ["validation_fraction"], fit(early_stopping=True, validation_fraction=0.01)),
        (ValueError, [rank, "y_rows"], fit(change=lambda x, y, m: ([x, y[:-1]], m))),
        (ValueError, ["none on all"], fit(x[:0], y[:0])),
        (TypeError, [rank, "model", "int"], fit(change=lambda x, y, m: ([x, y], 3))),
        (ValueError, ["non-finite"], fit(1e30 * x, solver="sgd", learning_rate_init=1e30)),
    ]
    if SIZE > 1:
        checks += [
            (ValueError, [rank, "features"], fit(change=lambda x, y, m: ([x[:, 1:], y], m))),
            (ValueError, [rank, "dtype"], fit(change=lambda x, y, m: ([x.astype("f4"), y], m))),
            (ValueError, [rank, "y_rows"], fit(change=lambda x, y, m: ([x, y.astype(str)], m))),
            (
                ValueError,
                [rank, "alpha"],
                fit(change=lambda x, y, m: ([x, y], m.set_params(alpha=1))),
            ),
            (ValueError, [rank, "sample_weight"], fit(weights=[None] * bad + [numpy.ones(24)])),
        ]
    for number, (kind, words, call) in enumerate(checks):
        try:
            assert_all_raise(kind, words, call)
        except AssertionError as error:
            raise AssertionError(f"check {number}: {error}") from None
    fit()()


@case
def one_rank_alone_runs_out_of_memory():
    """An error of one rank in the middle of a fit is one of all, and leaves the model as it was."""
    x, y = examples(24)
    forward = nn.Sequential.forward
    for training in (True, False):
        calls = []

        def fail(self, x, *args, training=False, where=training, calls=calls, **kwargs):
            if len(x) and training == where and RANK == SIZE - 1:
                calls.append(x.shape)
                if len(calls) == 2:
                    raise MemoryError("no room")
            return forward(self, x, training=training, **kwargs)

        model = MLPRegressor(
            hidden_layer_sizes=(8,), max_iter=3, early_stopping=True, dropout=0.5, random_state=0
        )
        nn.Sequential.forward = fail
        try:
            words = [f"rank {SIZE - 1}" if SIZE > 1 else "", "no room"]
            call = functools.partial(mpi.fit, model, *mine(x, y, uneven=False), COMM)
            assert_all_raise(MemoryError, words, call)
        finally:
            nn.Sequential.forward = forward
        assert not hasattr(model, "coefs_")
    mpi.fit(model, *mine(x, y), COMM, timeout=TIMEOUT)
