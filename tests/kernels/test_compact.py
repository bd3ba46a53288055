"""Products of active units against their references, on every instruction set and thread count."""

import numpy
import pytest
from conftest import assert_identical, values
from matrices import DTYPES, SHAPES, Result, matrix, random_bits
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


class Call:
    """The arguments of a kernel but the last, and the reference's answer in float64.

    `kernel` is "compact_matmul" or "compact_gradient"; of `shape` the rows are the batch.
    """

    def __init__(
        self, kernel, shape, dtype, seed=0, *, group=2048, transposed=False, with_bias=False
    ):
        rows, depth, columns = shape
        self.dtype, self.name = dtype, kernel
        # One of the masks may be shared by all rows although the other one is not.
        shared = [max(rows, 1) if seed % 4 == 1 + side else group for side in range(2)]
        bits = [packed(rows, shared[side], shape[1 + side], seed + 2 * side) for side in range(2)]
        scale = float(dtype((1.0, 1 / 0.7, -2.0)[seed % 3]))
        self.arguments = {
            "x": matrix((rows, depth), dtype, seed),
            "bits": bits[0], "rows_per_mask": shared[0], "group": group,
        }  # fmt: skip
        masks = {"out_bits": bits[1], "out_rows_per_mask": shared[1]}
        if kernel == "compact_matmul":
            self.shape, length = (rows, columns), depth
            self.arguments |= {
                "w": matrix((depth, columns), dtype, seed + 1, transposed=transposed),
                "scale": scale,
                "bias": matrix((1, columns), dtype, seed + 2)[0] if with_bias else None,
                "bias_scale": float(dtype((1.0, 1 / 0.3)[seed % 2])),
                **masks,
            }
        else:
            self.shape, length = (depth, columns), rows
            grad = matrix((rows, columns), dtype, seed + 1)
            self.arguments |= {"grad": grad, **masks, "scale": scale}
        self.expected, magnitude = numpy.empty((2, *self.shape))
        self.products = self._twin(self.expected, lambda array: array)
        self._twin(magnitude, numpy.abs)
        # The roundings of the sum, of the scale, of adding the groups or the bias.
        self.error = sum_error(magnitude, length + 3, dtype)
        self.kept = (
            self._kept(bits[0], shared[0], (rows, depth)),
            self._kept(bits[1], shared[1], (rows, columns)),
        )

    @staticmethod
    def _kept(bits, rows_per_mask, shape):
        if bits is None:
            return numpy.ones(shape, bool)
        groups = -(-shape[0] // rows_per_mask)
        kept = numpy.unpackbits(bits, count=groups * shape[1], bitorder="little")
        return kept.reshape(groups, shape[1])[numpy.arange(shape[0]) // rows_per_mask] == 1

    def _twin(self, out, change):
        """Run the reference on float64 copies of the operands, changed."""
        wide = {
            name: change(numpy.asarray(argument, dtype=float))
            for name, argument in self.arguments.items()
            if name in ("x", "w", "grad", "bias", "scale", "bias_scale") and argument is not None
        }
        for name in {"scale", "bias_scale"} & set(wide):
            wide[name] = float(wide[name])
        return getattr(reference, self.name)(**self.arguments | wide, out=out)

    def run(self, **changed):
        """Run the kernel; return the result, compared with nothing."""
        out = Result(self.shape, self.dtype)
        arguments = (self.arguments | changed).values()
        self.counted = getattr(_kernels, self.name)(*arguments, out.matrix)
        return out.checked()

    def check(self, label=""):
        """Run the kernel and compare with the reference; return the result."""
        result = self.run()
        assert_close(result, self.expected, self.error, label)
        assert self.counted == self.products, label
        if self.name == "compact_matmul":
            dropped = result[~self.kept[1]]
        else:
            used = self.kept[0].astype(int).T @ self.kept[1]
            dropped = result[used == 0]
        assert_identical(dropped, numpy.zeros(dropped.shape, self.dtype))
        return result


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
        calls("compact_matmul", shape, dtype, seed, **options).check(f"{shape} {seed} {options}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients(each_isa, each_thread_count, calls, dtype):
    for seed, shape in enumerate(SHAPES):
        group = GROUPS[seed % len(GROUPS)]
        calls("compact_gradient", shape, dtype, seed, group=group).check(f"{shape} {seed} {group}")


@pytest.mark.parametrize("kernel", ["compact_matmul", "compact_gradient"])
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
    each_isa, restore_threads, calls, kernel, shape, group
):
    """Enough work for several threads, and blocks of every kind."""
    for seed in (0, 4, 7, 11):
        options = {"transposed": seed % 2 == 1, "with_bias": seed == 4}
        if kernel == "compact_gradient":
            options = {}
        dtype = DTYPES[seed % 2]
        call = calls(kernel, shape, dtype, seed, group=group, **options)
        results = []
        for threads in (1, 2, 5):
            _kernels.set_num_threads(threads)
            results.append(call.check(f"{seed} {threads} threads"))
        for result in results[1:]:
            assert_identical(result, results[0])


@pytest.mark.parametrize("kernel", ["compact_matmul", "compact_gradient"])
def test_units_that_are_unevenly_spread(each_isa, kernel):
    """Some groups have all of their units where others have none, which no cut can balance."""
    rows, depth, columns = 40, 700, 650
    kept = numpy.zeros((5, depth), bool), numpy.zeros((5, columns), bool)
    for side in kept:
        side[0, : side.shape[1] // 2] = True
        side[1:4, side.shape[1] // 2 :] = True
        side[4, 3] = True
    call = Call(kernel, (rows, depth, columns), numpy.float32, seed=0, group=8)
    bits = [numpy.packbits(side.ravel(), bitorder="little") for side in kept]
    call.arguments |= {"bits": bits[0], "out_bits": bits[1]}
    magnitude = numpy.empty(call.shape)
    call.products = call._twin(call.expected, lambda array: array)
    call._twin(magnitude, numpy.abs)
    assert_close(call.run(), call.expected, sum_error(magnitude, depth + 3, numpy.float32))
    assert call.counted == call.products


@pytest.mark.parametrize("kernel", ["compact_matmul", "compact_gradient"])
def test_every_number_of_active_units(each_isa, kernel):
    """From none to all, on either side, over a block of depth and a panel of columns."""
    call = Call(kernel, (9, 170, 170), numpy.float32, seed=0)
    magnitude = numpy.empty(call.shape)
    for n in range(0, 171, 3):
        for which in ((n, 140), (140, n)):
            bits = [numpy.packbits(numpy.arange(170) < count, bitorder="little") for count in which]
            call.arguments |= {"bits": bits[0], "out_bits": bits[1]}
            call.products = call._twin(call.expected, lambda array: array)
            call._twin(magnitude, numpy.abs)
            error = sum_error(magnitude, 170 + 3, numpy.float32)
            assert_close(call.run(), call.expected, error, f"{which}")
            assert call.counted == call.products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("group", [2048, 8])
def test_what_is_dropped_is_not_read(each_isa, dtype, transposed, group):
    options = {"group": group, "transposed": transposed, "with_bias": True}
    call = Call("compact_matmul", (40, 170, 200), dtype, seed=10, **options)
    expected = call.check()
    kept, kept_columns = call.kept
    assert 0 < kept.sum() < kept.size
    for bad in (numpy.nan, numpy.inf):
        x, bias = call.arguments["x"].copy(), call.arguments["bias"].copy()
        w = call.arguments["w"].copy(order="K")
        x[~kept] = bad
        w[~kept.any(axis=0)] = bad
        w[:, ~kept_columns.any(axis=0)] = bad
        bias[~kept_columns.any(axis=0)] = bad
        assert_identical(call.run(x=x, w=w, bias=bias), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [2048, 8])
def test_gradients_do_not_read_what_is_dropped(each_isa, dtype, group):
    call = Call("compact_gradient", (40, 170, 200), dtype, seed=10, group=group)
    expected = call.check()
    for bad in (numpy.nan, numpy.inf):
        x, grad = call.arguments["x"].copy(), call.arguments["grad"].copy()
        x[~call.kept[0]] = bad
        grad[~call.kept[1]] = bad
        assert_identical(call.run(x=x, grad=grad), expected)
    # What one group keeps does not reach what another one has there.
    x = call.arguments["x"].copy()
    x[0] = numpy.inf
    result = call.run(x=x)
    row = numpy.ix_(call.kept[0][0], call.kept[1][0])
    assert not numpy.isfinite(result[row]).any()
    untouched = numpy.ones(result.shape, bool)
    untouched[row] = False
    assert_identical(result[untouched], expected[untouched])


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_row_stride(each_isa, dtype):
    call = Call("compact_matmul", (33, 50, 70), dtype, seed=0)
    expected = call.check()
    x, w = call.arguments["x"], call.arguments["w"]
    for change in (
        lambda array: array.copy(),
        lambda array: array[::-1].copy()[::-1],
        lambda array: array.repeat(2, axis=0)[::2],
    ):
        assert_identical(call.run(x=change(x)), expected)
        assert_identical(call.run(w=change(w)), expected)
        assert_identical(call.run(w=change(w.T).T), expected)


def test_without_masks_nan_and_infinity_are_what_matmul_makes_of_them(each_isa):
    x, w = values((40, 90)), values((90, 130), seed=1)
    x[values(x.shape, seed=2) > 1] = 0
    x[3, 5], x[4, 6], x[5, 6] = numpy.nan, numpy.inf, -numpy.inf
    w[11, 12], w[13, 14], w[13, 15] = numpy.nan, numpy.inf, -numpy.inf
    out = numpy.empty((40, 130), numpy.float32)
    _kernels.compact_matmul(x, None, 1, 40, w, 1.0, None, 1.0, None, 1, out)
    with numpy.errstate(invalid="ignore"):
        expected = x @ w
    numpy.testing.assert_array_equal(numpy.isnan(out), numpy.isnan(expected))
    infinite = numpy.isinf(expected)
    numpy.testing.assert_array_equal(out[infinite], expected[infinite])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_columns(each_isa, each_thread_count, dtype):
    for seed, (rows, columns, _) in enumerate([*SHAPES, (700, 1300, 0)]):
        x, rows_per_mask = matrix((rows, columns), dtype, seed), GROUPS[seed % len(GROUPS)]
        bits = packed(rows, rows_per_mask, columns, seed)
        kept = Call._kept(bits, rows_per_mask, x.shape)
        x = numpy.where(kept, x, dtype(numpy.nan))
        out, scale = numpy.full(columns + 2, 7, dtype), float(dtype(1 / 0.7))
        expected, magnitude = numpy.empty((2, columns))
        reference.masked_sums(x.astype(float), bits, rows_per_mask, scale, expected)
        reference.masked_sums(abs(x.astype(float)), bits, rows_per_mask, scale, magnitude)
        _kernels.masked_sums(x, bits, rows_per_mask, scale, out[1:-1])
        assert_close(out[1:-1], expected, sum_error(magnitude, rows + 1, dtype), f"{seed}")
        assert out[0] == out[-1] == 7
