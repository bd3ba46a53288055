"""Beyond 2^31 and 2^32: elements, bits and draws are counted in 64 bits throughout.

Large arrays are one piece of memory, seen again and again (`mirrored`), so that 8 GB of elements
take 64 MB. What takes more than seconds runs with `--exhaustive`.
"""

import ctypes
import mmap
import os
import sys

import numpy
import pytest
from conftest import ISA_LEVELS, selected

import fastdrop
from fastdrop import MaskStream, _kernels, nn, optim, reference
from fastdrop.parameters import Parameter
from fastdrop.stream import stream_key

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mirrors memory by Linux")
BORDERS = [2**31, 2**32, 2**33, 2**35, 2**39, 2**40, 2**62, 2**63 - 65]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("keep_prob", [0.5, 0.3])
def test_masks_around_a_border(each_isa, border, keep_prob):
    stream = MaskStream(0)
    key = stream_key(stream)
    for start, stop in (
        (border - 200, border + 60),
        (border - 1, border + 1),
        (border, border + 64),
    ):
        mask = stream.draw((border + 64,), keep_prob=keep_prob, window=slice(start, stop), at=3)
        elements = numpy.arange(start, stop, dtype=numpy.uint64)
        expected = reference.kept_bernoulli(elements, 3, round(keep_prob * 2**64), key)
        numpy.testing.assert_array_equal(mask.to_array(), expected)


