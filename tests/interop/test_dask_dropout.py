"""fastdrop.dask: the bits of the whole array, whatever the chunks and whoever computes them."""

import pickle

import numpy
import pytest
from conftest import assert_identical, layouts, values
from hypothesis import given
from hypothesis import strategies as st

import fastdrop

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
import fastdrop.dask  # noqa: E402

pytestmark = pytest.mark.dask

SCHEDULERS = [("synchronous", 1), ("threads", 1), ("threads", 3), ("processes", 2)]
# Shape, chunks, and what shapes the mask; cut rows, groups across borders, odd sizes.
CASES = {
    "rows": ((13, 70), (4, 70), {}),
    "cut everywhere": ((13, 70), (4, 9), {}),
    "uneven": ((13, 70), ((1, 7, 0, 5), (69, 1)), {}),
    "one element each": ((3, 5), (1, 1), {}),
    "four axes": ((3, 4, 5, 6), (2, 3, 2, 5), {"shared_axes": (1, -1)}),
    "batch": ((13, 70), (4, 9), {"rows_per_mask": "batch"}),
    "groups that fit": ((12, 70), (4, 70), {"rows_per_mask": 2}),
    "groups across borders": ((13, 70), (4, 9), {"rows_per_mask": 3}),
    "groups larger than blocks": ((29, 6), (4, 6), {"rows_per_mask": 10}),
    "one group, beyond the rows": ((13, 70), (4, 9), {"rows_per_mask": 10**30}),
    "exact": ((13, 70), (4, 70), {"exact_count": True}),
    "exact, rows cut": ((13, 70), (4, 9), {"exact_count": True}),
    "exact, groups": ((13, 70), (4, 9), {"exact_count": True, "rows_per_mask": 3}),
    "exact, shared": ((4, 9, 11), (3, 2, 4), {"exact_count": True, "shared_axes": 2}),
    "flat": ((1000,), (333,), {}),
    "no axes": ((), (), {}),
    "no elements": ((0, 5), (1, 2), {}),
    "all shared": ((5, 3), (2, 2), {"shared_axes": (0, 1)}),
}


def streams(seed=3, position=5):
    """Two equal streams: one for dask, one for the whole array."""
    pair = fastdrop.MaskStream(seed), fastdrop.MaskStream(seed)
    for stream in pair:
        stream.position = position
    return pair


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_bits_are_those_of_the_whole_array(case, rate):
    shape, chunks, options = CASES[case]
    x = values(shape)
    lazy, whole = streams()
    y, mask = fastdrop.dask.dropout(da.from_array(x, chunks=chunks), rate, rng=lazy, **options)
    expected, expected_mask = fastdrop.dropout(x, rate, rng=whole, **options)
    assert_identical(y.compute(), expected)
    assert lazy == whole
    assert mask.compute() == expected_mask
    assert (mask.scale, mask.keep_prob) == (expected_mask.scale, expected_mask.keep_prob)
    assert (mask.shape, mask.rows_per_mask) == (expected_mask.shape, expected_mask.rows_per_mask)
    grad = fastdrop.dask.dropout_backward(da.from_array(x, chunks=2), mask)  # in other chunks
    assert_identical(grad.compute(), fastdrop.dropout_backward(x, expected_mask))
    assert_identical(
        mask.to_array(chunks=3, dtype="u1").compute(), expected_mask.to_array(dtype="u1")
    )


@st.composite
def chunked(draw):
    """Chunks of an array of one to three axes."""
    sizes = st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)
    return tuple(draw(st.lists(sizes, min_size=1, max_size=3)))


@given(
    chunks=chunked(),
    keep_prob=st.floats(0, 1),
    rows_per_mask=st.one_of(st.integers(1, 12), st.just("batch")),
    exact_count=st.booleans(),
)
def test_any_chunks(chunks, keep_prob, rows_per_mask, exact_count):
    shape = tuple(sum(sizes) for sizes in chunks)
    if exact_count and rows_per_mask == "batch" and len(shape) == 1:
        exact_count = False  # all axes would be shared
    options = {"rows_per_mask": rows_per_mask, "exact_count": exact_count, "keep_prob": keep_prob}
    x = values(shape, numpy.float64)
    y, _ = fastdrop.dask.dropout(da.from_array(x, chunks=chunks), rng=1, **options)
    expected, _ = fastdrop.dropout(x, rng=1, **options)
    assert_identical(y.compute(scheduler="synchronous"), expected)


