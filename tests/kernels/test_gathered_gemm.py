"""Products of active units against their references, on every instruction set and thread count."""

import numpy
import pytest
from conftest import assert_identical, values
from matrices import DTYPES, SHAPES, matrix, random_bits
from product_calls import ProductCall, RowMask
from rounding import assert_close, sum_error

from fastdrop import _kernels, reference

DENSITIES = (0.5, 0.05, 1.0, 0.0, 0.9)
# Rows of a group; 2048 are more than any of the shapes has.
GROUPS = (2048, 1, 4, 5, 8, 32, 100)


def packed(rows, rows_per_mask, width, seed):
    """Packed bits of a mask of `rows` rows in groups, of every density; every sixth is None."""
    if seed % 6 == 5:
        return None
    groups = max(-(-rows // rows_per_mask), 1)
    return random_bits(groups * width, DENSITIES[seed % len(DENSITIES)], seed)


class Call(ProductCall):
    """A product or a gradient of kept units; of `shape` (rows, depth, columns), rows are the batch.

    The gradient is x' @ grad, of the shape (depth, columns).
    """

    def __init__(
        self, kind, shape, dtype, seed=0, *, group=2048, transposed=False, with_bias=False
    ):
        rows, depth, columns = self.batch = shape
        # One of the masks may be shared by all rows although the other one is not.
        shared = [max(rows, 1) if seed % 4 == 1 + side else group for side in range(2)]
        scales = float(dtype((1.0, 1 / 0.7, -2.0)[seed % 3])), (1.0, 4.0)[seed % 2]
        masks = [
            RowMask(packed(rows, every, width, seed + 2 * side), every, scale)
            for side, every, width, scale in zip(range(2), shared, shape[1:], scales, strict=True)
        ]
        options = {"method": "compact", "mask_a": masks[0]}
        if kind == "product":
            options |= {"mask_c": masks[1], "transposed_b": transposed, "with_bias": with_bias}
        else:
            shape = depth, rows, columns
            options |= {"mask_b": masks[1], "sum_rows": True}
        super().__init__(shape, dtype, seed, **options)
        self.kind = kind
        self.kept_sides = masks[0].kept((rows, depth)), masks[1].kept((rows, columns))

    def check(self, label=""):
        result = super().check(label)
        if self.kind == "gradient":
            used = self.kept_sides[0].astype(int).T @ self.kept_sides[1]
            dropped = result[used == 0]
            assert_identical(dropped, numpy.zeros(dropped.shape, self.dtype))
        return result

    def remask(self, *bits):
        """Take other bits for the two masks; compute the reference again."""
        second = "mask_c" if self.kind == "product" else "mask_b"
        for name, part in zip(("mask_a", second), bits, strict=True):
            self.options[name] = self.options[name]._replace(bits=part)
        self.count = self.compute_reference()
        self.error = sum_error(self.magnitude, max(self.batch) + 3, self.dtype)


@pytest.fixture(scope="module")
def calls():
    """Calls by their parameters: every instruction set and thread count is given the same."""
    made = {}

    def call(*arguments, **options):
        key = (*arguments, *sorted(options.items()))
        if key not in made:
            made[key] = Call(*arguments, **options)
        return made[key]

    return call


@pytest.mark.parametrize("dtype", DTYPES)
def test_products(each_isa, each_thread_count, calls, dtype):
    for seed, shape in enumerate(SHAPES):
        options = {
            "group": GROUPS[seed % len(GROUPS)],
            "transposed": seed // len(GROUPS) % 2 == 1,
            "with_bias": seed % 3 == 1,
        }
        calls("product", shape, dtype, seed, **options).check(f"{shape} {seed} {options}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(each_isa, each_thread_count, calls, dtype):
    for seed, shape in enumerate(SHAPES):
        group = GROUPS[seed % len(GROUPS)]
        calls("gradient", shape, dtype, seed, group=group).check(f"{shape} {seed} {group}")


@pytest.mark.parametrize("kind", ["product", "gradient"])
@pytest.mark.parametrize(
    ("shape", "group"),
    [
        ((600, 300, 500), 2048),  # rows in more than one pass
        ((1030, 130, 90), 600),  # a group in parts
        ((330, 200, 270), 8),  # groups in more than one pass
        ((75, 700, 450), 32),
        ((37, 900, 1100), 2048),
        ((130, 150, 1500), 2),  # gradients of more groups than the cache holds
        ((37, 90, 5000), 2048),  # and of longer rows
    ],
)
def test_bits_do_not_depend_on_the_number_of_threads(
    each_isa, restore_threads, calls, kind, shape, group
):
    """Enough work for several threads, and blocks of every kind."""
    for seed in (0, 4, 7, 11):
        options = {"transposed": seed % 2 == 1, "with_bias": seed == 4}
        if kind == "gradient":
            options = {}
        dtype = DTYPES[seed % 2]
        call = calls(kind, shape, dtype, seed, group=group, **options)
        results = []
        for threads in (1, 2, 5):
            _kernels.set_num_threads(threads)
            results.append(call.check(f"{seed} {threads} threads"))
        for result in results[1:]:
            assert_identical(result, results[0])


@pytest.mark.parametrize("kind", ["product", "gradient"])
def test_units_that_are_unevenly_spread(each_isa, kind):
    """Some groups have all of their units where others have none, which no cut can balance."""
    rows, depth, columns = 40, 700, 650
    kept = numpy.zeros((5, depth), bool), numpy.zeros((5, columns), bool)
    for side in kept:
        side[0, : side.shape[1] // 2] = True
        side[1:4, side.shape[1] // 2 :] = True
        side[4, 3] = True
    call = Call(kind, (rows, depth, columns), numpy.float32, seed=0, group=8)
    call.remask(*(numpy.packbits(side.ravel(), bitorder="little") for side in kept))
    assert_close(call.run(), call.expected, call.error)
    assert call.counted == call.count


@pytest.mark.parametrize("kind", ["product", "gradient"])
def test_every_number_of_active_units(each_isa, kind):
    """From none to all, on either side, over a block of depth and a panel of columns."""
    call = Call(kind, (9, 170, 170), numpy.float32, seed=0)
    for n in range(0, 171, 3):
        for which in ((n, 140), (140, n)):
            call.remask(*(numpy.packbits(numpy.arange(170) < m, bitorder="little") for m in which))
            assert_close(call.run(), call.expected, call.error, f"{which}")
            assert call.counted == call.count


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("group", [2048, 8])
def test_what_is_dropped_is_not_read(each_isa, dtype, transposed, group):
    options = {"group": group, "transposed": transposed, "with_bias": True}
    call = Call("product", (40, 170, 200), dtype, seed=10, **options)
    expected = call.check()
    kept, kept_columns = call.kept_sides
    assert 0 < kept.sum() < kept.size
    for bad in (numpy.nan, numpy.inf):
        x, bias = call.operands["a"].copy(), call.operands["bias"].copy()
        w = call.operands["b"].copy(order="K")
        x[~kept] = bad
        w[~kept.any(axis=0)] = bad
        w[:, ~kept_columns.any(axis=0)] = bad
        bias[~kept_columns.any(axis=0)] = bad
        assert_identical(call.run(a=x, b=w, bias=bias), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [2048, 8])
def test_gradients_do_not_read_what_is_dropped(each_isa, dtype, group):
    call = Call("gradient", (40, 170, 200), dtype, seed=10, group=group)
    expected = call.check()
    for bad in (numpy.nan, numpy.inf):
        x, grad = call.operands["a"].T.copy(), call.operands["b"].copy()
        x[~call.kept_sides[0]] = bad
        grad[~call.kept_sides[1]] = bad
        assert_identical(call.run(a=x.T, b=grad), expected)
    # What one group keeps does not reach what another one has there.
    x = call.operands["a"].T.copy()
    x[0] = numpy.inf
    result = call.run(a=x.T)
    row = numpy.ix_(call.kept_sides[0][0], call.kept_sides[1][0])
    assert not numpy.isfinite(result[row]).any()
    untouched = numpy.ones(result.shape, bool)
    untouched[row] = False
    assert_identical(result[untouched], expected[untouched])


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_row_stride(each_isa, dtype):
    call = Call("product", (33, 50, 70), dtype, seed=0)
    expected = call.check()
    x, w = call.operands["a"], call.operands["b"]
    for change in (
        lambda array: array.copy(),
        lambda array: array[::-1].copy()[::-1],
        lambda array: array.repeat(2, axis=0)[::2],
    ):
        assert_identical(call.run(a=change(x)), expected)
        assert_identical(call.run(b=change(w)), expected)
        assert_identical(call.run(b=change(w.T).T), expected)


def test_without_masks_nan_and_infinity_are_what_matmul_makes_of_them(each_isa):
    x, w = values((40, 90)), values((90, 130), seed=1)
    x[values(x.shape, seed=2) > 1] = 0
    x[3, 5], x[4, 6], x[5, 6] = numpy.nan, numpy.inf, -numpy.inf
    w[11, 12], w[13, 14], w[13, 15] = numpy.nan, numpy.inf, -numpy.inf
    out = numpy.empty((40, 130), numpy.float32)
    _kernels.matmul(_kernels.Product(x, w, out, method="compact"))
    with numpy.errstate(invalid="ignore"):
        expected = x @ w
    numpy.testing.assert_array_equal(numpy.isnan(out), numpy.isnan(expected))
    infinite = numpy.isinf(expected)
    numpy.testing.assert_array_equal(out[infinite], expected[infinite])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_columns(each_isa, each_thread_count, dtype):
    for seed, (rows, columns, _) in enumerate([*SHAPES, (700, 1300, 0)]):
        x, rows_per_mask = matrix((rows, columns), dtype, seed), GROUPS[seed % len(GROUPS)]
        mask = RowMask(
            packed(rows, rows_per_mask, columns, seed), rows_per_mask, float(dtype(1 / 0.7))
        )
        x = numpy.where(mask.kept(x.shape), x, dtype(numpy.nan))
        out = numpy.full(columns + 2, 7, dtype)
        expected, magnitude = numpy.empty((2, columns))
        reference.masked_sums(x.astype(float), mask, expected)
        reference.masked_sums(abs(x.astype(float)), mask, magnitude)
        _kernels.masked_sums(x, mask, out[1:-1])
        assert_close(out[1:-1], expected, sum_error(magnitude, rows + 1, dtype), f"{seed}")
        assert out[0] == out[-1] == 7
