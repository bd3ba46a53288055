"""Hostile arguments to the estimators: an error that names one, or what a plain copy gives.

What scikit-learn checks for us (X and y) is refused in its words, as a TypeError or ValueError.
"""

import fractions
import warnings

import numpy
import pytest

pytest.importorskip("sklearn")

from hostile import (
    BAD_INTEGERS,
    BAD_RATES,
    NOT_NUMBERS,
    RATES,
    other_arrays,
    placed,
    raised,
    wrapped,
)
from hypothesis import given
from hypothesis import strategies as st

import fastdrop

# scikit-learn's checks, in whose hands these are, take NumPy's spans of time for ints, and
# fractions for what numpy.isnan knows.
NO_NUMBERS = [value for value in NOT_NUMBERS if not isinstance(value, numpy.timedelta64)]
ESTIMATORS = {"classifier": fastdrop.MLPClassifier, "regressor": fastdrop.MLPRegressor}
SHAPES = [(12, 3), (12, 3), (12, 3), (0, 3), (12, 0), (12,), (3, 3)]
KINDS = st.sampled_from(sorted(ESTIMATORS))
GENERATOR = numpy.random.default_rng(0)
X = GENERATOR.standard_normal((12, 3))
TARGETS = {"classifier": numpy.arange(12) % 3, "regressor": X.sum(axis=1)}


def estimator(kind, **parameters):
    settings = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0, "dropout": 0.5}
    return ESTIMATORS[kind](**settings | parameters)


def fitted(kind, x=X, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few iterations
        return estimator(kind, **parameters).fit(x, TARGETS[kind])


def same(kind, mine, other):
    numpy.testing.assert_array_equal(mine.predict(X), other.predict(X))
    for a, b in zip(mine.coefs_, other.coefs_, strict=True):
        numpy.testing.assert_array_equal(a, b)


GOOD_RATES = RATES.filter(lambda value: not isinstance(value, fractions.Fraction))
WRONG_RATES = BAD_RATES.filter(lambda value: not isinstance(value, numpy.timedelta64))
TYPES = [None, "float32", "float64", numpy.float32, numpy.dtype("f8"), "f2", "i4", "x", 3, object]
OWN = {
    "dropout": st.one_of(GOOD_RATES, WRONG_RATES, st.lists(GOOD_RATES, max_size=3)),
    "input_dropout": st.one_of(GOOD_RATES, WRONG_RATES),
    "rows_per_mask": st.one_of(
        st.sampled_from([1, 2, 5, 10**9, "batch", 0, -1, "rows", *BAD_INTEGERS, *NO_NUMBERS])
    ),
    "exact_count": st.sampled_from([True, False, numpy.bool_(1), 1, "yes", None, [True]]),
    "max_norm": st.sampled_from([None, 1e-3, 2, 1e30, 0, -1, numpy.nan, numpy.inf, *NO_NUMBERS]),
    "dtype": st.sampled_from(TYPES),
}


@given(data=st.data(), kind=KINDS, name=st.sampled_from(sorted(OWN)))
def test_parameters_of_our_own(data, kind, name):
    """Refused by name, or the model is what a fit with the same value gives again."""
    value = data.draw(OWN[name])
    # At rate 1 nothing is left to learn from, and a norm may bound everything to nearly 0.
    model = raised(lambda: fitted(kind, **{name: value}), (name,))
    if model is not None:
        assert numpy.isfinite(numpy.asarray(model.predict(X), float)).all()
        same(kind, model, fitted(kind, **{name: value}))


@given(data=st.data(), kind=KINDS)
def test_examples_of_any_layout(data, kind):
    place = None
    if data.draw(st.integers(0, 4)) == 0:
        given_x = data.draw(other_arrays((12, 3)))
    else:
        shape = data.draw(st.sampled_from(SHAPES))
        place = data.draw(placed(shape, data.draw(st.sampled_from(["f4", "f8"])), special=False))
        given_x = data.draw(wrapped(place.array))
    try:
        model = fitted(kind, given_x)
    except (TypeError, ValueError):
        model = None
    if place is not None:
        place.assert_untouched()
    if model is not None:
        same(kind, model, fitted(kind, numpy.array(given_x)))


@given(
    data=st.data(), kind=KINDS,
    n_samples=st.one_of(st.integers(-2, 4), st.sampled_from([*BAD_INTEGERS, *NO_NUMBERS])),
    random_state=st.sampled_from([None, 0, 2**32 - 1, -1, 2**32, 1.5, "x", [1]]),
)  # fmt: skip
def test_samples(data, kind, n_samples, random_state):
    model = fitted(kind)
    samples = raised(
        lambda: model.predict_samples(X, n_samples, random_state=random_state),
        ("n_samples", "random_state", "Seed", "seed"),
    )
    if samples is not None:
        assert samples.shape[:2] == (n_samples, 12)
        assert numpy.isfinite(samples).all()


@pytest.mark.filterwarnings("ignore:n_samples=1")
@given(return_std=st.sampled_from([True, False, 1, None, "x"]), n_samples=st.integers(-1, 3))
def test_standard_deviations(return_std, n_samples):
    model = fitted("regressor")
    found = raised(
        lambda: model.predict(X, return_std=return_std, n_samples=n_samples),
        ("return_std", "n_samples"),
    )
    if found is not None and return_std:
        mean, std = found
        assert mean.shape == std.shape == (12,)
        assert (std >= 0).all()