@pytest.mark.parametrize("dtype", [numpy.float16, numpy.float32, numpy.float64])
def test_every_dtype_and_layout_of_blocks(dtype):
    expected = fastdrop.dropout(values((12, 10), dtype), 0.3, rng=1)[0]
    for name, x in layouts((12, 10), dtype):
        blocks = da.from_array(numpy.zeros((12, 10)), chunks=(5, 4)).map_blocks(
            lambda block, x, block_info: x[
                tuple(slice(*ends) for ends in block_info[0]["array-location"])
            ],
            x=x,
            dtype=dtype,
        )
        y, _ = fastdrop.dask.dropout(blocks, 0.3, rng=1)
        assert y.dtype == dtype
        assert_identical(y.compute(), expected), name


def test_a_foreign_byte_order():
    x = values((8, 6)).astype(numpy.dtype("f4").newbyteorder())
    y, mask = fastdrop.dask.dropout(da.from_array(x, chunks=5), 0.3, rng=1)
    assert y.dtype == numpy.float32
    assert_identical(y.compute(), fastdrop.dropout(x, 0.3, rng=1)[0])
    numpy.testing.assert_array_equal(fastdrop.dask.apply_mask(da.from_array(x), mask), y)


def test_every_backend_draws_the_same(each_backend):
    x = values((13, 70))
    y, mask = fastdrop.dask.dropout(da.from_array(x, chunks=(4, 9)), 0.3, rng=1, rows_per_mask=3)
    expected, drawn = fastdrop.dropout(x, 0.3, rng=1, rows_per_mask=3)
    assert_identical(y.compute(), expected)
    assert mask.compute() == drawn


@pytest.mark.parametrize(("scheduler", "workers"), SCHEDULERS)
def test_schedulers_and_numbers_of_workers(scheduler, workers):
    x = values((64, 33))
    y, _ = fastdrop.dask.dropout(da.from_array(x, chunks=(7, 20)), 0.2, rng=9, exact_count=True)
    expected = fastdrop.dropout(x, 0.2, rng=9, exact_count=True)[0]
    with dask.config.set(scheduler=scheduler, num_workers=workers):
        assert_identical(y.compute(), expected)
        assert_identical(y[3:40, 5:].compute(), expected[3:40, 5:])


def test_dropped_values_are_positive_zero_whatever_they_were():
    x = numpy.full((8, 8), numpy.nan, numpy.float32)
    x[::2] = -numpy.inf
    y, mask = fastdrop.dask.dropout(da.from_array(x, chunks=3), 0.5, rng=0)
    kept = mask.to_array().compute()
    assert not y.compute()[~kept].view(numpy.uint32).any()
    assert not numpy.isfinite(y.compute()[kept]).any()


def test_the_input_is_left_alone():
    x = values((8, 8))
    before = x.copy()
    blocks = da.from_array(x, chunks=4).persist(scheduler="synchronous")
    fastdrop.dask.dropout(blocks, 0.5, rng=0)[0].compute()
    numpy.testing.assert_array_equal(blocks.compute(), before)


def test_a_call_takes_one_position_when_the_graph_is_built():
    stream = fastdrop.MaskStream(0)
    x = da.ones((10, 10), chunks=4)
    first, mask = fastdrop.dask.dropout(x, 0.5, rng=stream)
    second, _ = fastdrop.dask.dropout(x, 0.5, rng=stream)
    described = fastdrop.dask.mask((10, 10), 0.5, rng=stream)
    assert (stream.position, mask.draw, described.draw) == (3, 0, 2)
    assert first.name != second.name
    once, again = first.compute(), first.compute()
    stream.position = 77
    numpy.testing.assert_array_equal(once, again)
    numpy.testing.assert_array_equal(once, first.compute())
    assert stream.position == 77
    assert (once != second.compute()).any()


