"""Mask: what it tells, how it combines, that it does not change."""

import copy
import pickle

import numpy
import pytest

from fastdrop import Mask, MaskStream

ARRAY = numpy.random.default_rng(0).random((6, 11)) < 0.4


@pytest.fixture
def mask():
    return MaskStream(0).draw((6, 11), keep_prob=0.4)


def test_attributes_of_a_bernoulli_mask(mask):
    assert mask.shape == (6, 11)
    assert mask.rows_per_mask == 1
    assert mask.keep_prob == 0.4
    assert mask.scale == 1 / 0.4
    assert mask.nbytes == mask.bits.nbytes == 9
    assert mask.bits.dtype == numpy.uint8
    assert mask.count() == int(mask.to_array().sum())


def test_the_scale_is_computed_from_what_was_asked_for():
    rate = 0.1
    assert MaskStream(0).draw((5,), rate=rate).scale == 1 / (1 - rate)
    exact = MaskStream(0).draw((4, 7), rate=rate, exact_count=True)
    assert exact.scale == 7 / 6
    assert exact.keep_prob == 1 - rate


@pytest.mark.parametrize(
    ("keep_prob", "exact_count", "scale"),
    [
        (0.0, False, 0),
        (0.0, True, 0),
        (1.0, False, 1),
        (1.0, True, 1),
        # No multiple of 2^-64: the threshold is 0 and nothing is kept.
        (2.0**-65, False, 0),
        (2.0**-64, False, 2.0**64),
        # Nearest to no element at all.
        (0.01, True, 0),
    ],
)
def test_scale_at_the_ends(keep_prob, exact_count, scale):
    mask = MaskStream(0).draw((4, 10), keep_prob=keep_prob, exact_count=exact_count)
    assert mask.scale == scale


def test_the_bits_are_one_per_element():
    mask = MaskStream(0).draw((1000, 1001), rate=0.5)
    assert mask.nbytes == (1_001_000 + 7) // 8
    assert mask.bits.size == mask.nbytes


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
def test_empty_masks_and_masks_without_axes(shape):
    mask = MaskStream(0).draw(shape, rate=0.5)
    assert mask.shape == shape
    assert mask.to_array().shape == shape
    assert mask.nbytes == (1 if shape == () else 0)
    assert mask.count() in ((0, 1) if shape == () else (0,))
    assert pickle.loads(pickle.dumps(mask)) == mask


@pytest.mark.parametrize("dtype", [bool, numpy.uint8, numpy.float32, numpy.float64, numpy.int64])
def test_to_array(mask, dtype):
    array = mask.to_array(dtype)
    assert array.dtype == dtype
    packed = numpy.packbits(array.astype(bool).ravel(), bitorder="little")
    numpy.testing.assert_array_equal(packed, mask.bits)
    assert mask.to_array().dtype == bool


def test_to_array_returns_the_callers_own_array(mask):
    before = mask.bits.copy()
    mask.to_array()[...] = True
    numpy.testing.assert_array_equal(mask.bits, before)


def test_numpy_takes_a_mask_for_an_array(mask):
    numpy.testing.assert_array_equal(numpy.asarray(mask), mask.to_array())
    assert numpy.asarray(mask, dtype=numpy.float32).dtype == numpy.float32
    assert numpy.array(mask, copy=True).sum() == mask.count()
    # A mask has no array of bytes to give away without a copy.
    with pytest.raises(ValueError, match="copy"):
        numpy.asarray(mask, copy=False)


def test_indices_are_flat():
    mask = Mask.from_array(ARRAY)
    numpy.testing.assert_array_equal(mask.indices(), numpy.flatnonzero(ARRAY))


@pytest.mark.parametrize("options", [{"shared_axes": 0}, {"rows_per_mask": "batch"}])
def test_indices_of_a_unit_mask_are_the_active_units(options):
    mask = MaskStream(0).draw((128, 50), rate=0.5, **options)
    assert mask.shape == (1, 50)
    numpy.testing.assert_array_equal(mask.indices(), numpy.flatnonzero(mask.to_array()[0]))


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 1000])
def test_indices_and_count_at_word_boundaries(n):
    for array in (numpy.ones(n, bool), numpy.zeros(n, bool), numpy.arange(n) % 3 == 0):
        mask = Mask.from_array(array)
        assert mask.count() == int(array.sum())
        numpy.testing.assert_array_equal(mask.indices(), numpy.flatnonzero(array))


def test_with_scale_shares_the_bits(mask):
    other = mask.with_scale(3)
    assert other.scale == 3.0
    assert mask.scale == 2.5
    assert numpy.shares_memory(other.bits, mask.bits)
    assert other == mask
    assert (other.keep_prob, other.rows_per_mask) == (mask.keep_prob, mask.rows_per_mask)


@pytest.mark.parametrize(
    "array",
    [
        ARRAY,
        ARRAY.T,
        ARRAY[::2, ::-1],
        numpy.asfortranarray(ARRAY),
        ARRAY.astype(numpy.uint8),
        ARRAY.astype(numpy.float32),
        ARRAY.tolist(),
        numpy.array(True),
        numpy.zeros((3, 0)),
    ],
    ids=range(9),
)
def test_from_array(array):
    mask = Mask.from_array(array)
    assert mask.shape == numpy.shape(array)
    assert mask.scale == 1
    assert mask.rows_per_mask == 1
    numpy.testing.assert_array_equal(mask.to_array(), numpy.asarray(array, dtype=bool))


def test_from_array_with_a_keep_prob():
    mask = Mask.from_array(ARRAY, keep_prob=0.25)
    assert mask.keep_prob == 0.25
    assert mask.scale == 4
    assert Mask.from_array(ARRAY, keep_prob=0).scale == 0


