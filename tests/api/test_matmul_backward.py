"""masked_matmul_backward: against the reference, the dense gradient and finite differences."""

import concurrent.futures
import functools
import itertools

import numpy
import pytest
from conftest import assert_identical, layouts, unaligned, values
from matmul_cases import (
    DTYPES,
    MASKS,
    METHODS,
    SOME_PAIRS,
    Expected,
    fitting_methods,
    gradients,
    kept,
    make_mask,
    operands,
    product,
)
from rounding import gamma, sum_error

from fastdrop import MaskStream, masked_matmul_backward, set_num_threads

ROWS, UNITS_IN, UNITS_OUT = 40, 33, 50
TYPICAL = [("none", "none"), ("per sample", "per sample"), ("units", "units"), ("groups", "none")]


@functools.cache
def case(kinds, dtype, x_shape=(ROWS, UNITS_IN), units_out=UNITS_OUT, scale=None):
    """Operands, masks and what is expected; one of each for all backends and threads."""
    arrays = operands(x_shape, units_out, dtype)
    shapes = (x_shape, (*x_shape[:-1], units_out))
    masks = [
        make_mask(kind, shape, seed, scale)
        for seed, (kind, shape) in enumerate(zip(kinds, shapes, strict=True))
    ]
    return arrays, masks, remembering(arrays, masks)


