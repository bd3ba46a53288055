"""What masked_matmul and masked_matmul_backward refuse: the error names argument and value."""

import numpy
import pytest
from test_errors import raises

from fastdrop import Mask, MaskStream, masked_matmul, masked_matmul_backward

X = numpy.ones((6, 4), numpy.float32)
W = numpy.ones((4, 3), numpy.float32)
Y = numpy.ones((6, 3), numpy.float32)
BIAS = numpy.ones(3, numpy.float32)


def forward(**changed):
    return masked_matmul(**{"x": X, "w": W} | changed)


def backward(**changed):
    return masked_matmul_backward(**{"grad_y": Y, "x": X, "w": W} | changed)


BOTH = pytest.mark.parametrize("call", [forward, backward])


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "int32", "int64", "bool", "complex64", "longdouble"])
def test_dtypes(call, dtype):
    with raises(TypeError, "x", numpy.dtype(dtype)):
        call(x=X.astype(dtype), w=W.astype(dtype))


def test_objects_are_no_numbers():
    with raises(TypeError, "x", "object"):
        forward(x=numpy.array([[None] * 4]))
    with raises(TypeError, "w", "object"):
        forward(w=numpy.array([[None] * 3] * 4))


@BOTH
@pytest.mark.parametrize(
    ("x_dtype", "w_dtype"), [("float32", "float64"), ("float64", "float32"), ("float32", "float16")]
)
def test_x_and_w_share_a_dtype(call, x_dtype, w_dtype):
    with raises(TypeError, "w", w_dtype):
        call(x=X.astype(x_dtype), w=W.astype(w_dtype))


def test_the_others_have_the_dtype_of_x():
    with raises(TypeError, "bias", "float64"):
        forward(bias=BIAS.astype(float))
    with raises(TypeError, "out", "float64"):
        forward(out=Y.astype(float))
    with raises(TypeError, "grad_y", "float64"):
        backward(grad_y=Y.astype(float))
    with raises(TypeError, "grad_y", "float16"):
        backward(grad_y=Y.astype(numpy.float16))


@BOTH
@pytest.mark.parametrize("shape", [(5, 3), (3, 4), (4,), (4, 3, 1), (1, 4, 3), (), (0, 3)])
def test_w_fits_x(call, shape):
    with raises(ValueError, "w", shape):
        call(w=numpy.ones(shape, numpy.float32))


def test_x_has_an_axis():
    with raises(ValueError, "x", ()):
        forward(x=numpy.float32(1))


@pytest.mark.parametrize("shape", [(4,), (2,), (1,), (), (1, 3), (6, 3)])
def test_bias_fits(shape):
    with raises(ValueError, "bias", shape if shape else "()"):
        forward(bias=numpy.ones(shape, numpy.float32))


@pytest.mark.parametrize("shape", [(6, 4), (3,), (7, 3), (1, 6, 3), (6, 3, 1)])
def test_out_fits(shape):
    with raises(ValueError, "out", shape):
        forward(out=numpy.empty(shape, numpy.float32))


def test_out_is_a_writeable_array():
    with raises(TypeError, "out", "list"):
        forward(out=[[0.0] * 3] * 6)
    read_only = Y.copy()
    read_only.flags.writeable = False
    with raises(ValueError, "out", "read-only"):
        forward(out=read_only)
    with raises(ValueError, "out", "overlap"):
        forward(out=numpy.lib.stride_tricks.as_strided(Y.copy(), (6, 3), (4, 4), writeable=True))


@pytest.mark.parametrize("name", ["x", "w", "bias"])
def test_out_overlaps_no_operand(name):
    square = numpy.ones((4, 4), numpy.float32)
    operands = {"x": square, "w": square.copy(), "bias": numpy.ones(4, numpy.float32)}
    together = numpy.ones(40, numpy.float32)
    size = operands[name].size
    operands[name] = together[:size].reshape(operands[name].shape)
    for start in (0, 1, size - 1):
        with raises(ValueError, "out", name):
            masked_matmul(**operands, out=together[start : start + 16].reshape(4, 4))
    masked_matmul(**operands, out=together[size : size + 16].reshape(4, 4))


@pytest.mark.parametrize("shape", [(6, 4), (5, 3), (3,), (1, 6, 3), (6, 1)])
def test_grad_y_fits(shape):
    with raises(ValueError, "grad_y", shape):
        backward(grad_y=numpy.ones(shape, numpy.float32))


@BOTH
@pytest.mark.parametrize("method", ["fast", "", None, 3, "AUTO"])
def test_methods(call, method):
    with raises(ValueError, "method", repr(method)):
        call(method=method)


