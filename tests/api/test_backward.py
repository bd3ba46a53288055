"""dropout_backward and apply_mask: gradients, scales, masks that broadcast."""

import numpy
import pytest
from conftest import assert_identical, layouts, selected, values

from fastdrop import Mask, MaskStream, apply_mask, dropout, dropout_backward

DTYPES = (numpy.float16, numpy.float32, numpy.float64)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale_at": "test"},
        {"shared_axes": 1},
        {"rows_per_mask": 3},
        {"rows_per_mask": "batch", "exact_count": True},
    ],
    ids=str,
)
def test_the_gradient_equals_finite_differences(options):
    x = values((7, 6), numpy.float64)
    weights = values((7, 6), numpy.float64, seed=1)

    def loss(inputs):
        y, mask = dropout(inputs, 0.4, rng=3, **options)
        return float((weights * y**2).sum()), y, mask

    _, y, mask = loss(x)
    grad = dropout_backward(2 * weights * y, mask)
    step = 1e-6
    for index in numpy.ndindex(x.shape):
        shifted = [x.copy(), x.copy()]
        shifted[0][index] += step
        shifted[1][index] -= step
        difference = (loss(shifted[0])[0] - loss(shifted[1])[0]) / (2 * step)
        assert grad[index] == pytest.approx(difference, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_without_a_mask_multiplies(each_isa, dtype):
    grad = values((20, 33), dtype)
    assert_identical(dropout_backward(grad, None), grad)
    assert_identical(dropout_backward(grad, None, scale=0.7), selected(grad, True, 0.7))
    out = numpy.empty_like(grad)
    assert dropout_backward(grad, None, scale=0.7, out=out) is out
    assert_identical(out, selected(grad, True, 0.7))


@pytest.mark.parametrize("function", [apply_mask, dropout_backward])
def test_another_scale_for_once(function):
    x = values((20, 30))
    mask = MaskStream(0).draw((20, 30), rate=0.5)
    kept = mask.to_array()
    assert_identical(function(x, mask), selected(x, kept, 2))
    assert_identical(function(x, mask, scale=5), selected(x, kept, 5))
    assert_identical(function(x, mask.with_scale(5)), selected(x, kept, 5))
    assert_identical(function(x, mask, scale=0), selected(x, kept, 0))


@pytest.mark.parametrize("function", [apply_mask, dropout_backward])
@pytest.mark.parametrize("dtype", DTYPES)
def test_out_of_any_layout(each_isa, function, dtype):
    shape = (12, 7, 9)
    mask = MaskStream(0).draw(shape, rate=0.5)
    for _, x in layouts(shape, dtype):
        expected = selected(x, mask.to_array(), 2)
        for _, out in layouts(shape, dtype, seed=1):
            assert function(x, mask, out=out) is out
            assert_identical(out, expected)
        assert function(x, mask, out=x) is x
        assert_identical(x, expected)


@pytest.mark.parametrize(
    ("shape", "mask_shape"),
    [
        ((5, 4, 3), (3,)),
        ((5, 4, 3), (4, 3)),
        ((5, 4, 3), (4, 1)),
        ((5, 4, 3), (1, 1, 1)),
        ((5, 4, 3), ()),
        ((5, 4, 3), (5, 1, 3)),
        ((0, 3), (1, 3)),
    ],
)
def test_a_mask_broadcasts_as_an_array_does(shape, mask_shape):
    x = values(shape)
    kept = numpy.random.default_rng(0).random(mask_shape) < 0.5
    y = apply_mask(x, Mask.from_array(kept))
    assert_identical(y, selected(x, numpy.broadcast_to(kept, shape), 1))


def test_a_shared_mask_serves_batches_of_other_lengths():
    mask = MaskStream(0).draw((128, 20), rate=0.5, rows_per_mask="batch")
    for rows in (1, 100, 128, 500):
        x = values((rows, 20))
        assert_identical(apply_mask(x, mask), selected(x, mask.to_array(), 2))