def remembering(arrays, masks):
    """An `Expected` that computes the gradients for these operands once."""
    expected = Expected(*arrays[:2], *masks)
    pairs = functools.cache(lambda: Expected.backward(expected, arrays[3]))
    expected.backward = lambda grad_y: pairs()
    return expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_masks_and_methods(each_backend, dtype):
    pairs = itertools.product(MASKS, repeat=2)
    for kinds in SOME_PAIRS if each_backend == "numpy" else pairs:
        arrays, masks, expected = case(kinds, dtype)
        for method in fitting_methods(*kinds):
            for skip_zeros in (False, True):
                found = gradients(arrays, masks, method, skip_zeros=skip_zeros)
                expected.check_backward(found, arrays[3], f"{kinds} {method} {skip_zeros}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1, 0, -0.7])
def test_scales(each_backend, dtype, scale):
    for kinds in itertools.product(("none", "per sample", "units", "groups"), repeat=2):
        arrays, masks, expected = case(kinds, dtype, scale=scale)
        for method in fitting_methods(*kinds):
            expected.check_backward(gradients(arrays, masks, method), arrays[3], method)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", TYPICAL, ids=str)
def test_shapes(each_backend, dtype, kinds):
    sizes = (0, 1, 16, 17, 65, 129)
    for number, (rows, units_in) in enumerate(itertools.product(sizes, repeat=2)):
        units_out = sizes[(5 * number + number // 6) % len(sizes)]
        arrays, masks, expected = case(kinds, dtype, (rows, units_in), units_out)
        for method in fitting_methods(*kinds):
            found = gradients(arrays, masks, method, skip_zeros=number % 2 == 0)
            label = f"({rows}, {units_in}) @ ({units_in}, {units_out}) {method}"
            expected.check_backward(found, arrays[3], label)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("leading", [(), (6,), (3, 5), (2, 1, 4), (0, 3)])
def test_axes_in_front(each_backend, dtype, leading):
    arrays = operands((*leading, 33), 20, dtype)
    stream = MaskStream(1)
    x_shape, y_shape = arrays[0].shape, arrays[3].shape
    pairs = [
        (None, None),
        (stream.draw(x_shape, rate=0.5), stream.draw(y_shape, rate=0.5)),
        (stream.draw(x_shape[-1:], rate=0.5), stream.draw(y_shape[-2:], rate=0.5)),
        (stream.draw(x_shape, rate=0.5, shared_axes=0), None),
        (None, stream.draw(y_shape, rate=0.5, rows_per_mask=2)),
    ]
    for masks in pairs:
        expected = remembering(arrays, masks)
        for method in ("auto", "skip", "dense"):
            expected.check_backward(gradients(arrays, masks, method), arrays[3], f"{masks}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", TYPICAL, ids=str)
def test_layouts(each_backend, dtype, kinds):
    """Each operand in every layout, the others at rest."""
    (x, w, bias, grad_y), masks, expected = case(kinds, dtype)
    for position, array in ((0, x), (1, w), (3, grad_y)):
        for layout, like in layouts(array.shape, dtype):
            like[...] = array
            arrays = [x, w, bias, grad_y]
            arrays[position] = like
            for method in fitting_methods(*kinds):
                found = gradients(arrays, masks, method)
                expected.check_backward(found, grad_y, f"{position} {layout} {method}")
            assert_identical(like, array)
    shifted = [unaligned(array.ravel()).reshape(array.shape) for array in (x, w, bias, grad_y)]
    for method in fitting_methods(*kinds):
        expected.check_backward(gradients(shifted, masks, method), grad_y, f"unaligned {method}")


def test_gradients_are_new_arrays():
    arrays, masks, _ = case(("units", "units"), numpy.float32)
    for method in METHODS:
        first, second = (gradients(arrays, masks, method) for _ in range(2))
        for gradient in first:
            assert gradient.flags.writeable
            assert not any(numpy.shares_memory(gradient, array) for array in arrays)
        for one, two in itertools.combinations([*first, *second], 2):
            assert not numpy.shares_memory(one, two)


# --- Independent of the reference --------------------------------------------------------------


@pytest.mark.parametrize("kinds", [*TYPICAL, ("samples", "vector"), ("groups", "groups")], ids=str)
@pytest.mark.parametrize("method", ["auto", "skip", "dense"])
def test_finite_differences(each_isa, kinds, method):
    """The loss sum(v * y) is linear in x, in w and in the bias: a step of 1 leaves no remainder.

    What is left is rounding: that of y, of the two sums over it, and of the gradient.
    """
    (x, w, bias, _), masks, _ = case(kinds, numpy.float64, (8, 9), 7)
    v = values((8, 7), numpy.float64, 9)
    found = gradients((x, w, bias, v), masks, method)

    def loss(*arrays):
        y = product((*arrays, None), masks, method)
        _, error = Expected(*arrays[:2], *masks, arrays[2]).forward
        total = (v * y).sum()
        return total, (abs(v) * error).sum() + gamma(v.size, float) * (abs(v) * abs(y)).sum()

    bounds = Expected(x, w, *masks).backward(v)
    for position, (gradient, (_, own_error)) in enumerate(zip(found, bounds, strict=True)):
        for index in numpy.ndindex(gradient.shape):
            ends = []
            for step in (1, -1):
                arrays = [x, w, bias]
                arrays[position] = arrays[position].copy()
                arrays[position][index] += step
                ends.append(loss(*arrays))
            (upper, upper_error), (lower, lower_error) = ends
            # x + 1 - x is 2 up to the rounding of both, and so is the difference it makes.
            steps = 4 * gamma(1, float) * (abs(upper) + abs(lower) + abs(gradient[index]))
            error = (upper_error + lower_error) / 2 + own_error[index] + steps
            assert abs((upper - lower) / 2 - gradient[index]) <= error, (position, index)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", TYPICAL, ids=str)
def test_the_dense_gradient(each_isa, dtype, kinds):
    """The chain rule with dense NumPy in float64, on operands that the masks were selected from."""
    (x, w, _, grad_y), masks, _ = case(kinds, dtype)

    def selected(array, mask):
        array = array.astype(float)
        return (
            array if mask is None else numpy.where(kept(mask, array.shape), array * mask.scale, 0)
        )

    a, g = selected(x, masks[0]), selected(grad_y, masks[1])
    wide = w.astype(float)
    dense = (selected(g @ wide.T, masks[0]), a.T @ g, g.sum(axis=0))
    scale = 1 if masks[0] is None else masks[0].scale
    magnitudes = (abs(g) @ abs(wide.T) * scale, abs(a).T @ abs(g), abs(g).sum(axis=0))
    for method in fitting_methods(*kinds):
        found = gradients((x, w, None, grad_y), masks, method)
        for gradient, expected, magnitude, n in zip(
            found, dense, magnitudes, (UNITS_OUT, ROWS, ROWS), strict=True
        ):
            error = sum_error(magnitude, n + 5, dtype)
            assert (abs(gradient - expected) <= error).all()


def test_dropped_units_have_no_gradient(each_backend):
    """A unit without an active sample has zeros for the gradient of its weights."""
    arrays, masks, _ = case(("units", "units"), numpy.float32)
    active_in, active_out = (mask.to_array()[0] for mask in masks)
    for method in METHODS:
        grad_x, grad_w, grad_bias = gradients(arrays, masks, method)
        assert not grad_x[:, ~active_in].any()
        assert not grad_w[~active_in].any()
        assert not grad_w[:, ~active_out].any()
        assert not grad_bias[~active_out].any()
        assert (grad_w[active_in][:, active_out] != 0).all()


# --- Threads -----------------------------------------------------------------------------------

LARGE = (260, 520), 400
DIFFERENT = [("none", "none"), ("per sample", "per sample"), ("units", "units"), ("groups", "none")]


@pytest.mark.parametrize("kinds", DIFFERENT, ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(each_isa, restore_threads, kinds):
    arrays, masks, expected = case(kinds, numpy.float32, *LARGE)
    for method in METHODS:
        results = []
        for threads in (1, 2, 5):
            set_num_threads(threads)
            results.append(gradients(arrays, masks, method, skip_zeros=True))
        expected.check_backward(results[0], arrays[3], method)
        for result in results[1:]:
            for gradient, first in zip(result, results[0], strict=True):
                assert_identical(gradient, first)


def test_calls_from_several_threads_do_not_disturb_each_other(restore_threads):
    jobs = [
        (case(kinds, numpy.float32, *LARGE), method) for kinds in DIFFERENT for method in METHODS
    ]
    alone = [gradients(arrays, masks, method) for (arrays, masks, _), method in jobs]
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        together = executor.map(lambda job: gradients(*job[0][:2], job[1]), 2 * jobs)
        for found, expected in zip(together, 2 * alone, strict=True):
            for gradient, first in zip(found, expected, strict=True):
                assert_identical(gradient, first)


def test_array_likes_are_taken(each_backend):
    grad_x, grad_w, grad_bias = masked_matmul_backward([[10.0]], [[1.0, 2.0]], [[3.0], [4.0]])
    assert_identical(grad_x, numpy.array([[30.0, 40.0]]))
    assert_identical(grad_w, numpy.array([[10.0], [20.0]]))
    assert_identical(grad_bias, numpy.array([10.0]))
