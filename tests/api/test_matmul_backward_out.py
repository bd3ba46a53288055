"""`masked_matmul_backward(out=)`: gradients in the caller's arrays, and what is refused."""

import numpy
import pytest

from fastdrop import MaskStream, masked_matmul_backward

X_SHAPE, W_SHAPE = (6, 5), (5, 3)
STREAM = MaskStream(3)
MASKS = {
    "none": {},
    "batch": {
        "mask_in": STREAM.draw(X_SHAPE, rate=0.5, rows_per_mask="batch"),
        "mask_out": STREAM.draw((6, 3), rate=0.5, rows_per_mask="batch"),
    },
    "rows": {"mask_in": STREAM.draw(X_SHAPE, rate=0.5)},
}


def operands(dtype=numpy.float64):
    """grad_y, x and w."""
    generator = numpy.random.default_rng(0)
    shapes = ((6, 3), X_SHAPE, W_SHAPE)
    return [generator.standard_normal(shape).astype(dtype) for shape in shapes]


def arrays(dtype=numpy.float64):
    """Three arrays for the gradients, full of NaN."""
    return [numpy.full(shape, numpy.nan, dtype) for shape in (X_SHAPE, W_SHAPE, (3,))]


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("method", ["auto", "skip", "dense"])
@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_gradients_go_where_the_caller_wants_them(masks, method, dtype):
    expected = masked_matmul_backward(*operands(dtype), method=method, **MASKS[masks])
    out = arrays(dtype)
    result = masked_matmul_backward(*operands(dtype), method=method, out=out, **MASKS[masks])
    for given, returned, array in zip(out, result, expected, strict=True):
        assert returned is given
        numpy.testing.assert_array_equal(given, array)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_array_only(place):
    out = [None, None, None]
    out[place] = arrays()[place]
    result = masked_matmul_backward(*operands(), out=tuple(out))
    assert result[place] is out[place]
    for gradient, expected in zip(result, masked_matmul_backward(*operands()), strict=True):
        numpy.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("out", [arrays()[0], arrays()[:2], "out"])
def test_out_is_three_arrays(out):
    with pytest.raises(TypeError, match="out must be a tuple of three arrays or None"):
        masked_matmul_backward(*operands(), out=out)


def test_out_is_contiguous():
    out = arrays()
    out[1] = numpy.empty(W_SHAPE[::-1]).T
    with pytest.raises(ValueError, match="out must hold C-contiguous"):
        masked_matmul_backward(*operands(), out=out)


def test_out_fits():
    for place in range(3):
        out = arrays()
        out[place] = numpy.empty((7, 7))
        with pytest.raises(ValueError, match="out must have shape"):
            masked_matmul_backward(*operands(), out=out)


def test_out_overlaps_neither_operands_nor_itself():
    message = "out must hold arrays that overlap neither operands nor each other"
    grad_y, x, w = operands()
    with pytest.raises(ValueError, match=message):
        masked_matmul_backward(grad_y, x, w, out=(x, None, None))
    whole = numpy.empty(30)
    both = (whole.reshape(X_SHAPE), whole[:15].reshape(W_SHAPE), None)
    with pytest.raises(ValueError, match=message):
        masked_matmul_backward(grad_y, x, w, out=both)
    assert numpy.isfinite(x).all()
