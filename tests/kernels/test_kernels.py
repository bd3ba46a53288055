"""Every C kernel against its NumPy reference, bit for bit, on every instruction set."""

import numpy
import pytest
from conftest import assert_identical, layouts, values

from fastdrop import _kernels, reference

SIZES = (0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257, 511, 513, 1023, 1025)
SIZES += (2047, 2048, 2049, 8191, 8193, 16385)
THRESHOLDS = {
    "nothing": 0,
    "one in 2^64": 1,
    "a quarter": 1 << 62,
    "a half": 1 << 63,
    "three quarters": 3 << 62,
    "a third": reference.bernoulli_threshold(1 / 3),
    "0.9": reference.bernoulli_threshold(0.9),
    "just above a half": (1 << 63) + 1,
    "just below a half": (1 << 63) - 1,
    "all but one in 2^64": (1 << 64) - 1,
    "everything": 1 << 64,
}
DTYPES = (numpy.float16, numpy.float32, numpy.float64)


def random_bits(n, seed=0, ones=0.5):
    """Packed random bits. Nothing stands behind them: a sanitizer sees who reads on."""
    kept = numpy.random.default_rng(seed).random(n) < ones
    return numpy.packbits(kept, bitorder="little")


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("draw", [0, 2**32 + 7, 2**56 - 1])
def test_bernoulli_sizes(each_isa, each_thread_count, compare, draw, name):
    for size in SIZES:
        compare.bernoulli(draw, THRESHOLDS[name], (size,))


@pytest.mark.parametrize("key", [(0, 0), (2**32 - 1, 2**32 - 1), (1, 2**31)])
def test_bernoulli_keys(each_isa, compare, key):
    compare.bernoulli(3, THRESHOLDS["a third"], (1025,), key=key)


