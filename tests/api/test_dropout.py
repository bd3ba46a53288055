"""dropout: training, test time, random numbers, layouts."""

import os
import tracemalloc

import numpy
import pytest
from conftest import assert_identical, layouts, selected, unaligned, values

from fastdrop import MaskStream, apply_mask, dropout, dropout_backward

DTYPES = (numpy.float16, numpy.float32, numpy.float64)


# --- Training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (33,), (129, 7), (3, 0, 2), (5, 4, 3, 2)])
@pytest.mark.parametrize("rate", [0, 0.1, 0.5, 1])
def test_dropout_draws_a_mask_and_applies_it(each_isa, dtype, shape, rate):
    x = values(shape, dtype)
    y, mask = dropout(x, rate, rng=MaskStream(4))
    assert isinstance(y, numpy.ndarray)
    assert mask == MaskStream(4).draw(shape, rate=rate)
    assert mask.scale == (0 if rate == 1 else 1 / (1 - rate))
    assert_identical(y, selected(x, mask.to_array(), mask.scale))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(17, 130), (6, 5, 4)])
def test_every_layout_gets_the_mask_of_its_contiguous_copy(each_isa, dtype, shape):
    for name, x in layouts(shape, dtype):
        expected, mask = dropout(x.copy(), 0.3, rng=5)
        y, same = dropout(x, 0.3, rng=5)
        assert same == mask, name
        assert_identical(y, expected)
        for _, out in layouts(shape, dtype, seed=1):
            assert dropout(x, 0.3, rng=5, out=out)[0] is out
            assert_identical(out, expected)


def test_broadcast_inputs_are_full_arrays():
    row = values((1, 40))
    x = numpy.broadcast_to(row, (30, 40))
    y, mask = dropout(x, 0.5, rng=0)
    assert mask.shape == (30, 40)
    assert_identical(y, selected(x, mask.to_array(), 2))


def test_the_input_is_left_alone_unless_it_is_out():
    x = values((50, 50))
    before = x.copy()
    y, _ = dropout(x, 0.5, rng=0)
    assert_identical(x, before)
    assert not numpy.shares_memory(x, y)
    z, _ = dropout(x, 0.5, rng=0, out=x)
    assert z is x
    assert_identical(x, y)


@pytest.mark.parametrize(
    ("shape", "options", "mask_shape"),
    [
        ((8, 6), {"shared_axes": 0}, (1, 6)),
        ((8, 6), {"shared_axes": -1}, (8, 1)),
        ((4, 3, 5, 5), {"shared_axes": (2, 3)}, (4, 3, 1, 1)),
        ((4, 3, 5, 5), {"shared_axes": (1,)}, (4, 1, 5, 5)),
        ((4, 3, 5, 5), {"shared_axes": (0, -1)}, (1, 3, 5, 1)),
        ((130, 20), {"rows_per_mask": 32}, (5, 20)),
        ((130, 20), {"rows_per_mask": "batch"}, (1, 20)),
        ((10, 3, 5, 5), {"rows_per_mask": 4, "shared_axes": (2, 3)}, (3, 3, 1, 1)),
        ((9,), {"rows_per_mask": 4}, (3,)),
    ],
)
@pytest.mark.parametrize("exact_count", [False, True])
def test_shared_masks(each_isa, each_thread_count, shape, options, mask_shape, exact_count):
    x = values(shape)
    y, mask = dropout(x, 0.4, rng=2, exact_count=exact_count, **options)
    assert mask.shape == mask_shape
    rows_per_mask = options.get("rows_per_mask", 1)
    assert mask.rows_per_mask == rows_per_mask
    kept = mask.to_array()
    if isinstance(rows_per_mask, int):
        kept = kept.repeat(rows_per_mask, axis=0)[: shape[0]] if rows_per_mask > 1 else kept
    expected = selected(x, kept, mask.scale)
    assert_identical(y, expected)
    assert_identical(apply_mask(x, mask), expected)
    assert_identical(dropout_backward(x, mask), expected)


