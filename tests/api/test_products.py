"""The way to a product: which method, the way around the checks, what is looked at on it."""

import itertools

import numpy
import pytest
from conftest import assert_identical, values

import fastdrop
from fastdrop import _kernels, products, reference

DTYPES = (numpy.float32, numpy.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernels", [_kernels, reference])
def test_all_finite_finds_one_among_many(kernels, dtype):
    limits = numpy.finfo(dtype)
    for n in (0, 1, 3, 4, 5, 31, 33, 1000):
        x = numpy.full(n, limits.max, dtype)
        x[::2] = limits.smallest_subnormal
        assert kernels.all_finite(x) is True
        for place in sorted({0, n // 2, n - 1} & set(range(n))):
            for value in (numpy.nan, numpy.inf, -numpy.inf):
                changed = x.copy()
                changed[place] = value
                assert kernels.all_finite(changed) is False
    apart = numpy.full((5, 6), numpy.nan, dtype)
    apart[:, ::2] = 1  # what lies between is not looked at
    assert kernels.all_finite(apart[:, ::2]) is True
    apart[4, 4] = numpy.inf
    assert kernels.all_finite(apart[:, ::2]) is False


@pytest.mark.parametrize("dtype", DTYPES)
def test_sampled_share(dtype):
    rng = numpy.random.default_rng(5)
    for shape in [(0, 3), (3, 0), (1, 1), (7, 5), (40, 33), (129, 64), (3000, 7), (2, 9000)]:
        x = rng.standard_normal(shape).astype(dtype)
        x[rng.random(shape) < 0.7] = 0
        x[:1, :1] = -0.0  # a zero
        x[1:2, :1] = numpy.nan
        wide = numpy.zeros((shape[0], 2 * shape[1] + 1), dtype)
        wide[:, 1::2] = x
        odd = numpy.zeros(x.nbytes + 1, numpy.uint8)[1:].view(dtype).reshape(shape)
        odd[...] = x
        for matrix in (x, x.T, x[::-1], wide[:, 1::2], odd):
            for counted, shares in [(1, 4), (100, 256), (1 << 13, 256), (1 << 20, 1 << 20)]:
                found = _kernels.sampled_share(matrix, counted, shares)
                assert found == reference.sampled_share(matrix, counted, shares)
        exact = numpy.count_nonzero(x) / max(x.size, 1)
        assert abs(_kernels.sampled_share(x, 1 << 20, 1 << 20) - exact) <= 2.0**-20


@pytest.mark.parametrize("kernels", [_kernels, reference])
def test_surely_apart(kernels):
    x = numpy.zeros((6, 4))
    assert kernels.surely_apart((x[:2], x[2:3]), (x[3:], numpy.zeros(3)))
    assert kernels.surely_apart((x[:2],), (x[2:].T,))
    assert not kernels.surely_apart((x[:3],), (x[2:],))
    assert not kernels.surely_apart((x[:3], x[2:]), (numpy.zeros(3),))
    assert not kernels.surely_apart((x[:, 0],), (x[:, 1],))  # not in one piece: not found out
    assert not kernels.surely_apart((x[:2],), ([1.0],))
    assert kernels.surely_apart((), (x,))


@pytest.mark.parametrize("kernels", [_kernels, reference])
def test_every_bit(kernels):
    for n in (0, 1, 7, 8, 9, 64, 65, 1000):
        kept = numpy.ones(n, bool)
        assert kernels.every_bit(numpy.packbits(kept, bitorder="little"), n) is True
        for place in sorted({0, 8, n // 2, n - 1} & set(range(n))):
            dropped = kept.copy()
            dropped[place] = False
            assert kernels.every_bit(numpy.packbits(dropped, bitorder="little"), n) is False


@pytest.mark.parametrize("rows_per_mask", [1, "batch"])
@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_a_mask_that_keeps_everything_is_not_applied(rows_per_mask, scale):
    """Of the BLAS the result is NumPy's, bit for bit; a mask that only says so is applied."""
    stream = fastdrop.MaskStream(0)
    x, w, grad = values((6, 40)), values((40, 30), seed=1), values((6, 30), seed=2)
    w[3, 4] = numpy.inf
    mask, mask_out = (
        stream.draw(array.shape, keep_prob=1, rows_per_mask=rows_per_mask).with_scale(scale)
        for array in (x, grad)
    )
    expected = (x @ w) * numpy.float32(scale)
    dense = {"mask_in": mask, "method": "dense"}
    assert_identical(fastdrop.masked_matmul(x, w, **dense), expected)
    full = fastdrop.masked_matmul(x, w, mask_out=mask_out.with_scale(1), **dense)
    assert_identical(full, expected)
    result = fastdrop.masked_matmul(x, w, mask_in=mask)
    numpy.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    large, wide = values((3000, 20), seed=3), values((20, 1), seed=4)  # for the BLAS
    mask_large = stream.draw(large.shape, keep_prob=1, rows_per_mask=rows_per_mask)
    assert_identical(fastdrop.masked_matmul(large, wide, mask_in=mask_large), large @ wide)
    found = fastdrop.masked_matmul_backward(grad, x, w, mask_out=mask_out, **dense)
    without = fastdrop.masked_matmul_backward(grad, x, w)
    for gradient, plain, factor in zip(found, without, (scale**2, scale**2, scale), strict=True):
        numpy.testing.assert_allclose(gradient, plain * numpy.float32(factor), rtol=1e-5)
    kept = numpy.ones(mask.shape, bool)
    kept[0, 3] = False
    wrong = fastdrop.Mask.from_array(kept, keep_prob=1)
    assert numpy.isfinite(fastdrop.masked_matmul(x, w, mask_in=wrong)[0]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_dense_matmul(each_isa, dtype, transposed):
    """As its reference, of any layout, without a warning; it says where a zero has met infinity."""
    x, out = values((13, 24), dtype), numpy.empty((2, 24, 60) if transposed else (2, 13, 60), dtype)
    w = values((13 if transposed else 24, 60), dtype, 1)
    bits = numpy.packbits(numpy.random.default_rng(0).random(13 * 24) < 0.5, bitorder="little")
    for operand in (x, numpy.asfortranarray(x)):
        for weights in (w, numpy.asfortranarray(w), w.repeat(2, axis=1)[:, ::2]):
            for special in (0.5, numpy.inf):
                weights[2, 7] = special
                with numpy.errstate(all="raise"):
                    finite = [
                        kernels.dense_matmul(
                            operand, transposed, bits, (13, 24), 1, 2.0, weights, result
                        )
                        for kernels, result in zip((_kernels, reference), out, strict=True)
                    ]
                assert finite == [special == 0.5] * 2
                numpy.testing.assert_allclose(out[0], out[1], rtol=1e-5, atol=1e-5)


def test_a_large_masked_operand_is_given_back():
    """One beyond what a thread keeps; the next one has its memory for itself again."""
    x, w = numpy.ones((4200, 4096), numpy.float32), numpy.ones((4096, 1), numpy.float32)
    mask = fastdrop.MaskStream(0).draw(x.shape, keep_prob=0.9)
    for operand, kept in ((x, mask), (x[:10], fastdrop.Mask.from_array(mask.to_array()[:10]))):
        y = fastdrop.masked_matmul(operand, w, mask_in=kept, method="dense")
        expected = kept.to_array().sum(axis=1) * kept.scale
        numpy.testing.assert_allclose(y[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_per_mask", [1, 4, None])
def test_plain_matmul(each_isa, each_thread_count, dtype, rows_per_mask):
    """As its reference, within rounding, and it says where a zero has met infinity."""
    x, w = values((13, 70), dtype), values((70, 33), dtype, 1)
    bias = values(33, dtype, 2)
    bits = None
    if rows_per_mask is not None:
        kept = numpy.random.default_rng(0).random((-(-13 // rows_per_mask), 70)) < 0.5
        bits = numpy.packbits(kept, bitorder="little")
    results = numpy.empty((2, 13, 33), dtype)
    mask = (bits, rows_per_mask or 1)
    for kernels, out in zip((_kernels, reference), results, strict=True):
        assert kernels.plain_matmul(x, *mask, w, 1.5, bias, 0.5, out)
    eps = numpy.finfo(dtype).eps
    bound = 80 * eps * (numpy.abs(x) @ numpy.abs(w) * 1.5 + numpy.abs(bias))
    assert (numpy.abs(results[0] - results[1]) <= bound).all()
    w[3, 5] = numpy.inf
    for kernels in (_kernels, reference):
        with numpy.errstate(invalid="ignore"):
            finite = kernels.plain_matmul(x, *mask, w, 1.5, bias, 0.5, results[0])
        assert finite == (bits is None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_per_mask", [1, 3, 40])
def test_direct_matmul(each_isa, each_thread_count, dtype, rows_per_mask):
    """Within rounding of its reference, whatever part of a group or a block is filled."""
    sizes = (
        (1, 2, 3, 5, 6, 7, 8, 12, 18),
        (1, 2, 31, 160, 161, 163),
        (1, 3, 10, 15, 16, 20, 33, 80, 100, 200),
    )
    for rows, depth, columns in itertools.product(*sizes):
        x, w = values((rows, depth), dtype), values((depth, columns), dtype, 1)
        kept = numpy.random.default_rng(depth).random((-(-rows // rows_per_mask), depth)) < 0.5
        bits = numpy.packbits(kept, bitorder="little")
        results = numpy.full((2, rows + 1, columns), 7, dtype)
        for kernels, out in zip((_kernels, reference), results, strict=True):
            assert kernels.direct_matmul(x, bits, rows_per_mask, w, 1.5, out[:rows])
        assert (results[:, rows] == 7).all()  # nothing is written behind the result
        bound = (depth + 3) * numpy.finfo(dtype).eps * (numpy.abs(x) @ numpy.abs(w) * 1.5)
        assert (numpy.abs(results[0] - results[1])[:rows] <= bound).all()
        w[depth // 2, columns - 1] = numpy.inf
        for kernels in (_kernels, reference):
            with numpy.errstate(invalid="ignore"):
                assert not kernels.direct_matmul(x, bits, rows_per_mask, w, 1.5, results[0, :rows])


@pytest.mark.parametrize(
    "size",
    [(1100, 20, 9), (1203, 30, 90), (1101, 9, 1), (1025, 30, 17), (5, 400, 1003), (11, 170, 1024)],
)
def test_direct_matmul_in_parts(each_isa, each_thread_count, size):
    """Rows in parts that end within a group of rows and within a mask; columns, for the threads."""
    rows, depth, columns = size
    x, w = values((rows, depth)), values((depth, columns), seed=1)
    kept = numpy.random.default_rng(0).random((-(-rows // 3), depth)) < 0.5
    bits = numpy.packbits(kept, bitorder="little")
    results = numpy.empty((2, rows, columns), numpy.float32)
    for kernels, out in zip((_kernels, reference), results, strict=True):
        assert kernels.direct_matmul(x, bits, 3, w, 2.0, out)
    bound = (depth + 3) * numpy.finfo(numpy.float32).eps * (numpy.abs(x) @ numpy.abs(w) * 2)
    assert (numpy.abs(results[0] - results[1]) <= bound).all()
    w[depth - 1, columns - 1] = numpy.nan
    assert not _kernels.direct_matmul(x, bits, 3, w, 2.0, results[0])


def test_direct_products_do_not_depend_on_threads(each_isa, restore_threads):
    for rows, depth, columns in [(3, 300, 1400), (100, 90, 80), (17, 161, 700)]:
        x, w = values((rows, depth)), values((depth, columns), seed=1)
        bits = numpy.packbits(
            numpy.random.default_rng(0).random((rows, depth)) < 0.5, bitorder="little"
        )
        results = numpy.empty((3, rows, columns), numpy.float32)
        for threads, out in zip((1, 2, 3), results, strict=True):
            _kernels.set_num_threads(threads)
            _kernels.direct_matmul(x, bits, 1, w, 2.0, out)
        assert_identical(results[1], results[0])
        assert_identical(results[2], results[0])


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
def test_direct_products_with_all_that_goes_with_them(each_isa, rows_per_mask):
    """Bias, output mask, a strided result, and infinities under a mask."""
    stream = fastdrop.MaskStream(3)
    x, w, bias = values((8, 64)), values((64, 32), seed=1), values(32, seed=2)
    masks = [
        stream.draw(shape, rate=0.5, rows_per_mask=rows_per_mask) for shape in ((8, 64), (8, 32))
    ]
    for special in (0.0, numpy.inf):
        x[:, 5] = special
        w[7] = special
        wide = numpy.empty((8, 64), numpy.float32)
        options = {"mask_in": masks[0], "mask_out": masks[1], "bias": bias}
        out = fastdrop.masked_matmul(x, w, out=wide[:, ::2], **options)
        skipped = fastdrop.masked_matmul(x, w, method="skip", **options)
        assert (numpy.isnan(out) == numpy.isnan(skipped)).all()
        numpy.testing.assert_allclose(out, skipped, rtol=1e-5, atol=1e-5)
        assert_identical(out == 0, skipped == 0)


@pytest.mark.parametrize("rows_per_mask", [1, "batch"])
@pytest.mark.parametrize("keep_prob", [0.02, 0.3, 0.6, 0.95, 1.0])
@pytest.mark.parametrize(
    "size",
    [(1, 600, 300), (16, 128, 128), (8, 64, 64), (5, 100, 90), (64, 96, 100), (40, 256, 256)],
)
def test_the_way_around_the_checks_takes_the_same_method(size, keep_prob, rows_per_mask):
    """The same bits as with `out` strided, which goes the long way; also where w has infinities."""
    rows, depth, columns = size
    x, w = values((rows, depth)), values((depth, columns), seed=1)
    mask = fastdrop.MaskStream(0).draw(
        (rows, depth), keep_prob=keep_prob, rows_per_mask=rows_per_mask
    )
    for special in (0.0, numpy.inf):
        w[2, 3] = special
        wide = numpy.empty((rows, 2 * columns), numpy.float32)
        long_way = fastdrop.masked_matmul(x, w, mask_in=mask, out=wide[:, :columns])
        assert_identical(fastdrop.masked_matmul(x, w, mask_in=mask), numpy.array(long_way))


def test_choices_are_remembered_apart():
    """More products than there is room for: each takes the method that the model says, again."""
    generator = numpy.random.default_rng(0)
    stream = fastdrop.MaskStream(0)
    cases = []
    for _ in range(300):
        rows, depth, columns = (int(n) for n in generator.integers(1, 50, 3))
        x, w = values((rows, depth)), values((depth, columns), seed=1)
        x[generator.random(x.shape) < 0.3] = 0
        keep_prob = float(generator.choice([0.05, 0.5, 0.9]))
        options = {"rows_per_mask": "batch"} if generator.random() < 0.5 else {}
        mask = stream.draw(x.shape, keep_prob=keep_prob, **options)
        cases.append((x, w, mask, bool(generator.random() < 0.3)))
    for _ in range(2):
        for x, w, mask, skip_zeros in cases:
            wide = numpy.empty((len(x), 2 * w.shape[1]), numpy.float32)
            options = {"mask_in": mask, "skip_zeros": skip_zeros}
            long_way = fastdrop.masked_matmul(x, w, out=wide[:, ::2], **options)
            assert_identical(fastdrop.masked_matmul(x, w, **options), numpy.array(long_way))


def test_the_choice_knows_shapes_and_shares():
    def method(shape, share, kept=None):
        groups = (None, None, 0) if kept is None else (kept, kept, shape[0])
        isa = _kernels.isa_used()
        return products.cheapest(isa, shape, numpy.dtype("f4"), share, False, *groups)

    large = (128, 1024, 1024)
    assert method(large, 0.1) == "skip"
    assert method(large, 1.0) in ("dense", "plain")
    assert method(large, 0.5, kept=0.5) == "compact"
    assert method((1, 4096, 4096), 0.2) == "skip"


@pytest.mark.parametrize("name", ["x", "w"])
def test_out_overlaps_no_operand_of_which_a_copy_is_used(name):
    """What lies neither in rows nor in columns is copied; that is no leave to write to it."""
    memory = numpy.zeros(200, numpy.float32)
    apart = memory[100:].reshape(5, 20)[::2, ::2][:3, :3]  # 3 x 3, strided both ways
    operands = {"x": numpy.ones((3, 3), numpy.float32), "w": numpy.ones((3, 3), numpy.float32)}
    operands[name] = apart
    with pytest.raises(ValueError, match=f"out must not overlap {name}"):
        fastdrop.masked_matmul(**operands, out=memory[100:109].reshape(3, 3))
    gradients = (memory[100:109].reshape(3, 3), None, None)
    with pytest.raises(ValueError, match="out must hold arrays that overlap neither"):
        fastdrop.masked_matmul_backward(numpy.ones_like(apart), **operands, out=gradients)
    assert not memory.any()


@pytest.mark.parametrize("rows_per_mask", [1, "batch"])
def test_narrow_products(each_isa, rows_per_mask):
    """Many rows and few columns go to NumPy's BLAS; an infinity in w does not leak from there."""
    mask = fastdrop.MaskStream(1).draw((300, 20), rate=0.5, rows_per_mask=rows_per_mask)
    x, w = values((300, 20)), values((20, 3), seed=1)
    for special in (0.5, numpy.inf):
        w[4, 1] = special
        result = fastdrop.masked_matmul(x, w, mask_in=mask)
        skipped = fastdrop.masked_matmul(x, w, mask_in=mask, method="skip")
        numpy.testing.assert_allclose(result, skipped, rtol=1e-4, atol=1e-4)
        assert (numpy.isfinite(result) == numpy.isfinite(skipped)).all()
