"""The product of active units against its twin, on every instruction set and thread count."""

import numpy
import pytest
from conftest import assert_identical, values
from matrices import DTYPES, SHAPES, Result, matrix, number_of_active, random_bits, units
from rounding import assert_close, sum_error

from fastdrop import _kernels, reference


class Call:
    """The arguments of `compact_matmul` but the last, and the twin's answer in float64."""

    def __init__(self, shape, dtype, seed=0, *, transposed=False, with_bias=False, which=None):
        rows, depth, columns = shape
        self.dtype, self.shape = dtype, (rows, columns)
        depth_bits, depth_offset, column_bits, column_offset = which or units(shape[1:], seed)
        self.arguments = {
            "x": matrix((rows, depth), dtype, seed),
            "transposed": False,
            "bits": depth_bits,
            "offset": depth_offset,
            "w": matrix((depth, columns), dtype, seed + 1, transposed=transposed),
            "column_bits": column_bits,
            "column_offset": column_offset,
            "scale": float(dtype((1.0, 1 / 0.7, -2.0)[seed % 3])),
            "bias": matrix((1, columns), dtype, seed + 2)[0] if with_bias else None,
            "bias_scale": float(dtype((1.0, 1 / 0.3)[seed % 2])),
            "accumulate": False,
        }
        self.expected, magnitude = numpy.zeros((2, *self.shape))
        self.multiplied = self._twin(self.expected, lambda array: array)
        self._twin(magnitude, numpy.abs)
        # The roundings of the sum, of the scale, and of adding the bias.
        self.error = sum_error(magnitude, depth + 2, dtype)
        active = numpy.zeros(columns, bool)
        if column_bits is None:
            active[:] = True
        else:
            whole = numpy.unpackbits(column_bits, bitorder="little")
            active[:] = whole[column_offset : column_offset + columns]
        self.active_columns = active

    def _twin(self, out, change):
        """Run the twin on float64 copies of the operands, changed."""
        wide = {
            name: change(numpy.asarray(argument, dtype=float))
            for name, argument in self.arguments.items()
            if name in ("x", "w", "bias", "scale", "bias_scale") and argument is not None
        }
        wide["scale"], wide["bias_scale"] = float(wide["scale"]), float(wide["bias_scale"])
        return reference.compact_matmul(**self.arguments | wide, out=out)

    def run(self, **changed):
        """Run the kernel; return the result, compared with nothing."""
        out = Result(self.shape, self.dtype)
        self.counted = _kernels.compact_matmul(*(self.arguments | changed).values(), out.matrix)
        return out.checked()

    def check(self, label=""):
        """Run the kernel and compare with the twin; return the result."""
        result = self.run()
        assert_close(result, self.expected, self.error, label)
        assert self.counted == self.multiplied, label
        dropped = result[:, ~self.active_columns]
        assert_identical(dropped, numpy.zeros(dropped.shape, self.dtype))
        return result


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_shapes(each_isa, each_thread_count, calls, dtype, transposed):
    for seed, shape in enumerate(SHAPES):
        options = {"transposed": transposed, "with_bias": seed % 3 == 1}
        calls(shape, dtype, seed, **options).check(f"{shape} {seed} {options}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(600, 300, 500), (37, 900, 1100), (1030, 130, 90)])
def test_bits_do_not_depend_on_the_number_of_threads(
    each_isa, restore_threads, calls, dtype, transposed, shape
):
    """Rows in more than one block, and enough work for five threads."""
    for seed in (0, 3, 4, 5):
        call = calls(shape, dtype, seed, transposed=transposed, with_bias=seed == 3)
        results = []
        for threads in (1, 2, 5):
            _kernels.set_num_threads(threads)
            results.append(call.check(f"{seed} {threads} threads"))
        for result in results[1:]:
            assert_identical(result, results[0])


def test_every_number_of_active_units(each_isa):
    """From none to all, on either side, over a block of depth and a panel of columns."""
    for n in range(0, 150, 3):
        for which in ((n, 140), (140, n)):
            bits = [
                numpy.packbits(numpy.arange(150) % 150 < count, bitorder="little")
                for count in which
            ]
            for transposed in (False, True):
                chosen = (bits[0], 0, bits[1], 0)
                call = Call((9, 150, 150), numpy.float32, transposed=transposed, which=chosen)
                call.check(f"{which} transposed={transposed}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_what_is_dropped_is_not_read(each_isa, dtype, transposed):
    depth, columns = random_bits(170, 0.5, 1, 3), random_bits(200, 0.5, 2, 5)
    which = (depth, 3, columns, 5)
    assert 0 < number_of_active(depth, 3, 170) < 170
    call = Call((40, 170, 200), dtype, transposed=transposed, with_bias=True, which=which)
    expected = call.check()
    kept = numpy.unpackbits(depth, count=173, bitorder="little")[3:].astype(bool)
    for bad in (numpy.nan, numpy.inf):
        x, bias = call.arguments["x"].copy(), call.arguments["bias"].copy()
        w = call.arguments["w"].copy(order="K")
        x[:, ~kept] = bad
        w[~kept] = bad
        w[:, ~call.active_columns] = bad
        bias[~call.active_columns] = bad
        assert_identical(call.run(x=x, w=w, bias=bias), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_row_stride(each_isa, dtype):
    call = Call((33, 50, 70), dtype, seed=5)
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
    _kernels.compact_matmul(x, False, None, 0, w, None, 0, 1.0, None, 1.0, False, out)
    with numpy.errstate(invalid="ignore"):
        expected = x @ w
    numpy.testing.assert_array_equal(numpy.isnan(out), numpy.isnan(expected))
    infinite = numpy.isinf(expected)
    numpy.testing.assert_array_equal(out[infinite], expected[infinite])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 7, 65), (130, 49, 150), (600, 128, 140)])
def test_active_rows_of_a_transposed_operand(each_isa, each_thread_count, dtype, shape):
    """The gradient of the weights: rows of x.T are units, rows that are not active become zero."""
    rows, depth, columns = shape
    x, w = matrix((depth, rows), dtype, 1), matrix((depth, columns), dtype, 2)
    for seed in range(4):
        bits, column_bits = random_bits(rows, 0.5, seed, 3), random_bits(columns, 0.6, seed + 9, 5)
        call = (True, bits, 3, w, column_bits, 5, 2.0, None, 1.0, False)
        out, wide = Result((rows, columns), dtype), numpy.empty((rows, columns))
        counted = _kernels.compact_matmul(x.T, *call, out.matrix)
        exact = (*call[:3], w.astype(float), *call[4:])
        assert counted == reference.compact_matmul(x.astype(float).T, *exact, wide)
        magnitude = numpy.empty_like(wide)
        exact = (*call[:3], numpy.abs(w.astype(float)), *call[4:])
        reference.compact_matmul(numpy.abs(x.astype(float)).T, *exact, magnitude)
        result = out.checked()
        assert_close(result, wide, sum_error(magnitude, depth + 1, dtype), f"{seed}")
        dropped = wide == 0
        assert_identical(result[dropped], numpy.zeros(dropped.sum(), dtype))