@BOTH
@pytest.mark.parametrize("name", ["mask_in", "mask_out"])
def test_masks_are_masks(call, name):
    for wrong in (numpy.ones((6, 4), bool), True, "batch"):
        with raises(TypeError, name, type(wrong).__name__):
            call(**{name: wrong})


@BOTH
@pytest.mark.parametrize(("name", "width"), [("mask_in", 4), ("mask_out", 3)])
def test_masks_fit(call, name, width):
    stream = MaskStream(0)
    for mask in (
        Mask.from_array(numpy.ones((6, width + 1), bool)),
        Mask.from_array(numpy.ones((5, width), bool)),
        Mask.from_array(numpy.ones((2, 6, width), bool)),
        Mask.from_array(numpy.ones(6, bool)),
        stream.draw((12, width), rate=0.5, rows_per_mask=4),
        stream.draw((6, width + 1), rate=0.5, rows_per_mask="batch"),
    ):
        with raises(ValueError, name, mask.shape):
            call(**{name: mask})


@BOTH
def test_the_second_error_is_not_lost_behind_a_mask(call):
    """A mask that fits does not save operands that do not."""
    mask = Mask.from_array(numpy.ones((6, 4), bool))
    with raises(ValueError, "w", (5, 3)):
        call(w=numpy.ones((5, 3), numpy.float32), mask_in=mask)


@BOTH
def test_compact_needs_common_groups(call):
    stream = MaskStream(0)
    masks = {
        "mask_in": stream.draw((6, 4), rate=0.5, rows_per_mask=2),
        "mask_out": stream.draw((6, 3), rate=0.5, rows_per_mask=3),
    }
    with raises(ValueError, "method", "'compact'"):
        call(**masks, method="compact")
    call(**masks)


def test_a_refused_call_writes_nothing():
    out = Y.copy()
    stream = MaskStream(0)
    for options in (
        {"method": "fast"},
        {"bias": BIAS[:2]},
        {"mask_in": stream.draw((5, 4), rate=0.5)},
        {
            "mask_in": stream.draw((6, 4), rate=0.5, rows_per_mask=2),
            "mask_out": stream.draw((6, 3), rate=0.5, rows_per_mask=3),
            "method": "compact",
        },
    ):
        with pytest.raises(ValueError, match=r"must|does not fit|needs"):
            forward(out=out, **options)
        assert (out == 1).all()


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_small_products_are_checked_like_others(each_backend, dtype):
    """Less than 2^17 multiply-adds go past the checks only where these would find nothing."""
    x, w = numpy.ones((5, 7), dtype), numpy.full((7, 9), 2, dtype)
    x[0, 0] = numpy.nan
    each = Mask.from_array(numpy.arange(35).reshape(5, 7) % 3 > 0, keep_prob=0.5)
    shared = Mask.from_array(numpy.arange(7)[None] % 3 > 0, keep_prob=0.5)
    for mask in (each, shared):
        expected = masked_matmul(x, w, mask_in=mask, method="skip")
        out = numpy.empty((5, 9), dtype)
        assert masked_matmul(x, w, mask_in=mask, out=out) is out
        for result in (out, masked_matmul(x, w, mask_in=mask)):
            assert result.dtype == dtype
            numpy.testing.assert_array_equal(result, expected)
        for other in (w.T.copy().T, w[::-1].copy()[::-1], w.repeat(2, axis=1)[:, ::2]):
            numpy.testing.assert_array_equal(masked_matmul(x, other, mask_in=mask), expected)
        memory = numpy.ones(200, dtype)
        with pytest.raises(ValueError, match="out must not overlap x"):
            masked_matmul(memory[:35].reshape(5, 7), w, mask_in=mask,
                          out=memory[30:75].reshape(5, 9))  # fmt: skip
        with pytest.raises(ValueError, match="out must not overlap w"):
            masked_matmul(x, memory[:63].reshape(7, 9), mask_in=mask,
                          out=memory[60:105].reshape(5, 9))  # fmt: skip
        with pytest.raises(ValueError, match="w must have shape"):
            masked_matmul(x, w[1:], mask_in=mask)
        with pytest.raises(TypeError, match="w must have dtype"):
            masked_matmul(x, w.astype(numpy.float16), mask_in=mask)
        with pytest.raises(ValueError, match="mask_in: mask of shape"):
            masked_matmul(x[:, 1:].copy(), w[1:].copy(), mask_in=mask)
        out.flags.writeable = False
        with pytest.raises(ValueError, match="writeable"):
            masked_matmul(x, w, mask_in=mask, out=out)