@pytest.mark.parametrize("exact_count", [False, True])
def test_windows_of_masks_of_several_axes(each_isa, exact_count):
    """Rows of 2^13 + 5 elements, on either side of element 2^32 and 2^40."""
    width = 2**13 + 5
    for border in (2**32, 2**40):
        row = border // width
        options = {"keep_prob": 0.3, "exact_count": exact_count, "at": 1}
        mask = MaskStream(0).draw(
            (2**30, width), window=(slice(row, row + 2), slice(None)), **options
        )
        bits = numpy.empty(-(-2 * width // 8), numpy.uint8)
        name = "draw_exact_count" if exact_count else "draw_bernoulli"
        parameter = int(0.3 * width + 0.5) if exact_count else round(0.3 * 2**64)
        key = stream_key(MaskStream(0))
        getattr(reference, name)(
            *key, 1, parameter, (2**30, width), (row, 0), (row + 2, width), bits
        )
        numpy.testing.assert_array_equal(mask.bits, bits)


def test_draws_beyond_2_to_the_32(each_isa):
    stream = MaskStream(0)
    layer = nn.Dropout(0.5)
    layer.stream = stream
    x = numpy.ones((3, 50), numpy.float32)
    for number in (2**32 - 1, 2**32, 2**40 + 3, 2**56 - 1):
        expected = reference.kept_bernoulli(
            numpy.arange(150, dtype=numpy.uint64), number, 2**63, stream_key(stream)
        ).reshape(3, 50)
        stream.position = number
        numpy.testing.assert_array_equal(stream.draw(x.shape, rate=0.5).to_array(), expected)
        stream.position = number
        numpy.testing.assert_array_equal(fastdrop.dropout(x, 0.5, rng=stream)[0] != 0, expected)
        stream.position = number
        numpy.testing.assert_array_equal(layer.forward(x, training=True) != 0, expected)
        assert stream.position == number + 1


@pytest.mark.parametrize("rows_per_mask", [1, 2, "batch"])
def test_the_end_of_a_stream_is_an_error_everywhere(rows_per_mask):
    """It does not start again from 0, whoever draws; nothing else is changed."""
    x = numpy.ones((4, 8), numpy.float32)
    net = nn.Sequential([nn.Dropout(0.5, rows_per_mask=rows_per_mask), nn.Dense(8, 2)], rng=0)
    stream = net.layers[0].stream
    stream.position = 2**56
    out = numpy.full_like(x, 7)
    for call in (
        lambda: stream.draw((8,), rate=0.5),
        lambda: fastdrop.dropout(x, 0.5, rng=stream),
        lambda: fastdrop.dropout(x, 0.5, rng=stream, rows_per_mask=rows_per_mask, out=out),
        lambda: net.layers[0].forward(x, training=True),
        lambda: net.forward(x, training=True),
    ):
        with pytest.raises(ValueError, match=r"position must be below 2\*\*56"):
            call()
        assert stream.position == 2**56
    assert (out == 7).all()
    assert net.forward(x).shape == (4, 2)


def mirrored(size, dtype, piece=1 << 26):
    """A large array made of one piece of memory again and again, and that piece."""
    dtype = numpy.dtype(dtype)
    handle = os.memfd_create("mirror")
    os.ftruncate(handle, piece)
    pieces = -(-size * dtype.itemsize // piece)
    whole = mmap.mmap(-1, pieces * piece, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(whole))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    shared_fixed = mmap.MAP_SHARED | 0x10
    for number in range(pieces):
        where = ctypes.c_void_p(start + number * piece)
        found = libc.mmap(
            where, ctypes.c_size_t(piece), mmap.PROT_READ | mmap.PROT_WRITE, shared_fixed, handle,
            ctypes.c_long(0),
        )  # fmt: skip
        assert found == where.value, ctypes.get_errno()
    os.close(handle)
    array = numpy.frombuffer(whole, dtype, size)
    return array, array[: piece // dtype.itemsize]


@pytest.fixture
def one_thread(restore_threads):
    """Elements are written in order: what stands in a mirrored piece is what came last."""
    fastdrop.set_num_threads(1)


@pytest.fixture(autouse=True)
def slow_ones(request):
    if request.node.get_closest_marker("large") and not request.config.getoption("exhaustive"):
        pytest.skip("takes long: run with --exhaustive")


large = pytest.mark.large


@LINUX
@large
@pytest.mark.parametrize("size", [2**31 + 100, 2**32 + 1000])
@pytest.mark.parametrize("rate", [0.5, 0.3, 0.0])
def test_dropout_of_a_large_array(one_thread, size, rate):
    x, piece = mirrored(size, numpy.float16)
    out, last = mirrored(size, numpy.float16)
    piece[...] = numpy.arange(piece.size) % 1000 + 1
    y, mask = fastdrop.dropout(x, rate, rng=0, out=out)
    assert y is out
    assert mask.bits.size == -(-size // 8)
    assert abs(mask.count() / size - (1 - rate)) < 1e-4
    stream = MaskStream(0)
    for start in (0, 2**31 - 64, size - 200):
        part = slice(start, start + 128)
        window = stream.draw((size,), rate=rate, window=part, at=0).to_array()
        bits = mask.bits[start // 8 : start // 8 + 17]
        found = numpy.unpackbits(bits, bitorder="little")[start % 8 :][:128]
        numpy.testing.assert_array_equal(found, window)
    # The last elements, and those of the round before that they do not overwrite.
    for start in (size - 200, size - 200 - last.size // 2):
        keep = stream.draw((size,), rate=rate, window=slice(start, start + 200), at=0).to_array()
        place = numpy.arange(start, start + 200) % last.size
        expected = selected(x[start : start + 200], keep, mask.scale)
        numpy.testing.assert_array_equal(last[place], expected)


@LINUX
@large
@pytest.mark.parametrize("isa", ISA_LEVELS)
@pytest.mark.parametrize("rows_per_mask", [1, 3])
def test_a_large_matrix_with_rows_per_mask(one_thread, isa, rows_per_mask):
    shape = (2**16 + 7, 2**16 + 8)
    x, piece = mirrored(shape[0] * shape[1], numpy.float16)
    piece[...] = 1
    out, _ = mirrored(shape[0] * shape[1], numpy.float16)
    before = _kernels.build_info()["isa_used"]
    _kernels.select_isa(isa)
    try:
        mask = MaskStream(0).draw(shape, rate=0.5, rows_per_mask=rows_per_mask)
        y = fastdrop.apply_mask(x.reshape(shape), mask, scale=3.0, out=out.reshape(shape))
    finally:
        _kernels.select_isa(before)
    row = (shape[0] - 1) // rows_per_mask
    window = (slice(row, row + 1), slice(None))
    keep = MaskStream(0).draw(shape, rate=0.5, rows_per_mask=rows_per_mask, window=window, at=0)
    numpy.testing.assert_array_equal(y[-1] != 0, keep.to_array()[0])
    assert set(numpy.unique(y[-1])) == {0, 3}


@LINUX
@large
def test_a_product_with_large_weights(one_thread):
    """x (2, 2^16 + 256) times w (2^16 + 256, 2^16): rows of w repeat every 256."""
    depth, width = 2**16 + 256, 2**16
    w, piece = mirrored(depth * width, numpy.float32)
    rows = piece.reshape(256, width)
    rows[...] = numpy.arange(256, dtype="f4")[:, None] % 7 + numpy.arange(width, dtype="f4") % 5
    x = numpy.ones((2, depth), numpy.float32)
    mask = MaskStream(0).draw((2, depth), rate=0.5, rows_per_mask="batch")
    kept = mask.to_array().reshape(-1, 256).sum(axis=0).astype(numpy.float64)
    expected = kept @ rows * 2
    for method in ("compact", "skip"):
        y = fastdrop.masked_matmul(x, w.reshape(depth, width), mask_in=mask, method=method)
        numpy.testing.assert_allclose(y, [expected] * 2, rtol=1e-4)


@LINUX
@large
@pytest.mark.parametrize("kind", ["sgd", "max norm"])
def test_an_update_of_large_weights(one_thread, kind):
    """Every weight of the piece is moved once for each of its places in the large array."""
    shape = (2**16 + 256, 2**16)
    value, piece = mirrored(shape[0] * shape[1], numpy.float32)
    gradient, grad_piece = mirrored(shape[0] * shape[1], numpy.float32)
    piece[...], grad_piece[...] = 1, 1
    parameter = Parameter("w", value.reshape(shape))
    parameter.grad = gradient.reshape(shape)
    rows = numpy.full(shape[0] // 8, 255, numpy.uint8)
    rows[-32:] = 0  # the last 256 rows are not active
    parameter.rows = (rows, 0)
    limit = None if kind == "sgd" else 1e9
    optim.SGD([parameter], learning_rate=2.0**-10, max_norm=limit).step()
    numpy.testing.assert_array_equal(piece, 1 - 256 * 2.0**-10)