def test_from_array_copies():
    array = ARRAY.copy()
    mask = Mask.from_array(array)
    array[...] = True
    numpy.testing.assert_array_equal(mask.to_array(), ARRAY)


def test_or_and_not():
    other = numpy.random.default_rng(1).random(ARRAY.shape) < 0.5
    first = Mask.from_array(ARRAY, keep_prob=0.25)
    union = first | Mask.from_array(other, keep_prob=0.25)
    numpy.testing.assert_array_equal(union.to_array(), ARRAY | other)
    numpy.testing.assert_array_equal((~first).to_array(), ~ARRAY)
    assert union.scale == 1
    assert (~first).scale == 1
    assert ~~first == first
    # Padding bits stay zero, so that equal masks have equal bytes.
    assert (~first).count() == ARRAY.size - first.count()


def test_equality_is_of_bits_and_shape():
    mask = Mask.from_array(ARRAY)
    assert mask == Mask.from_array(ARRAY, keep_prob=0.5)
    assert mask != Mask.from_array(ARRAY.T.copy())
    assert mask != Mask.from_array(ARRAY.reshape(11, 6))
    changed = ARRAY.copy()
    changed[5, 10] = not changed[5, 10]
    assert mask != Mask.from_array(changed)
    assert isinstance(mask == Mask.from_array(ARRAY), bool)
    assert mask != 1
    assert mask != "mask"


@pytest.mark.parametrize("name", ["shape", "rows_per_mask", "keep_prob", "scale", "bits", "new"])
def test_a_mask_does_not_change(mask, name):
    with pytest.raises(AttributeError):
        setattr(mask, name, 1)


def test_the_bits_are_read_only(mask):
    with pytest.raises(ValueError, match="read-only"):
        mask.bits[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        mask.bits.flags.writeable = True


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda mask: pickle.loads(pickle.dumps(mask))]
)
def test_copies_and_pickles(duplicate):
    mask = MaskStream(0).draw((100, 30), rate=0.3, rows_per_mask=32).with_scale(7)
    again = duplicate(mask)
    assert again == mask
    assert again.shape == (4, 30)
    assert again.rows_per_mask == 32
    assert again.keep_prob == mask.keep_prob
    assert again.scale == 7
    assert not again.bits.flags.writeable


def test_a_pickled_mask_is_small():
    mask = MaskStream(0).draw((1024, 1024), rate=0.5)
    assert len(pickle.dumps(mask, protocol=5)) < mask.nbytes + 1000


def test_repr_names_shape_and_keep_prob(mask):
    assert "(6, 11)" in repr(mask)
    assert "0.4" in repr(mask)


def test_and_and_xor():
    other = numpy.random.default_rng(1).random(ARRAY.shape) < 0.5
    first, second = Mask.from_array(ARRAY, keep_prob=0.25), Mask.from_array(other)
    for joined, expected in ((first & second, ARRAY & other), (first ^ second, ARRAY ^ other)):
        numpy.testing.assert_array_equal(joined.to_array(), expected)
        assert (joined.scale, joined.keep_prob) == (1, None)
        assert joined.count() == expected.sum()
    mask = first
    mask &= second
    assert mask == first & second
    with pytest.raises(ValueError, match="shape"):
        first & Mask.from_array(ARRAY.T)
    grouped = MaskStream(0).draw((6, 11), rate=0.5, rows_per_mask="batch")
    with pytest.raises(ValueError, match="rows_per_mask"):
        grouped ^ Mask.from_array(ARRAY[:1])


@pytest.mark.parametrize("shape", [(0,), (5,), (3, 0, 2), (2, 3, 4)])
def test_length_dimensions_and_size(shape):
    mask = MaskStream(0).draw(shape, rate=0.5)
    array = mask.to_array()
    assert (len(mask), mask.ndim, mask.size) == (len(array), array.ndim, array.size)
    assert bool(mask)  # one is there, even if it is empty


def test_a_mask_without_axes_has_no_length():
    with pytest.raises(TypeError, match="without axes"):
        len(MaskStream(0).draw((), rate=0.5))


@pytest.mark.parametrize(
    "window",
    [
        numpy.s_[:], numpy.s_[1:3], numpy.s_[1:3, 2:9], numpy.s_[:, 3:], numpy.s_[..., :4],
        numpy.s_[-2:, -5:-1], numpy.s_[4:2], numpy.s_[2:100], numpy.s_[...], numpy.s_[0:1:1],
    ],
    ids=str,
)  # fmt: skip
def test_a_window_by_index(mask, window):
    part = mask[window]
    numpy.testing.assert_array_equal(part.to_array(), mask.to_array()[window])
    assert (part.scale, part.keep_prob, part.rows_per_mask) == (2.5, 0.4, 1)


def test_a_window_by_index_is_the_window_of_the_draw():
    options = {"rate": 0.5, "rows_per_mask": 4, "at": 3}
    whole = MaskStream(0).draw((10, 70), **options)
    for window in ((slice(1, 3), slice(5, 69)), (slice(0, 2), slice(0, 70))):
        part = MaskStream(0).draw((10, 70), window=window, **options)
        assert whole[window] == part
        assert whole[window].rows_per_mask == part.rows_per_mask == 4


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (0, TypeError), ((0, slice(None)), TypeError), (None, TypeError), ([0, 1], TypeError),
        (ARRAY, TypeError), (slice(None, None, 2), ValueError), (slice(None, None, -1), ValueError),
        ((slice(None),) * 3, ValueError), ((..., ...), ValueError),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_window(mask, index, error):
    with pytest.raises(error, match="mask"):
        mask[index]


def test_a_mask_is_not_iterated(mask):
    with pytest.raises(TypeError, match="iterable"):
        iter(mask)