def test_what_fails_takes_no_position():
    stream = fastdrop.MaskStream(0)
    x = da.ones((10, 10), chunks=4)
    for wrong in (
        {"rate": 1.5},
        {"rate": 0.5, "shared_axes": 2},
        {"rate": 0.5, "rows_per_mask": 0},
        {"rate": 0.5, "scale_at": "never"},
        {"rate": 0.5, "exact_count": True, "shared_axes": (0, 1)},
        {"rate": None},
    ):
        with pytest.raises((TypeError, ValueError)):
            fastdrop.dask.dropout(x, rng=stream, **wrong)
    assert stream.position == 0


def test_equal_calls_have_equal_names_and_others_have_not():
    x = da.ones((10, 10), chunks=4)
    names = [
        fastdrop.dask.dropout(x, rate, rng=seed, rows_per_mask=rows)[0].name
        for rate, seed, rows in [(0.5, 0, 1), (0.5, 0, 1), (0.4, 0, 1), (0.5, 1, 1), (0.5, 0, 2)]
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4


@pytest.mark.parametrize("rng", [None, 5, [1, 2], numpy.random.SeedSequence(3)])
def test_rng_as_everywhere(rng):
    y, mask = fastdrop.dask.dropout(da.ones((9, 9), chunks=4), 0.5, rng=rng)
    kept = mask.compute().to_array()
    numpy.testing.assert_array_equal(y.compute(), 2.0 * kept)
    if rng is not None:
        assert mask.compute() == fastdrop.dropout(numpy.ones((9, 9)), 0.5, rng=rng)[1]


def test_a_generator_seeds_a_stream():
    lazy, whole = numpy.random.default_rng(1), numpy.random.default_rng(1)
    _, mask = fastdrop.dask.dropout(da.ones((9, 9), chunks=4), 0.5, rng=lazy)
    assert mask.compute() == fastdrop.dropout(numpy.ones((9, 9)), 0.5, rng=whole)[1]
    assert lazy.random() == whole.random()


@pytest.mark.parametrize("exact_count", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_scaling_at_test_time(rate, exact_count):
    x = values((7, 11))
    lazy = da.from_array(x, chunks=3)
    options = {"scale_at": "test", "exact_count": exact_count}
    stream = fastdrop.MaskStream(2)
    for training in (True, False):
        y, mask = fastdrop.dask.dropout(lazy, rate, rng=stream, training=training, **options)
        expected, drawn = fastdrop.dropout(x, rate, rng=2, training=training, **options)
        assert_identical(y.compute(), expected)
        assert (mask is None) == (drawn is None)
    assert stream.position == 1
    same, mask = fastdrop.dask.dropout(lazy, rate, rng=stream, training=False)
    assert same is lazy
    assert mask is None
    assert stream.position == 1


def test_another_scale():
    x = values((7, 11))
    mask = fastdrop.dask.mask((7, 11), 0.5, rng=0)
    drawn = fastdrop.MaskStream(0).draw((7, 11), rate=0.5)
    lazy = da.from_array(x, chunks=3)
    for y in (
        fastdrop.dask.apply_mask(lazy, mask, scale=3),
        fastdrop.dask.apply_mask(lazy, mask.with_scale(3)),
    ):
        assert_identical(y.compute(), fastdrop.apply_mask(x, drawn, scale=3))
    assert mask.with_scale(3).compute().scale == 3
    assert_identical(
        fastdrop.dask.dropout_backward(lazy, None, scale=0.25).compute(),
        fastdrop.dropout_backward(x, None, scale=0.25),
    )
    with pytest.raises(TypeError, match="scale"):
        fastdrop.dask.apply_mask(lazy, mask, scale="3")


def test_a_mask_is_small_and_pickles():
    mask = fastdrop.dask.mask((10**9, 10**9), 0.5, rng=0)
    data = pickle.dumps(mask)
    assert len(data) < 1000
    window = (slice(10**9 - 2, None), slice(10**8, 10**8 + 100))
    assert pickle.loads(data).compute(window) == mask.compute(window)
    graph = fastdrop.dask.dropout(da.ones((2**20, 100), chunks=(2**10, 100)), 0.5, rng=0)[0].dask
    assert len(pickle.dumps(graph)) < 20_000  # not a copy of the chunks for each of 1024 blocks


def test_draw_numbers():
    stream = fastdrop.MaskStream(4)
    mask = fastdrop.dask.mask((5, 70), 0.5, rng=stream, at=2**40)
    assert stream.position == 0
    assert mask.compute() == stream.draw((5, 70), rate=0.5, at=2**40)
    with pytest.raises(ValueError, match="at must be in"):
        fastdrop.dask.mask((5, 70), 0.5, rng=stream, at=-1)
    stream.position = 2**56
    with pytest.raises(ValueError, match="used up"):
        fastdrop.dask.mask((5, 70), 0.5, rng=stream)


def unknown():
    x = da.ones((10, 4), chunks=3)
    return x[x[:, 0] > 0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: numpy.ones((3, 3)), TypeError, "x must be a dask array, got ndarray; dask.array"),
        (lambda: [1.0], TypeError, "x must be a dask array, got list"),
        (lambda: da.ones((3, 3), dtype=int), TypeError, "x must be float16, .* got dtype int64"),
        (unknown, ValueError, "x must have known chunk sizes, those of axis 0 .*x.compute_chunk"),
        (
            lambda: da.ma.masked_equal(da.ones((3, 3)), 0),
            TypeError,
            "x must not be a masked array",
        ),
    ],
)
def test_arrays_that_cannot_be(make, error, message):
    with pytest.raises(error, match=message):
        fastdrop.dask.dropout(make(), 0.5, rng=0)