def test_exact_count_keeps_exactly_so_many():
    y, mask = dropout(numpy.ones((32, 256)), 0.5, rng=0, exact_count=True)
    assert ((y != 0).sum(axis=1) == 128).all()
    assert mask.scale == 2
    y, mask = dropout(numpy.ones((32, 5)), 0.5, rng=0, exact_count=True)
    numpy.testing.assert_allclose(y.sum(axis=1), 5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropped_values_are_positive_zero_whatever_they_were(each_isa, dtype):
    x = numpy.array([numpy.nan, numpy.inf, -numpy.inf, -0.0, -1.0] * 40, dtype)
    y, mask = dropout(x, 0.5, rng=0)
    kept = mask.to_array()
    assert not y[~kept].any()
    assert not numpy.signbit(y[~kept]).any()
    with numpy.errstate(invalid="ignore"):
        assert_identical(y[kept], x[kept] * dtype(2))
    everything_dropped, _ = dropout(x, 1)
    assert_identical(everything_dropped, numpy.zeros_like(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_scale_is_rounded_once(each_isa, dtype):
    """The product is x * dtype(1 / keep_prob), not x / keep_prob nor a product in float64."""
    x = values(5000, dtype)
    y, mask = dropout(x, keep_prob=0.7, rng=0)
    assert_identical(y, selected(x, mask.to_array(), 1 / 0.7))


def test_float_in_float_out():
    for dtype in DTYPES:
        x = values((4, 4), dtype)
        assert dropout(x, 0.5)[0].dtype == dtype
        assert dropout(x, 0.5, training=False, scale_at="test")[0].dtype == dtype
        mask = dropout(x, 0.5)[1]
        assert dropout_backward(x, mask).dtype == dtype
        assert dropout_backward(x, None, scale=0.5).dtype == dtype
        assert apply_mask(x, mask, scale=3).dtype == dtype


# --- Where the random numbers come from ---------------------------------------------------------


def test_an_integer_seeds_a_fresh_stream_each_time():
    x = values(100)
    assert dropout(x, 0.5, rng=6)[1] == dropout(x, 0.5, rng=6)[1]
    assert dropout(x, 0.5, rng=6)[1] == MaskStream(6).draw((100,), rate=0.5)


def test_a_seed_sequence_seeds_a_fresh_stream():
    sequence = numpy.random.SeedSequence(6)
    first = dropout(values(100), 0.5, rng=sequence)[1]
    assert first == MaskStream(6).draw((100,), rate=0.5)


def test_a_stream_is_used_and_advanced():
    stream, x = MaskStream(6), values(100)
    masks = [dropout(x, 0.5, rng=stream)[1] for _ in range(3)]
    assert stream.position == 3
    assert masks == [MaskStream(6).draw((100,), rate=0.5, at=draw) for draw in range(3)]


def test_a_generator_seeds_a_fresh_stream():
    generator, same = numpy.random.default_rng(1), numpy.random.default_rng(1)
    words = [int(v) for v in same.integers(0, 2**32, 4, dtype=numpy.uint32)]
    expected = MaskStream(numpy.random.SeedSequence(words)).draw((100,), rate=0.5)
    assert dropout(values(100), 0.5, rng=generator)[1] == expected
    assert dropout(values(100), 0.5, rng=generator)[1] != expected


def test_without_a_seed_every_call_differs():
    x = values(100)
    assert dropout(x, 0.5)[1] != dropout(x, 0.5)[1]


def test_a_failed_call_does_not_advance_the_stream():
    stream = MaskStream(0)
    x = values(10)
    for options in (
        {"rate": 2},
        {"rate": 0.5, "out": numpy.empty(9, numpy.float32)},
        {"rate": 0.5, "out": numpy.empty(10)},
        {"rate": 0.5, "shared_axes": 1},
        {"rate": 0.5, "scale_at": "never"},
        {"rate": 0.5, "shared_axes": 0, "exact_count": True},
    ):
        with pytest.raises((ValueError, TypeError)):
            dropout(x, rng=stream, **options)
        assert stream.position == 0
    with pytest.raises(TypeError):
        dropout(numpy.arange(10), 0.5, rng=stream)
    assert stream.position == 0


# --- At test time -------------------------------------------------------------------------------


def test_evaluation_returns_the_argument_itself():
    x = values((3, 4))
    stream = MaskStream(0)
    y, mask = dropout(x, 0.5, rng=stream, training=False)
    assert y is x
    assert mask is None
    assert stream.position == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_evaluation_in_the_way_of_the_article_scales_a_new_array(each_isa, dtype):
    x = values((3, 40), dtype)
    y, mask = dropout(x, 0.3, training=False, scale_at="test")
    assert mask is None
    assert not numpy.shares_memory(x, y)
    assert_identical(y, selected(x, True, 1 - 0.3))
    z, _ = dropout(x, 0.3, training=False, scale_at="test", exact_count=True)
    assert_identical(z, selected(x, True, 28 / 40))


def test_evaluation_with_out():
    x = values((3, 4))
    out = numpy.empty_like(x)
    y, _ = dropout(x, 0.25, training=False, scale_at="test", out=out)
    assert y is out
    assert_identical(out, x * numpy.float32(0.75))


def test_training_in_the_way_of_the_article_does_not_scale():
    x = values((30, 40))
    y, mask = dropout(x, 0.3, rng=1, scale_at="test")
    assert_identical(y, selected(x, mask.to_array(), 1))
    inverted = dropout(x, 0.3, rng=1)[1]
    assert mask == inverted
    grad = values((30, 40), seed=1)
    assert_identical(dropout_backward(grad, mask), selected(grad, mask.to_array(), 1))


def test_scaling_at_test_time_equals_scaled_weights():
    x, w = values((20, 30), numpy.float64), values((30, 5), numpy.float64, 1)
    y, _ = dropout(x, 0.4, training=False, scale_at="test")
    numpy.testing.assert_allclose(y @ w, x @ (w * 0.6), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale_at", ["train", "test"])
@pytest.mark.parametrize("exact_count", [False, True])
def test_training_and_test_agree_in_expectation(scale_at, exact_count):
    """Mean of 4000 draws of 25 ones: 5 sigma, error probability 6e-7 for each of four cases."""
    x = numpy.ones(25)
    options = {"rate": 0.3, "scale_at": scale_at, "exact_count": exact_count}
    stream = MaskStream(0)
    mean = numpy.mean([dropout(x, rng=stream, **options)[0] for _ in range(4000)])
    expected = dropout(x, training=False, **options)[0].mean()
    factor = 1 / 0.7 if scale_at == "train" else 1
    sigma = factor * numpy.sqrt(0.3 * 0.7 / 100_000)
    # Every row of an exact-count mask has the same sum: nothing is left to chance.
    assert abs(mean - expected) < (1e-9 if exact_count else 5 * sigma)


def test_rate_zero_changes_nothing():
    x = values((9, 9))
    for options in ({}, {"exact_count": True}, {"rows_per_mask": 2}, {"shared_axes": 1}):
        y, mask = dropout(x, 0, rng=0, **options)
        assert_identical(y, x)
        assert mask.scale == 1
        assert_identical(dropout_backward(x, mask), x)


def test_rate_one_gives_zeros_and_zero_gradients():
    x = numpy.full((9, 9), numpy.nan)
    for scale_at in ("train", "test"):
        y, mask = dropout(x, 1, rng=0, scale_at=scale_at)
        assert_identical(y, numpy.zeros_like(x))
        assert_identical(dropout_backward(x, mask), numpy.zeros_like(x))
        ones = numpy.ones((9, 9))
        expected = ones if scale_at == "train" else numpy.zeros_like(ones)
        assert_identical(dropout(ones, 1, training=False, scale_at=scale_at)[0], expected)


# --- Odd arrays, threads, memory ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"rows_per_mask": 2}], ids=str)
def test_unaligned_arrays(each_isa, dtype, options):
    x = unaligned(values(101, dtype))
    assert not x.flags.aligned
    expected, mask = dropout(x.copy(), 0.5, rng=0, **options)
    assert_identical(dropout(x, 0.5, rng=0, **options)[0], expected)
    assert_identical(apply_mask(x, mask), expected)
    assert_identical(dropout_backward(x, mask), expected)
    aligned = values(101, dtype, seed=1)
    assert_identical(
        dropout(aligned, 0.5, rng=0, out=unaligned(aligned), **options)[0],
        dropout(aligned, 0.5, rng=0, **options)[0],
    )
    assert dropout(x, 0.5, rng=0, out=x, **options)[0] is x
    assert_identical(x, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_per_mask", ["batch", 9, 100])
def test_short_rows_that_share_their_bits(each_isa, each_thread_count, dtype, rows_per_mask):
    """They are masked as long runs by repeated bits: in place, strided, and where the runs end."""
    sizes = (7, 5), (8, 1), (9, 3), (300, 23), (41, 64), (17, 255), (33, 256), (20, 257)
    for rows, columns in sizes:
        x = numpy.random.default_rng(rows).standard_normal((rows, columns)).astype(dtype)
        mask = MaskStream(columns).draw(x.shape, rate=0.4, rows_per_mask=rows_per_mask)
        kept = numpy.repeat(mask.to_array(), rows if rows_per_mask == "batch" else rows_per_mask, 0)
        expected = numpy.where(kept[:rows], x * dtype(mask.scale), dtype(0))
        wide = numpy.full((rows, 2 * columns), 7, dtype)
        part = wide[:, :columns]
        for out in (numpy.empty_like(x), part):
            assert_identical(numpy.array(apply_mask(x, mask, out=out)), expected)
        for in_place in (x.copy(), part):
            in_place[...] = x
            assert_identical(numpy.array(apply_mask(in_place, mask, out=in_place)), expected)
        assert (wide[:, columns:] == 7).all()


def test_large_arrays_on_every_thread_count(each_isa, each_thread_count):
    x = values((1031, 701))
    y, mask = dropout(x, 0.3, rng=0)
    assert_identical(y, selected(x, mask.to_array(), 1 / 0.7))
    turned = dropout(x.T, 0.3, rng=0)[0]
    assert_identical(dropout_backward(x.T, MaskStream(0).draw((701, 1031), rate=0.3)), turned)


@pytest.mark.skipif(
    os.environ.get("FASTDROP_BACKEND") == "numpy", reason="the NumPy references unpack the bits"
)
def test_memory_is_one_bit_per_element():
    x = values(4_000_000)
    out = numpy.empty_like(x)
    dropout(x, 0.5, rng=0, out=out)
    tracemalloc.start()
    _, mask = dropout(x, 0.5, rng=0, out=out)
    grad = dropout_backward(x, mask, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grad is out
    assert peak < mask.nbytes + 100_000