def test_bernoulli_at_every_depth(each_isa, compare):
    """Thresholds of 1 to 64 digits that agree with an element's number in all of them.

    That element is undecided up to the last digit of the threshold, then dropped; with the next
    threshold of as many digits it is kept.
    """
    n = 700
    numbers = reference.uniforms(numpy.arange(n), 1, compare.KEY)
    for element in (0, 127, 128, 333, n - 1):
        for digits in range(1, 65):
            unit = 1 << (64 - digits)
            below = int(numbers[element]) // unit * unit
            for threshold, kept in ((below, 0), (below + unit, 1)):
                bits = compare.bernoulli(1, threshold, (n,))
                assert bits[element // 8] >> element % 8 & 1 == kept


WINDOWS = [
    ((300,), (0,), (1,)),
    ((300,), (127,), (129,)),
    ((300,), (5,), (5,)),
    ((4000,), (128,), (3840,)),
    ((4000,), (1,), (3999,)),
    ((1, 1000), (0, 3), (1, 997)),
    ((50, 7), (3, 0), (49, 7)),
    ((50, 130), (3, 1), (50, 130)),
    ((50, 130), (0, 129), (50, 130)),
    ((50, 128), (10, 0), (20, 128)),
    ((9, 5, 33), (2, 1, 0), (8, 4, 33)),
    ((9, 5, 33), (2, 1, 3), (8, 4, 30)),
    ((9, 33, 5), (0, 4, 0), (9, 5, 5)),
    ((3, 4, 5, 6), (1, 0, 2, 1), (3, 4, 5, 5)),
    ((2**31, 2**31), (2**31 - 3, 2**31 - 200), (2**31, 2**31)),
    ((2**62,), (2**62 - 1025,), (2**62,)),
    ((2**20, 3, 2**30), (2**20 - 1, 1, 2**30 - 40), (2**20, 3, 2**30 - 1)),
    # Block 2^32 begins at element 2^39: the block number then takes a second word.
    ((2**40,), (2**39 - 256,), (2**39 + 5000,)),
    ((2**40,), (2**39 - 20_001,), (2**39 + 77,)),
    ((2**38, 3), (2**39 // 3 - 9, 0), (2**39 // 3 + 9, 3)),
    ((2**39 // 1000 + 2, 1000), (2**39 // 1000 - 1, 0), (2**39 // 1000 + 2, 1000)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_bernoulli_windows(each_isa, each_thread_count, compare, window):
    for name in ("a half", "a third", "everything"):
        compare.bernoulli(1, THRESHOLDS[name], *window)


# Large enough for five threads: an element of a half costs less, so it takes more of them.
@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("a half", ((5_300_003,), (0,), (5_300_003,))),
        ("a third", ((700_001,), (0,), (700_001,))),
        ("a third", ((900_001,), (77,), (900_000,))),
        ("0.9", ((3, 500, 1000), (1, 7, 3), (3, 490, 998))),
        ("a third", ((500, 13, 131), (0, 1, 0), (500, 12, 131))),
    ],
)
def test_bernoulli_split_over_threads(each_isa, each_thread_count, compare, name, window):
    compare.bernoulli(2, THRESHOLDS[name], *window)


@pytest.mark.parametrize("length", [1, 2, 3, 20, 31, 33, 64, 127, 128, 129, 257, 1025])
def test_exact_count_rows(each_isa, each_thread_count, compare, length):
    for keep in sorted({0, 1, length // 3, length // 2, length - 1, length}):
        bits = compare.exact_count(4, keep, (9, length))
        rows = numpy.unpackbits(bits, count=9 * length, bitorder="little").reshape(9, length)
        assert (rows.sum(axis=1) == keep).all()


@pytest.mark.parametrize("window", [window for window in WINDOWS if window[0][-1] < 5000], ids=str)
def test_exact_count_windows(each_isa, each_thread_count, compare, window):
    compare.exact_count(2**40, window[0][-1] // 3, *window)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (3, 0, 4)])
def test_empty_draws(each_isa, compare, shape):
    compare.bernoulli(0, THRESHOLDS["a third"], shape)
    compare.exact_count(0, shape[-1] // 2, shape)


def test_draw_without_axes(each_isa, compare):
    ones = sum(int(compare.bernoulli(draw, THRESHOLDS["a half"], ())[0]) for draw in range(64))
    assert 0 < ones < 64


def test_exact_count_split_over_threads(each_isa, each_thread_count, compare):
    compare.exact_count(0, 100, (1001, 257))
    compare.exact_count(1, 70_000, (3, 100_003), (0, 5), (3, 100_000))


@pytest.fixture(params=["cached", "streamed"])
def each_way_to_store(request):
    """Run the test once as if every result stayed in the cache, and once as if none did."""
    _kernels.assume_cache_of_core(1 if request.param == "streamed" else 1 << 50)
    yield request.param
    _kernels.assume_cache_of_core(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_place", [False, True])
def test_forward_sizes(each_isa, each_thread_count, compare, dtype, in_place):
    for size in SIZES:
        x = values(size, dtype, size)
        for name in ("a half", "a third", "0.9", "nothing", "everything"):
            given = x.copy()
            out = given if in_place else numpy.full_like(given, 7)
            compare.forward(given, 1, THRESHOLDS[name], 1 / 0.9, out)
            assert in_place or (given == x).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_split_over_threads(each_isa, each_thread_count, each_way_to_store, compare, dtype):
    x = values((701, 1031), dtype)
    compare.forward(x, 1, THRESHOLDS["a third"], 3.0, numpy.empty_like(x))
    compare.forward(x, 1, THRESHOLDS["a third"], 3.0, x)


# Around the vectors of every instruction set, words of 64 bits, and the 32768 elements of a chunk.
LENGTHS = (*range(1, 36), 63, 64, 65, 79, 80, 127, 128, 129, 191, 1050, 32767, 32768, 32799, 65580)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_at_every_alignment(each_isa, each_way_to_store, compare, dtype):
    """Neither x nor out begins at a multiple of a vector's width, nor do they agree."""
    line = 64 // numpy.dtype(dtype).itemsize
    for number, length in enumerate(LENGTHS):
        offsets = (
            range(line + 1) if length in (34, 80, 1050) else (number % line, number // 3 % line)
        )
        for out_offset in offsets:
            x = values(length + line, dtype)[number % 7 :][:length]
            buffer = numpy.full(length + 2 * line, 7, dtype)
            begin = -buffer.ctypes.data % 64 // buffer.itemsize + out_offset
            out = buffer[begin:][:length]
            compare.forward(x, 1, THRESHOLDS["a third"], 1.5, out)
            compare.apply(x, random_bits(length), x.shape, 1, 1.25, out)
            compare.apply(x, random_bits(1, ones=1.0), (1,), 1, 1.25, out)
            assert (buffer[:begin] == 7).all()
            assert (buffer[begin + length :] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place_at_every_alignment(each_isa, compare, dtype):
    """Vectors that overlap are computed before either of them is stored."""
    for length in LENGTHS:
        for offset in (0, 1, length % 13):
            given = values(length + 20, dtype)
            compare.forward(
                given[offset:][:length], 1, THRESHOLDS["a third"], 1.5, given[offset:][:length]
            )
            bits = random_bits(length)
            compare.apply(given[offset:][:length], bits, (length,), 1, 3.0, given[offset:][:length])


MASK_SHAPES = [
    ((40, 33), (40, 33), 1),
    ((40, 33), (1, 33), 1),
    ((40, 33), (40, 1), 1),
    ((40, 33), (1, 1), 1),
    ((40, 33), (5, 33), 8),
    ((40, 33), (6, 33), 7),
    ((40, 33), (1, 33), 64),
    ((40, 33), (6, 1), 7),
    ((257,), (257,), 1),
    ((257,), (1,), 1),
    ((257,), (3,), 100),
    ((), (), 1),
    ((0,), (0,), 1),
    ((4, 0, 3), (4, 0, 3), 1),
    ((4, 0, 3), (1, 0, 1), 1),
    ((6, 5, 4, 3), (6, 5, 1, 1), 1),
    ((6, 5, 4, 3), (1, 5, 1, 3), 1),
    ((6, 5, 4, 3), (6, 1, 4, 1), 1),
    ((6, 5, 4, 3), (2, 5, 1, 1), 4),
    ((6, 5, 4, 3), (6, 5, 4, 3), 1),
    ((3, 9, 130), (3, 1, 130), 1),
    ((2, 3, 1, 2, 1, 3, 2), (2, 1, 1, 2, 1, 3, 1), 1),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "mask_shape", "rows"), MASK_SHAPES)
def test_apply_layouts(each_isa, each_way_to_store, compare, dtype, shape, mask_shape, rows):
    bits = random_bits(int(numpy.prod(mask_shape)), seed=1)
    for _, x in layouts(shape, dtype):
        for _, out in layouts(shape, dtype, seed=9):
            compare.apply(x, bits, mask_shape, rows, 1.25, out)
        compare.apply(x, bits, mask_shape, rows, 1.25, x)


def test_apply_writes_nothing_between_the_elements_of_a_view(each_isa, compare):
    buffer = numpy.full((80, 66), 7, numpy.float32)
    compare.apply(
        numpy.ones((40, 33), numpy.float32), random_bits(1320), (40, 33), 1, 2.0, buffer[::2, 1::2]
    )
    assert (buffer[1::2] == 7).all()
    assert (buffer[:, ::2] == 7).all()


@pytest.mark.parametrize(
    ("shape", "mask_shape", "rows"),
    [
        ((1031, 701), (1031, 701), 1),
        ((1031, 701), (1, 701), 1),
        ((1031, 701), (1031, 1), 1),
        ((1031, 701), (104, 701), 10),
        ((7, 100_003), (2, 100_003), 5),
        ((12, 64, 31, 33), (12, 64, 1, 1), 1),
        ((12, 64, 31, 33), (12, 1, 31, 33), 1),
        ((800_001,), (800_001,), 1),
    ],
)
def test_apply_split_over_threads(each_isa, each_thread_count, compare, shape, mask_shape, rows):
    bits = random_bits(int(numpy.prod(mask_shape)), seed=2)
    x = values(shape)
    compare.apply(x, bits, mask_shape, rows, 1 / 0.7, numpy.empty_like(x))
    compare.apply(x, bits, mask_shape, rows, 1 / 0.7, numpy.empty_like(x.T).T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_selected_not_multiplied(each_isa, compare, dtype):
    limits = numpy.finfo(dtype)
    special = [numpy.nan, -numpy.nan, numpy.inf, -numpy.inf, -0.0, 0.0, limits.max, limits.min]
    special += [limits.tiny, limits.smallest_subnormal, -limits.smallest_subnormal, 1.0, -3.0]
    x = numpy.resize(numpy.array(special, dtype), 13 * 11)
    for scale in (1.0, 2.0, 0.0, 1 / 3, -1.5, float(limits.max), numpy.inf, numpy.nan):
        for ones in (0.0, 0.5, 1.0):
            bits = random_bits(x.size, ones=ones)
            out = numpy.empty_like(x)
            compare.apply(x, bits, x.shape, 1, scale, out)
            dropped = numpy.unpackbits(bits, count=x.size, bitorder="little") == 0
            assert_identical(out[dropped], numpy.zeros(int(dropped.sum()), dtype))
        compare.apply(x, random_bits(1, ones=1.0), (1,), 1, scale, numpy.empty_like(x))


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.25, 1 / 0.9, 1 / 3, 1e-3, 6e-8, 1000.0, 1e9])
def test_every_float16_value(each_isa, compare, scale):
    x = numpy.arange(2**16, dtype=numpy.uint16).view(numpy.float16)
    compare.apply(x, random_bits(x.size, ones=1.0), x.shape, 1, scale, numpy.empty_like(x))
    strided = numpy.zeros((2**16, 2), numpy.float16)
    compare.apply(x, random_bits(x.size, ones=1.0), x.shape, 1, scale, strided[:, 1])


@pytest.mark.parametrize("width", [1, 7, 8, 64, 100, 256, 1000])
@pytest.mark.parametrize("threshold", [0, 2**63, 2**64 // 3, 2**64 - 1, 2**64])
def test_draws_one_after_the_other(each_isa, width, threshold):
    """Each row has the bits of its own draw, and nothing behind the last is written."""
    for draws in (1, 2, 33):
        made = []
        for kernels in (_kernels, reference):
            bits = numpy.full((draws + 1, -(-width // 8)), 0xAA, numpy.uint8)
            kernels.draw_bernoulli_rows(3, 5, 2**40 + 3, threshold, width, bits[:draws])
            assert (bits[draws] == 0xAA).all()
            made.append(bits[:draws])
        numpy.testing.assert_array_equal(*made)
        single = numpy.empty_like(made[0][-1])
        last = 2**40 + 2 + draws
        _kernels.draw_bernoulli(3, 5, last, threshold, (width,), (0,), (width,), single)
        numpy.testing.assert_array_equal(made[0][-1], single)


def test_both_have_the_same_names():
    for name in ("draw_bernoulli", "draw_exact_count", "dropout_forward", "apply_mask"):
        assert callable(getattr(_kernels, name))
        assert callable(getattr(reference, name))
    assert _kernels.build_info().keys() == reference.build_info().keys()


def test_thread_counts(restore_threads):
    for count in (1, 2, 5, 64):
        _kernels.set_num_threads(count)
        expected = count if _kernels.build_info()["threads"] else 1
        assert _kernels.get_num_threads() == expected
    reference.set_num_threads(5)
    assert reference.get_num_threads() == 1