def test_masks_that_do_not_fit():
    x = da.ones((4, 6), chunks=2)
    with pytest.raises(ValueError, match=r"mask must be for the shape of grad_y, \(4, 6\)"):
        fastdrop.dask.dropout_backward(x, fastdrop.dask.mask((6, 4), 0.5))
    with pytest.raises(TypeError, match=r"mask must be a fastdrop.dask.LazyMask.*got Mask"):
        fastdrop.dask.apply_mask(x, fastdrop.MaskStream(0).draw((4, 6), rate=0.5))


def test_a_block_that_is_not_what_its_chunk_says():
    x = da.ones((4, 6), chunks=2).map_blocks(lambda block: block[:1], dtype=float)
    with pytest.raises(ValueError, match="must have the shape of its chunk"):
        fastdrop.dask.dropout(x, 0.5, rng=0)[0].compute()


MATRIX_MASKS = [
    (None, None),
    ({"rows_per_mask": "batch"}, {"rows_per_mask": "batch"}),
    ({"rows_per_mask": 3}, {"rows_per_mask": 3}),
    ({"rows_per_mask": 4}, {"rows_per_mask": 6}),
    ({}, {"exact_count": True}),
    ({"rows_per_mask": 5}, None),
]


@pytest.mark.parametrize("chunks", [(7, 20), (7, 6), (1, 20), (40, 20)])
@pytest.mark.parametrize("masks", MATRIX_MASKS, ids=repr)
def test_masked_products(masks, chunks):
    x, w, bias = values((40, 20)), values((20, 9), seed=1), values((9,), seed=2)
    given, expected = {}, {}
    for name, shape, options in zip(
        ("mask_in", "mask_out"), ((40, 20), (40, 9)), masks, strict=True
    ):
        if options is not None:
            given[name] = fastdrop.dask.mask(shape, 0.5, rng=1, **options)
            expected[name] = fastdrop.MaskStream(1).draw(shape, rate=0.5, **options)
    lazy = da.from_array(x, chunks=chunks)
    y = fastdrop.dask.masked_matmul(lazy, w, bias=bias, **given)
    assert (y.shape, y.dtype, y.chunks[0]) == ((40, 9), numpy.float32, lazy.chunks[0])
    whole = fastdrop.masked_matmul(x, w, bias=bias, **expected)
    numpy.testing.assert_allclose(y.compute(), whole, rtol=1e-5, atol=1e-5)
    if "mask_out" in given:  # the same units are exactly zero
        numpy.testing.assert_array_equal(y.compute() == 0, whole == 0)
    w = da.from_array(w, chunks=4)
    numpy.testing.assert_array_equal(
        fastdrop.dask.masked_matmul(lazy, w, bias=bias, **given).compute(), y.compute()
    )


