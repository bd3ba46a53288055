"""Arithmetic with a mask, alone or in dropout's pair, is a TypeError; it never gives a result."""

import operator
import pickle

import numpy
import pytest

import fastdrop
from fastdrop import Mask, MaskStream

X = numpy.arange(16, dtype=numpy.float32).reshape(4, 4) + 1
MASK = MaskStream(0).draw((4, 4), rate=0.5)
PAIR = fastdrop.dropout(X, 0.5, rng=0)
UNTRAINED = fastdrop.dropout(X, 0.5, training=False)

BINARY = [
    operator.add, operator.sub, operator.mul, operator.matmul, operator.truediv,
    operator.floordiv, operator.mod, divmod, operator.pow, operator.lshift, operator.rshift,
    operator.and_, operator.or_, operator.xor, operator.lt, operator.le, operator.gt, operator.ge,
    operator.iadd, operator.isub, operator.imul, operator.imatmul, operator.itruediv,
    operator.ifloordiv, operator.imod, operator.ipow, operator.iand, operator.ior, operator.ixor,
    operator.ilshift, operator.irshift,
]  # fmt: skip
OTHERS = [
    X, X.astype(int), X.astype(bool), X[0], numpy.float32(2), numpy.float64(2), numpy.int64(2),
    numpy.array(2.0), 2, 2.0, True, X.tolist(),
]  # fmt: skip
BY_KIND = [
    pytest.param(MASK, "apply_mask", id="mask"),
    pytest.param(PAIR, "y, mask = ", id="pair"),
    pytest.param(UNTRAINED, "y, mask = ", id="untrained pair"),
]


@pytest.mark.parametrize(("value", "advice"), BY_KIND)
def test_binary_operators_on_either_side(value, advice):
    for function in BINARY:
        for other in OTHERS:
            mine = other.copy() if isinstance(other, numpy.ndarray) else other
            for arguments in ((value, mine), (mine, value)):
                with pytest.raises(TypeError, match=advice):
                    function(*arguments)


@pytest.mark.parametrize(("value", "advice"), BY_KIND)
@pytest.mark.parametrize("function", [operator.neg, operator.pos, abs, operator.inv])
def test_unary_operators(value, advice, function):
    if function is operator.inv and value is MASK:
        assert (~MASK).count() == MASK.size - MASK.count()
        return
    with pytest.raises(TypeError, match=advice if function is not operator.inv else "~"):
        function(value)


def ufuncs():
    found = {value for value in vars(numpy).values() if isinstance(value, numpy.ufunc)}
    return sorted(found, key=lambda ufunc: ufunc.__name__)


@pytest.mark.parametrize(("value", "advice"), BY_KIND)
def test_every_ufunc_in_every_place(value, advice):
    assert len(ufuncs()) > 80
    for ufunc in ufuncs():
        for place in range(ufunc.nin):
            arguments = [X] * ufunc.nin
            arguments[place] = value
            with pytest.raises(TypeError, match=advice):
                ufunc(*arguments)
    for call in (
        lambda: numpy.add.reduce(value),
        lambda: numpy.add.accumulate(value),
        lambda: numpy.multiply.outer(X, value),
        lambda: numpy.add.at(X.copy(), 0, value),
        lambda: numpy.add(X, X, out=value),
    ):
        with pytest.raises(TypeError, match=advice):
            call()


@pytest.mark.parametrize(("value", "advice"), BY_KIND)
@pytest.mark.parametrize(
    "product",
    [
        numpy.dot, numpy.vdot, numpy.inner, numpy.outer, numpy.tensordot, numpy.kron,
        lambda a, b: numpy.einsum("ij,jk->ik", a, b), lambda a, b: numpy.linalg.multi_dot([a, b]),
        numpy.linalg.matmul, numpy.linalg.tensordot,
    ],
)  # fmt: skip
def test_products_that_are_no_ufuncs(value, advice, product):
    for arguments in ((X, value), (value, X)):
        with pytest.raises(TypeError, match=advice):
            product(*arguments)


def test_functions_that_select_or_count_have_the_bits():
    kept = MASK.to_array()
    numpy.testing.assert_array_equal(numpy.asarray(MASK), kept)
    numpy.testing.assert_array_equal(numpy.where(MASK, X, 0), numpy.where(kept, X, 0))
    assert numpy.count_nonzero(MASK) == MASK.count()
    assert numpy.array_equal(MASK, kept)
    assert numpy.stack([MASK, MASK]).shape == (2, 4, 4)
    assert numpy.shape(MASK) == (4, 4)
    target = numpy.zeros((4, 4))
    numpy.copyto(target, 1, where=MASK)
    numpy.testing.assert_array_equal(target, kept)


@pytest.mark.parametrize("function", [numpy.stack, numpy.vstack, numpy.concatenate])
def test_a_pair_is_not_joined(function):
    with pytest.raises(TypeError, match="unpack it first"):
        function(PAIR)
    with pytest.raises(TypeError, match="unpack it first"):
        PAIR + PAIR


@pytest.mark.parametrize("pair", [PAIR, UNTRAINED])
def test_a_pair_is_a_tuple(pair):
    y, mask = pair
    assert isinstance(pair, tuple)
    assert len(pair) == 2
    assert pair[0] is y
    assert pair[-1] is mask
    assert pair[:1] == (y,)
    assert pair == (y, mask)
    assert (1, *pair)[1] is y
    assert ((1,) + pair)[2] is mask
    assert (pair + (1,))[2] == 1
    match pair:
        case (first, second):
            assert first is y
            assert second is mask
    again = pickle.loads(pickle.dumps(pair))
    numpy.testing.assert_array_equal(again[0], y)
    assert again[1] == mask


@pytest.mark.parametrize("options", [{}, {"rows_per_mask": 2}, {"out": X.copy()}])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale_at", ["train", "test"])
def test_every_pair_refuses(options, training, scale_at):
    pair = fastdrop.dropout(X, 0.5, rng=0, training=training, scale_at=scale_at, **options)
    with pytest.raises(TypeError, match="y, mask = "):
        pair @ X
    with pytest.raises(TypeError, match="y, mask = "):
        numpy.asarray(pair)


def test_a_pair_given_for_an_array_is_an_error_that_says_so():
    for call in (
        lambda: fastdrop.masked_matmul(PAIR, X),
        lambda: fastdrop.apply_mask(PAIR, MASK),
        lambda: fastdrop.dropout(PAIR, 0.5),
        lambda: fastdrop.nn.ReLU().forward(PAIR),
        lambda: fastdrop.nn.Dense(4, 2).forward(PAIR),
        lambda: fastdrop.nn.Sequential([fastdrop.nn.Dense(4, 2)]).forward(PAIR),
        lambda: Mask.from_array(PAIR),
    ):
        with pytest.raises(TypeError, match="y, mask = "):
            call()
