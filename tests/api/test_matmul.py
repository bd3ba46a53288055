"""masked_matmul: every mask and method, shapes, layouts, out=, threads."""

import concurrent.futures
import functools
import itertools
import os
import tracemalloc

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
    make_mask,
    operands,
    product,
)

from fastdrop import Mask, MaskStream, masked_matmul, set_num_threads

ROWS, UNITS_IN, UNITS_OUT = 40, 33, 50
PAIRS = list(itertools.product(MASKS, repeat=2))
TYPICAL = [("none", "none"), ("per sample", "per sample"), ("units", "units"), ("groups", "none")]


@functools.cache
def case(kinds, dtype, x_shape=(ROWS, UNITS_IN), units_out=UNITS_OUT, with_bias=True, scale=None):
    """Operands, masks and the expected result; one of each for all backends and threads."""
    x, w, bias, grad_y = operands(x_shape, units_out, dtype)
    shapes = (x_shape, (*x_shape[:-1], units_out))
    masks = [
        make_mask(kind, shape, seed, scale)
        for seed, (kind, shape) in enumerate(zip(kinds, shapes, strict=True))
    ]
    bias = bias if with_bias else None
    return (x, w, bias, grad_y), masks, Expected(x, w, *masks, bias)


# --- Masks and methods -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_all_masks_and_methods(each_backend, dtype, with_bias):
    for kinds in SOME_PAIRS if each_backend == "numpy" else PAIRS:
        arrays, masks, expected = case(kinds, dtype, with_bias=with_bias)
        for method in fitting_methods(*kinds):
            for skip_zeros in (False, True):
                y = product(arrays, masks, method, skip_zeros=skip_zeros)
                expected.check(y, f"{kinds} {method} skip_zeros={skip_zeros}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1, 0, -0.7, 1e-3])
def test_scales(each_backend, dtype, scale):
    for kinds in itertools.product(("none", "per sample", "units", "groups"), repeat=2):
        arrays, masks, expected = case(kinds, dtype, scale=scale)
        for method in fitting_methods(*kinds):
            expected.check(product(arrays, masks, method), f"{kinds} {method}")


def test_the_formula(each_backend):
    """By hand: s_out m_out ∘ ((s_in m_in ∘ x) @ w + bias)."""
    x, w = numpy.array([[1.0, 2.0, 3.0]]), numpy.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    mask_in = Mask.from_array([[True, False, True]]).with_scale(3)
    mask_out = Mask.from_array([[False, True]]).with_scale(0.5)
    for method in METHODS:
        y = masked_matmul(
            x, w, mask_in=mask_in, mask_out=mask_out, bias=numpy.array([7.0, 8.0]), method=method
        )
        assert_identical(y, numpy.array([[0, 0.5 * (3 * (10 + 120) + 8)]]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", TYPICAL, ids=str)
def test_shapes(each_backend, dtype, kinds):
    sizes = (0, 1, 2, 16, 17, 64, 65, 129)
    for number, (rows, units_in) in enumerate(itertools.product(sizes, repeat=2)):
        units_out = sizes[(3 * number + number // 8) % len(sizes)]
        with_bias = number % 3 != 0
        arrays, masks, expected = case(kinds, dtype, (rows, units_in), units_out, with_bias)
        for method in fitting_methods(*kinds):
            y = product(arrays, masks, method, skip_zeros=number % 2 == 0)
            expected.check(y, f"({rows}, {units_in}) @ ({units_in}, {units_out}) {method}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("leading", [(), (6,), (3, 5), (2, 1, 4), (0, 3), (3, 0), (1, 1, 1, 2)])
def test_axes_in_front(each_backend, dtype, leading):
    """A mask may be of the full shape, of fewer axes, of length 1 on any, or grouped by rows."""
    x, w, bias, _ = operands((*leading, 33), 20, dtype)
    stream = MaskStream(1)
    shapes = {"in": x.shape, "out": (*leading, 20)}
    masks = {}
    for side, shape in shapes.items():
        axes = range(len(shape))
        masks[side] = [
            None,
            stream.draw(shape, rate=0.5),
            *(stream.draw(shape, rate=0.4, shared_axes=axis) for axis in axes),
            stream.draw(shape, rate=0.4, shared_axes=tuple(axes[:-1])),
            stream.draw(shape[-1:], rate=0.5),
            stream.draw(shape[-2:], rate=0.5),
        ]
        if leading:
            masks[side] += [
                stream.draw(shape, rate=0.5, rows_per_mask=2),
                stream.draw(shape, rate=0.5, rows_per_mask="batch"),
            ]
    for pair in itertools.product(*masks.values()):
        expected = Expected(x, w, *pair, bias)
        for method in ("auto", "skip", "dense"):
            expected.check(product((x, w, bias, None), pair, method), f"{pair} {method}")


def test_array_likes_are_taken(each_backend):
    y = masked_matmul([[1.0, 2.0]], [[3.0], [4.0]], bias=[5.0])
    assert_identical(y, numpy.array([[16.0]]))


# --- Layouts and out= --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", TYPICAL, ids=str)
def test_layouts_of_the_operands(each_backend, dtype, kinds):
    (x, w, bias, _), masks, expected = case(kinds, dtype)
    for (x_layout, x_like), (w_layout, w_like) in itertools.product(
        layouts(x.shape, dtype), layouts(w.shape, dtype)
    ):
        x_like[...], w_like[...] = x, w
        for method in fitting_methods(*kinds):
            y = product((x_like, w_like, bias, None), masks, method)
            expected.check(y, f"x {x_layout}, w {w_layout}, {method}")
        assert_identical(x_like, x)
        assert_identical(w_like, w)


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast_operands(each_backend, dtype):
    x = numpy.broadcast_to(values((1, UNITS_IN), dtype), (ROWS, UNITS_IN))
    w = numpy.broadcast_to(values((UNITS_IN, 1), dtype), (UNITS_IN, UNITS_OUT))
    bias = numpy.broadcast_to(values(1, dtype), UNITS_OUT)
    for kinds in TYPICAL:
        masks = case(kinds, dtype)[1]
        expected = Expected(x, w, *masks, bias)
        for method in fitting_methods(*kinds):
            expected.check(product((x, w, bias, None), masks, method), f"{kinds} {method}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", TYPICAL, ids=str)
def test_layouts_of_out(each_backend, dtype, kinds):
    arrays, masks, expected = case(kinds, dtype)
    for layout, out in layouts((ROWS, UNITS_OUT), dtype):
        for method in fitting_methods(*kinds):
            out[...] = numpy.nan
            assert product(arrays, masks, method, out=out) is out
            expected.check(out, f"{layout} {method}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_with_axes_in_front(each_backend, dtype):
    x, w, bias, _ = operands((3, 5, 33), 20, dtype)
    masks = [make_mask("per sample", shape) for shape in (x.shape, (3, 5, 20))]
    expected = Expected(x, w, *masks, bias)
    for layout, out in layouts((3, 5, 20), dtype):
        for method in METHODS:
            assert product((x, w, bias, None), masks, method, out=out) is out
            expected.check(out, f"{layout} {method}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_writes_nothing_between_its_elements(each_backend, dtype):
    arrays, masks, expected = case(("units", "units"), dtype)
    for method in METHODS:
        around = numpy.full((2 * ROWS, 2 * UNITS_OUT), 7, dtype)
        wide = numpy.full((ROWS, UNITS_OUT + 9), 7, dtype)
        for out in (around[::2, 1::2], wide[:, 4:-5]):
            expected.check(product(arrays, masks, method, out=out), method)
        assert (around[1::2] == 7).all()
        assert (around[:, ::2] == 7).all()
        assert (wide[:, :4] == 7).all()
        assert (wide[:, -5:] == 7).all()


@pytest.mark.parametrize("method", METHODS)
def test_out_beside_an_operand_in_one_buffer(method):
    """They do not overlap, although they lie between each other."""
    (x, w, bias, _), masks, expected = case(("units", "units"), numpy.float32)
    together = numpy.empty((ROWS, UNITS_IN + UNITS_OUT), numpy.float32)
    beside, out = together[:, :UNITS_IN], together[:, UNITS_IN:]
    beside[...] = x
    product((beside, w, bias, None), masks, method, out=out)
    expected.check(out)
    assert_identical(beside, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unaligned_arrays(each_backend, dtype):
    for kinds in TYPICAL:
        (x, w, bias, _), masks, expected = case(kinds, dtype)
        shifted = [unaligned(array.ravel()).reshape(array.shape) for array in (x, w, bias)]
        out = unaligned(numpy.empty(ROWS * UNITS_OUT, dtype)).reshape(ROWS, UNITS_OUT)
        assert not any(array.flags.aligned for array in (*shifted, out))
        for method in fitting_methods(*kinds):
            expected.check(product((*shifted, None), masks, method, out=out), f"{kinds} {method}")


# --- Repetition, threads, memory ---------------------------------------------------------------

LARGE = (260, 520), 400
DIFFERENT = [
    ("none", "none"),
    ("per sample", "none"),
    ("per sample", "per sample"),
    ("units", "units"),
    ("groups", "groups"),
    ("none", "units"),
]


@pytest.mark.parametrize("kinds", DIFFERENT, ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(each_isa, restore_threads, kinds):
    arrays, masks, expected = case(kinds, numpy.float32, *LARGE)
    for method, skip_zeros in itertools.product(METHODS, (False, True)):
        results = []
        for threads in (1, 2, 5):
            set_num_threads(threads)
            results.append(product(arrays, masks, method, skip_zeros=skip_zeros))
        expected.check(results[0], f"{method} skip_zeros={skip_zeros}")
        for y in results[1:]:
            assert_identical(y, results[0])


def test_calls_from_several_threads_do_not_disturb_each_other(restore_threads):
    jobs = [
        (case(kinds, dtype, *LARGE), method)
        for kinds, dtype in zip(DIFFERENT, 3 * DTYPES, strict=True)
        for method in METHODS
    ]
    alone = [product(arrays, masks, method) for (arrays, masks, _), method in jobs]
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        together = executor.map(lambda job: product(*job[0][:2], job[1]), 2 * jobs)
        for y, expected in zip(together, 2 * alone, strict=True):
            assert_identical(y, expected)


@pytest.mark.skipif(
    os.environ.get("FASTDROP_BACKEND") == "numpy", reason="the NumPy references keep no work arrays"
)
@pytest.mark.parametrize("method", ["compact", "skip"])
def test_work_arrays_are_reused(method):
    """The second call needs little more memory than the unpacked bits of the units."""
    (x, w, bias, _), masks, _ = case(("units", "units"), numpy.float32, (256, 1024), 1024)
    out = numpy.empty((256, 1024), numpy.float32)
    product((x, w, bias, None), masks, method, out=out)
    tracemalloc.start()
    product((x, w, bias, None), masks, method, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000
