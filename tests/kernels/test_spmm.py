"""The product that skips against its reference, on every instruction set and thread count.

Sums agree within a bound derived from their length. Whatever lies beside an operand is NaN here, so
that a kernel that computed with it would show it; what lies beside a result is looked at
afterwards.
"""

import numpy
import pytest
from conftest import assert_identical, values
from matrices import DENSITIES, DTYPES, SHAPES, random_bits
from product_calls import ProductCall, RowMask
from rounding import assert_close, gamma, sum_error

from fastdrop import _kernels, reference


class Call(ProductCall):
    """A product of the stored elements of a; `transposed`: a sum over rows, which masks are of."""

    def __init__(
        self,
        shape,
        dtype,
        seed=0,
        *,
        transposed=False,
        transposed_w=False,
        density=None,
        rows_per_mask=1,
        out_density=None,
        out_rows_per_mask=1,
        w_density=None,
        w_rows_per_mask=1,
        scale=1.0,
        bias_scale=1.0,
        **options,
    ):
        rows, depth, columns = shape
        masked, wide = (depth, rows) if transposed else (rows, depth)

        def mask(density, rows, every, width, seed, scale):
            bits = None
            if density is not None:
                bits = random_bits(-(-rows // every) * width, density, seed)
            return RowMask(bits, every, float(dtype(scale)))

        options["mask_a"] = mask(density, masked, rows_per_mask, wide, seed, scale)
        if transposed:
            options |= {"sum_rows": True, "with_bias": False}
            options["mask_b"] = mask(w_density, depth, w_rows_per_mask, columns, seed + 2, 1.0)
        else:
            options["transposed_b"] = transposed_w
            options["mask_c"] = mask(
                out_density, rows, out_rows_per_mask, columns, seed + 1, bias_scale
            )
        super().__init__(shape, dtype, seed, method="skip", **options)


@pytest.fixture(scope="module")
def calls():
    """Calls by their parameters: every instruction set and thread count is given the same."""
    made = {}

    def call(shape, dtype, seed=0, **options):
        key = (shape, dtype, seed, *sorted(options.items()))
        if key not in made:
            made[key] = Call(shape, dtype, seed, **options)
        return made[key]

    return call


def options_of(number, shape, transposed):
    """One of many combinations of the options, the same for the same number."""
    masked = shape[1] if transposed else shape[0]
    every = max(masked, 1)
    return {
        "density": (0.5, 0.05, None, 1.0, 0.0)[number % 5],
        "rows_per_mask": (1, every, 7, 1, 4, 32)[number % 6],
        "skip_zeros": number % 4 == 3,
        "with_bias": number % 3 == 1,
        "out_density": (None, 0.5, None, 0.1)[number % 4],
        "out_rows_per_mask": (1, 5, max(shape[0], 1))[number % 3],
        "scale": (1.0, 2.0, 1 / 0.7, -3.0)[number % 4],
        "bias_scale": (1.0, 4.0)[number % 2],
        "w_density": (None, 0.5, None, None, 0.9, None, 0.0)[number % 7],
        "w_rows_per_mask": (1, 8, max(shape[1], 1))[number // 7 % 3],
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed_w", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_shapes(each_isa, each_thread_count, calls, dtype, transposed, transposed_w):
    for number, shape in enumerate(SHAPES):
        options = options_of(number, shape, transposed)
        call = calls(shape, dtype, transposed=transposed, transposed_w=transposed_w, **options)
        call.check(f"{shape} {options}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_sizes_of_the_cache(each_isa, calls, dtype, transposed):
    """A block's depth and a panel's width follow the cache. Sums are made in order of the depth,
    but for the places of a block that two rows have in common, where registers hold both."""
    two_rows = each_isa in ("avx512", "neon")
    for number, shape in enumerate([(33, 129, 200), (130, 95, 70), (8, 300, 129), (200, 128, 33)]):
        for rows_per_mask in (1, 8):
            options = {"density": (0.3, 0.9)[number % 2], "rows_per_mask": rows_per_mask}
            call = calls(shape, dtype, number, transposed=transposed, **options)
            found = []
            for size in (16, 32, 48, 64, 1024):
                _kernels.assume_first_level_cache(size << 10)
                try:
                    found.append(call.check(f"{shape} {options} {size} KB"))
                finally:
                    _kernels.assume_first_level_cache(0)
            if not two_rows:
                for other in found[1:]:
                    assert_identical(other, found[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("skip_zeros", [False, True])
def test_masks(each_isa, calls, dtype, transposed, skip_zeros):
    """Every density with every way of sharing a mask, also in more rows than a block has."""
    for shape in ((70, 100, 140), (600, 65, 33)):
        masked = shape[1] if transposed else shape[0]
        for density in DENSITIES:
            for rows_per_mask in (1, 2, 3, 4, 7, 8, 9, 32, masked, masked + 1, 10**9):
                options = {"density": density, "rows_per_mask": rows_per_mask}
                call = calls(shape, dtype, transposed=transposed, skip_zeros=skip_zeros, **options)
                call.check(f"{shape} {options}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed_w", [False, True])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        # Enough for five threads, of lists and of panels.
        ((517, 700, 600), {"density": 0.5}),
        ((517, 700, 600), {"density": 0.3, "rows_per_mask": 32, "with_bias": True}),
        ((700, 517, 600), {"density": 0.5, "transposed": True}),
        ((300, 517, 400), {"skip_zeros": True, "out_density": 0.5}),
        # Five blocks of rows, four of them together.
        ((2100, 90, 150), {"density": 0.5, "transposed": True, "w_density": 0.5}),
        ((2100, 150, 33), {"skip_zeros": True, "with_bias": True, "w_density": 0.5}),
        # Deeper than what is compressed at a time: sums go on where they were left.
        ((9, 8200, 150), {"density": 0.5, "with_bias": True, "out_density": 0.5, "scale": 2.0}),
        ((9, 8200, 150), {"density": 0.5, "rows_per_mask": 9, "with_bias": True, "scale": 2.0}),
        ((21, 4100, 150), {"skip_zeros": True, "density": 0.5, "transposed": True}),
    ],
    ids=str,
)
def test_results_do_not_depend_on_threads(
    each_isa, restore_threads, calls, dtype, transposed_w, shape, options
):
    call = calls(shape, dtype, transposed_w=transposed_w, **options)
    results = []
    for threads in (1, 2, 5):
        _kernels.set_num_threads(threads)
        results.append(call.check(f"{threads} threads"))
    for result in results[1:]:
        assert_identical(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_spmm_takes_any_row_stride(each_isa, calls, dtype):
    call = calls((33, 50, 70), dtype, density=0.5, skip_zeros=True)
    expected = call.check()
    x, w = call.operands["a"], call.operands["b"]
    for change in (
        lambda a: a.copy(),
        lambda a: a[::-1].copy()[::-1],
        lambda a: a.repeat(2, 0)[::2],
    ):
        assert_identical(call.run(a=change(x)), expected)
        assert_identical(call.run(b=change(w)), expected)
        assert_identical(call.run(b=change(w.T).T), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_per_mask", [1, 40])
@pytest.mark.parametrize("transposed", [False, True])
def test_spmm_reads_nothing_dropped(each_isa, calls, dtype, rows_per_mask, transposed):
    """NaN and infinity in dropped elements of x, and in rows of w that none keeps."""
    call = calls(
        (40, 90, 130),
        dtype,
        density=0.5,
        rows_per_mask=rows_per_mask,
        transposed=transposed,
        out_density=0.5,
    )
    expected = call.check()
    kept = call.kept("mask_a", (90, 40) if transposed else (40, 90))
    kept = kept.T if transposed else kept
    for dropped in (numpy.nan, numpy.inf, -numpy.inf):
        x = call.operands["a"].copy(order="K")
        x[~kept] = dropped
        w = call.operands["b"].copy()
        w[~kept.any(axis=0)] = dropped
        assert_identical(call.run(a=x, b=w), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 90, 130), (3, 90, 130)])
def test_spmm_reads_nothing_dropped_of_w(each_isa, calls, dtype, shape):
    call = calls(shape, dtype, density=0.5, w_density=0.5, w_rows_per_mask=8, transposed=True)
    expected = call.check()
    kept = call.kept("mask_b", shape[1:])
    for dropped in (numpy.nan, numpy.inf, -numpy.inf):
        w = call.operands["b"].copy()
        w[~kept] = dropped
        assert_identical(call.run(b=w), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf])
def test_spmm_meets_nan_only_where_it_is_stored(each_isa, calls, dtype, bad):
    """Row k of w reaches the rows of x that keep, or do not have 0 as, element k."""
    for options in (
        {"density": 0.5},
        {"density": 0.5, "rows_per_mask": 8},
        {"skip_zeros": True},
        {"density": 0.5, "skip_zeros": True},
    ):
        call = calls((40, 90, 130), dtype, **options)
        clean = call.check()
        w = call.operands["b"].copy()
        w[17] = bad
        result = call.run(b=w)
        stored = call.kept("mask_a", (40, 90))
        if call.options.get("skip_zeros"):
            stored = stored & (call.operands["a"] != 0)
        reached = stored[:, 17]
        assert 0 < reached.sum() < 40
        assert not numpy.isfinite(result[reached]).any()
        assert_identical(result[~reached], clean[~reached])


@pytest.mark.parametrize("dtype", DTYPES)
def test_spmm_without_masks_treats_nan_as_matmul_does(each_isa, dtype):
    x, w = values((40, 90), dtype), values((90, 130), dtype, 1)
    x[values((40, 90), seed=2) > 1] = 0
    x[3, 5], x[4, 6], x[5, 6] = numpy.nan, numpy.inf, -numpy.inf
    w[11, 12], w[13, 14], w[13, 15] = numpy.nan, numpy.inf, -numpy.inf
    out = numpy.empty((40, 130), dtype)
    _kernels.matmul(_kernels.Product(x, w, out, method="skip"))
    with numpy.errstate(invalid="ignore"):
        expected = x @ w
    numpy.testing.assert_array_equal(numpy.isnan(out), numpy.isnan(expected))
    infinite = numpy.isinf(expected)
    assert infinite.any()
    numpy.testing.assert_array_equal(out[infinite], expected[infinite])


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_numbers_count_as_non_zero(each_isa, dtype):
    special = [0.0, -0.0, numpy.nan, numpy.inf, numpy.finfo(dtype).smallest_subnormal, 1.0]
    for depth in (6, 17, 48, 64, 100):
        x = numpy.resize(numpy.array(special, dtype), (5, depth))
        for transposed in (False, True):
            operand = numpy.asfortranarray(x) if transposed else x
            product = _kernels.Product(
                operand, numpy.ones((depth, 3), dtype), numpy.empty((5, 3), dtype),
                skip_zeros=True, sum_rows=transposed, method="skip",
            )  # fmt: skip
            assert _kernels.matmul(product) == 3 * numpy.count_nonzero(x)


# --- The test's own means ----------------------------------------------------------------------


def test_both_have_the_matrix_kernels():
    for name in ("Product", "gather", "masked_sums", "matmul", "plan", "scatter"):
        assert callable(getattr(_kernels, name))
        assert callable(getattr(reference, name))


def test_the_bound_is_neither_too_small_nor_useless():
    """Recursive summation keeps it; a single lost product does not."""
    x, w = values(1000, seed=1), values(1000, seed=2)
    wide = x.astype(float) * w
    error = sum_error(abs(wide).sum(), 1000, numpy.float32)
    total = numpy.cumsum(x * w, dtype=numpy.float32)[-1]
    assert abs(total - wide.sum()) < error
    assert numpy.median(abs(wide)) > error
    assert gamma(1, numpy.float32) == pytest.approx(2**-24, rel=1e-6)


def test_a_wrong_result_is_noticed(calls):
    call = calls((40, 90, 130), numpy.float32, density=0.5)
    wrong = call.run()
    wrong[39, 129] += 0.01
    with pytest.raises(
        AssertionError, match=r"1 of 5200 beyond the bound, the worst at \(39, 129\)"
    ):
        assert_close(wrong, call.expected, call.error)
    wrong[0, 0] = numpy.nan
    with pytest.raises(AssertionError, match=r"2 of 5200 .* \(0, 0\): np.float32\(nan\)"):
        assert_close(wrong, call.expected, call.error)
