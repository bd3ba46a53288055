"""The way to a product: which method, what is dropped, what is looked at on it."""

import itertools

import numpy
import pytest
from conftest import assert_identical, values
from product_calls import ProductCall, RowMask
from rounding import assert_close

import fastdrop
from fastdrop import _kernels, reference

DTYPES = (numpy.float32, numpy.float64)
EVERYTHING = ("dense", "packed", "small")


def random_mask(shape, rows_per_mask, scale=1.5, keep_prob=None):
    """A mask of about half the elements."""
    kept = numpy.random.default_rng(shape[1]).random((-(-shape[0] // rows_per_mask), shape[1]))
    bits = numpy.packbits(kept < 0.5, bitorder="little")
    return RowMask(bits, rows_per_mask, scale, keep_prob)


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_operands(dtype):
    x, w, out = values((6, 4), dtype), values((4, 5), dtype), values((6, 5), dtype)
    memory = numpy.zeros(100, dtype)
    assert _kernels.plain_operands(x, w, None)
    assert _kernels.plain_operands(x, w, out)
    assert not _kernels.plain_operands(x, w.astype("f2"), None)
    assert not _kernels.plain_operands(x, w.astype(w.dtype.newbyteorder()), None)
    assert not _kernels.plain_operands(x, w[:3], None)
    assert not _kernels.plain_operands(x, numpy.asfortranarray(w), None)
    assert not _kernels.plain_operands(x.tolist(), w, None)
    assert not _kernels.plain_operands(x.reshape(2, 3, 4), w, None)
    assert not _kernels.plain_operands(x, w, out.T.copy())
    assert not _kernels.plain_operands(x, w, out.tolist())
    around = memory[:24].reshape(6, 4), memory[20:40].reshape(4, 5), memory[40:70].reshape(6, 5)
    assert _kernels.plain_operands(*around)
    assert not _kernels.plain_operands(*around[:2], memory[10:40].reshape(6, 5))
    out.flags.writeable = False
    assert not _kernels.plain_operands(x, w, out)


def test_a_product_is_checked():
    x, w, y = numpy.zeros((2, 3)), numpy.zeros((3, 4)), numpy.zeros((2, 4))
    for kernels in (_kernels, reference):
        with pytest.raises(
            ValueError, match=r"must have shapes .*, got \[\(2, 3\), \(2, 4\), \(2, 4\)\]"
        ):
            kernels.Product(x, y, y)
    with pytest.raises(ValueError, match="c must be aligned and have contiguous rows"):
        _kernels.Product(x, w, numpy.zeros((4, 2)).T)
    with pytest.raises(TypeError, match="of one dtype, got float32"):
        _kernels.Product(x, w.astype("f4"), y)
    with pytest.raises(TypeError, match="the machine's byte order"):
        _kernels.Product(x, w.astype(">f8"), y)
    with pytest.raises(ValueError, match="'fast'"):
        _kernels.Product(x, w, y, method="fast")
    for kernels in (_kernels, reference):
        masks = {"mask_a": random_mask((20, 3), 2), "mask_c": random_mask((20, 4), 5)}
        operands = numpy.zeros((20, 3)), w, numpy.zeros((20, 4))
        with pytest.raises(ValueError, match="needs masks shared by the same groups of rows"):
            kernels.matmul(kernels.Product(*operands, method="compact", **masks))


def test_what_a_blas_raises_arrives(monkeypatch):
    """An interrupt in NumPy's product is not lost on its way through C."""

    class Interrupting(numpy.ndarray):
        def __array_ufunc__(self, *arguments, **options):
            raise KeyboardInterrupt

    x = numpy.zeros((2, 3)).view(Interrupting)
    product = _kernels.Product(x, numpy.zeros((3, 4)), numpy.zeros((2, 4)), method="dense")
    with pytest.raises(KeyboardInterrupt):
        _kernels.matmul(product)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", EVERYTHING)
@pytest.mark.parametrize("rows_per_mask", [1, 4, 40])
def test_methods_that_multiply_everything(
    each_isa, each_thread_count, dtype, method, rows_per_mask
):
    for m, k, n in [(13, 70, 33), (1, 160, 16), (40, 33, 1), (9, 1, 48), (0, 5, 6), (5, 6, 0)]:
        for with_bias in (False, True):
            masks = {"mask_a": random_mask((m, k), rows_per_mask)}
            if with_bias:
                masks["mask_c"] = random_mask((m, n), 2, 0.5)
            call = ProductCall((m, k, n), dtype, method=method, with_bias=with_bias, **masks)
            call.check(f"{(m, k, n)} {with_bias}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["dense", "packed"])
def test_sums_of_rows_that_multiply_everything(each_isa, each_thread_count, dtype, method):
    for k, m, n in [(13, 70, 33), (1, 160, 16), (40, 1, 5), (0, 5, 6), (170, 20, 30)]:
        masks = {"mask_a": random_mask((k, m), 1), "mask_b": random_mask((k, n), 3)}
        call = ProductCall((m, k, n), dtype, method=method, sum_rows=True, **masks)
        call.check(f"{(k, m, n)}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_per_mask", [1, 3, 40])
def test_small(each_isa, each_thread_count, dtype, rows_per_mask):
    """Within rounding of its reference, whatever part of a group or a block is filled."""
    sizes = (
        (1, 2, 3, 5, 6, 7, 8, 12, 18),
        (1, 2, 31, 160, 161, 163),
        (1, 3, 10, 15, 16, 20, 33, 80, 100, 200),
    )
    for shape in itertools.product(*sizes):
        mask = random_mask(shape[:2], rows_per_mask)
        ProductCall(shape, dtype, method="small", mask_a=mask).check(f"{shape}")


@pytest.mark.parametrize(
    "size",
    [(1100, 20, 9), (1203, 30, 90), (1101, 9, 1), (1025, 30, 17), (5, 400, 1003), (11, 170, 1024)],
)
def test_small_in_parts(each_isa, each_thread_count, size):
    """Rows in parts that end within a group of rows and within a mask; columns, for the threads."""
    mask = random_mask(size[:2], 3, 2.0)
    ProductCall(size, numpy.float32, method="small", mask_a=mask).check()


@pytest.mark.parametrize("method", ["packed", "small"])
def test_results_do_not_depend_on_threads(each_isa, restore_threads, method):
    for size in [(3, 300, 1400), (100, 90, 80), (17, 161, 700)]:
        call = ProductCall(size, numpy.float32, method=method, mask_a=random_mask(size[:2], 1))
        results = []
        for threads in (1, 2, 3):
            _kernels.set_num_threads(threads)
            results.append(call.run())
        assert_identical(results[1], results[0])
        assert_identical(results[2], results[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", EVERYTHING)
@pytest.mark.parametrize("shape", [(13, 70, 33), (40, 20, 30)])
def test_zero_times_infinity_does_not_leak(each_isa, dtype, method, shape):
    """Infinity and NaN in b reach what keeps their partner in a, and nothing else."""
    m, k, n = shape
    mask = random_mask((m, k), 1)
    call = ProductCall(shape, dtype, method=method, mask_a=mask)
    clean = call.check()
    reached = mask.kept((m, k))[:, k // 2]
    for bad in (numpy.inf, numpy.nan):
        for place in (0, n // 2, n - 1):
            b = call.operands["b"].copy()
            b[k // 2, place] = bad
            with numpy.errstate(all="raise"):
                result = call.run(b=b)
            assert not numpy.isfinite(result[reached, place]).any()
            assert_close(result[~reached], clean[~reached], 2 * call.error[~reached])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["dense", "packed", "skip"])
def test_zero_times_infinity_does_not_leak_into_sums(each_isa, dtype, method):
    k, m, n = 40, 30, 20
    masks = {"mask_a": random_mask((k, m), 1), "mask_b": random_mask((k, n), 4)}
    call = ProductCall((m, k, n), dtype, method=method, sum_rows=True, **masks)
    clean = call.check()
    kept_a, kept_b = masks["mask_a"].kept((k, m)), masks["mask_b"].kept((k, n))
    a, b = (call.operands[name].copy(order="K") for name in "ab")
    a[7, 3] = numpy.inf  # row 3 of the batch
    b[11, 13] = numpy.nan
    expected = numpy.zeros((m, n), bool)
    expected[7] |= kept_b[3] & kept_a[3, 7]
    expected[:, 13] |= kept_a[11] & kept_b[11, 13]
    with numpy.errstate(all="raise"):
        result = call.run(a=a, b=b)
    assert (numpy.isfinite(result) == ~expected).all()
    assert_close(result[~expected], clean[~expected], 2 * call.error[~expected])


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
    found = fastdrop.masked_matmul_backward(grad, x, w, mask_out=mask_out, **dense)
    without = fastdrop.masked_matmul_backward(grad, x, w)
    for gradient, plain, factor in zip(found, without, (scale**2, scale**2, scale), strict=True):
        numpy.testing.assert_allclose(gradient, plain * numpy.float32(factor), rtol=1e-5)
    kept = numpy.ones(mask.shape, bool)
    kept[0, 3] = False
    wrong = fastdrop.Mask.from_array(kept, keep_prob=1)
    assert numpy.isfinite(fastdrop.masked_matmul(x, w, mask_in=wrong)[0]).all()


def test_a_large_masked_operand_is_given_back():
    """One beyond what a thread keeps; the next one has its memory for itself again."""
    x, w = numpy.ones((4200, 4096), numpy.float32), numpy.ones((4096, 1), numpy.float32)
    mask = fastdrop.MaskStream(0).draw(x.shape, keep_prob=0.9)
    for operand, kept in ((x, mask), (x[:10], fastdrop.Mask.from_array(mask.to_array()[:10]))):
        y = fastdrop.masked_matmul(operand, w, mask_in=kept, method="dense")
        expected = kept.to_array().sum(axis=1) * kept.scale
        numpy.testing.assert_allclose(y[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
def test_small_products_with_all_that_goes_with_them(each_isa, rows_per_mask):
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


def planned(shape, keep_prob, rows_per_mask=1, **options):
    """The method that a product of ones takes, with masks on both sides."""
    m, k, n = shape
    a, b, c = (numpy.ones(size, numpy.float32) for size in ((m, k), (k, n), (m, n)))
    mask_a, mask_c = (
        random_mask((m, width), rows_per_mask, keep_prob=keep_prob) for width in (k, n)
    )
    masks = {"mask_a": mask_a, "mask_c": mask_c if rows_per_mask > 1 else None}
    return _kernels.plan(_kernels.Product(a, b, c, **masks, **options))


def test_the_plan_knows_shapes_and_shares():
    large = (128, 1024, 1024)
    assert planned(large, 0.1) == "skip"
    assert planned(large, 1.0) in ("dense", "packed")
    assert planned(large, 0.5, rows_per_mask=128) == "compact"
    assert planned((1, 4096, 4096), 0.2) == "skip"
    assert planned((8, 64, 64), 0.9) == "small"
    assert planned((0, 64, 64), 0.9) == "skip"
    assert planned(large, 1.0, method="compact") == planned(large, 1.0)
    ones = numpy.ones((8, 8), numpy.float32)
    assert _kernels.plan(_kernels.Product(ones, ones, numpy.empty_like(ones))) == "dense"


def test_the_plan_counts_what_it_is_not_told():
    """Bits of a mask of unknown keep_prob, and zeros that are to be skipped."""
    assert planned((128, 1024, 1024), None) == planned((128, 1024, 1024), 0.5)
    x, w, y = numpy.ones((128, 1024)), numpy.ones((1024, 1024)), numpy.empty((128, 1024))
    assert _kernels.plan(_kernels.Product(x, w, y, skip_zeros=True)) != "skip"
    x[:, 50:] = 0
    assert _kernels.plan(_kernels.Product(x, w, y, skip_zeros=True)) == "skip"
    assert _kernels.plan(_kernels.Product(x, w, y, skip_zeros=True, nonzeros=1.0)) != "skip"


def test_terms_of_the_plan():
    x, w, y = numpy.ones((16, 64)), numpy.ones((64, 32)), numpy.empty((16, 32))
    product = _kernels.Product(x, w, y, mask_a=random_mask(x.shape, 1))
    for method in ("skip", "dense", "packed", "small"):
        terms = _kernels.plan_terms(product, method)
        assert len(terms) == 7
        assert min(terms) >= 0 < terms[0]
    assert _kernels.plan_terms(product, "compact") is None
    assert _kernels.plan_terms(_kernels.Product(x, w, y), "small") is None


@pytest.mark.parametrize("rows_per_mask", [1, "batch"])
@pytest.mark.parametrize("keep_prob", [0.02, 0.6, 1.0])
@pytest.mark.parametrize("size", [(1, 600, 300), (8, 64, 64), (5, 100, 90), (40, 256, 256)])
def test_what_needs_no_checks_is_computed_like_what_does(size, keep_prob, rows_per_mask):
    """With a bias of zeros the arguments are looked at; also where w has infinities."""
    rows, depth, columns = size
    x, w = values((rows, depth)), values((depth, columns), seed=1)
    mask = fastdrop.MaskStream(0).draw(
        (rows, depth), keep_prob=keep_prob, rows_per_mask=rows_per_mask
    )
    for special in (0.0, numpy.inf):
        w[2, 3] = special
        bias = numpy.zeros(columns, numpy.float32)
        checked = fastdrop.masked_matmul(x, w, mask_in=mask, bias=bias)
        assert_identical(fastdrop.masked_matmul(x, w, mask_in=mask), checked)


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