def test_products_of_three_axes():
    x, w = values((6, 5, 20)), values((20, 9), seed=1)
    mask = fastdrop.dask.mask((6, 5, 9), 0.5, rng=1, rows_per_mask=4)
    y = fastdrop.dask.masked_matmul(da.from_array(x, chunks=(5, 2, 7)), w, mask_out=mask)
    whole = fastdrop.masked_matmul(x, w, mask_out=mask.compute())
    numpy.testing.assert_allclose(y.compute(), whole, rtol=1e-5, atol=1e-5)


def test_products_that_cannot_be():
    x, w = da.ones((4, 6), chunks=2), numpy.ones((6, 3))
    with pytest.raises(ValueError, match="w must have shape"):
        fastdrop.dask.masked_matmul(x, w.T)
    with pytest.raises(TypeError, match="w must have dtype float64"):
        fastdrop.dask.masked_matmul(x, w.astype("f"))
    with pytest.raises(ValueError, match="bias must have shape"):
        fastdrop.dask.masked_matmul(x, w, bias=numpy.ones(6))
    with pytest.raises(ValueError, match="method must be one of"):
        fastdrop.dask.masked_matmul(x, w, method="fast")
    with pytest.raises(ValueError, match="x must have at least 2 axes"):
        fastdrop.dask.masked_matmul(x[0], w)
    with pytest.raises(ValueError, match="mask_out must be for the shape of the result"):
        fastdrop.dask.masked_matmul(x, w, mask_out=fastdrop.dask.mask((4, 6), 0.5))
    with pytest.raises(ValueError, match="those of axis 0 are unknown"):
        fastdrop.dask.masked_matmul(unknown(), numpy.ones((4, 3)))


def test_whole_rows_stay_within_the_chunk_size():
    x = da.zeros((10_000, 1000), chunks=(10_000, 10), dtype="f4")
    with dask.config.set({"array.chunk-size": "4MiB"}):
        y = fastdrop.dask.masked_matmul(x, numpy.zeros((1000, 2), numpy.float32))
    assert max(y.chunks[0]) * 1000 * 4 <= 4 << 20


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("chunks", [(3, 7), (10, 3), "auto"])
def test_memory_mapped_files(tmp_path, order, chunks):
    x = numpy.asarray(values((10, 7)), order=order)
    numpy.save(tmp_path / "x.npy", x)
    mapped = numpy.load(tmp_path / "x.npy", mmap_mode="r")
    lazy = fastdrop.dask.from_memmap(mapped, chunks)
    assert_identical(lazy.compute(), x)
    assert_identical(lazy[4:, ::2].compute(), x[4:, ::2])
    raw = numpy.memmap(tmp_path / "raw", numpy.int16, "w+", shape=(5, 3, 2))
    raw[...] = numpy.arange(30).reshape(5, 3, 2)  # not flushed by us
    numpy.testing.assert_array_equal(fastdrop.dask.from_memmap(raw, 2).compute(), raw)


def test_memory_mapped_files_that_cannot_be(tmp_path):
    numpy.save(tmp_path / "x.npy", values((10, 7)))
    mapped = numpy.load(tmp_path / "x.npy", mmap_mode="r")
    for part in (mapped[2:], mapped[:, ::2], mapped.T):
        with pytest.raises(ValueError, match="whole memory-mapped file"):
            fastdrop.dask.from_memmap(part)
    with pytest.raises(ValueError, match='mode "c"'):
        fastdrop.dask.from_memmap(numpy.load(tmp_path / "x.npy", mmap_mode="c"))
    with pytest.raises(TypeError, match=r"array must be a numpy.memmap, got ndarray"):
        fastdrop.dask.from_memmap(values((10, 7)))
