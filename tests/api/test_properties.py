"""Properties that hold for every request, with requests made by hypothesis."""

import itertools
import math
import pickle

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdrop
from fastdrop import Mask, MaskStream, _kernels, reference

DRAWS = st.one_of(st.integers(0, 5), st.integers(0, 2**56 - 1))
SEEDS = st.integers(0, 2**64)
KEEP_PROBS = st.one_of(
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1 / 3, 2.0**-64, 1 - 2.0**-53]),
    st.floats(0, 1),
)
SHAPES = st.lists(st.integers(0, 40), max_size=4).map(tuple)


@st.composite
def windows(draw, shape):
    """One slice for each axis of `shape`."""
    ends = [sorted(draw(st.tuples(*[st.integers(0, size)] * 2))) for size in shape]
    return tuple(slice(start, stop) for start, stop in ends)


@st.composite
def partitions(draw, shape):
    """Windows that cover `shape` without overlapping: cuts on every axis, in any order."""
    pieces = []
    for size in shape:
        cuts = sorted(draw(st.sets(st.integers(0, size), max_size=3)) | {0, size})
        pieces.append([slice(*pair) for pair in itertools.pairwise(cuts)])
    return draw(st.permutations(list(itertools.product(*pieces))))


@st.composite
def requests(draw):
    """Arguments of MaskStream.draw, apart from window and at, that are not errors."""
    shape = draw(st.lists(st.integers(0, 12), min_size=1, max_size=4).map(tuple))
    axes = draw(st.sets(st.integers(1, len(shape) - 1))) if len(shape) > 1 else set()
    # The last choice below shares axis 0, so that some other axis must be left to exact counts.
    exact = draw(st.booleans()) and len(axes) < len(shape) - 1
    return {
        "shape": shape,
        "keep_prob": draw(KEEP_PROBS),
        "shared_axes": tuple(axes),
        "rows_per_mask": draw(st.sampled_from([1, 2, 5, 100, "batch"])),
        "exact_count": exact,
    }


@given(data=st.data(), request_=requests(), seed=SEEDS, at=DRAWS)
def test_any_partition_into_windows_equals_the_whole(data, request_, seed, at):
    stream = MaskStream(seed)
    whole = stream.draw(**request_, at=at)
    assembled = numpy.full(whole.shape, 2, dtype=numpy.uint8)
    for window in data.draw(partitions(whole.shape)):
        part = stream.draw(**request_, at=at, window=window)
        assembled[window] = part.to_array(numpy.uint8)
    numpy.testing.assert_array_equal(assembled, whole.to_array(numpy.uint8))


@given(data=st.data(), draw=DRAWS, keep_prob=KEEP_PROBS, shape=SHAPES)
def test_kernels_equal_their_references(each_isa, data, draw, keep_prob, shape):
    window = data.draw(windows(shape))
    starts = tuple(axis.start for axis in window)
    stops = tuple(axis.stop for axis in window)
    key = data.draw(st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
    n = math.prod(stop - start for start, stop in zip(starts, stops, strict=True))
    threshold = data.draw(
        st.one_of(st.just(reference.bernoulli_threshold(keep_prob)), st.integers(0, 2**64))
    )
    calls = [("draw_bernoulli", threshold)]
    if shape:
        calls.append(("draw_exact_count", data.draw(st.integers(0, shape[-1]))))
    for name, parameter in calls:
        results = []
        for kernels in (_kernels, reference):
            bits = numpy.full((n + 7) // 8 + 16, 0x5A, dtype=numpy.uint8)
            getattr(kernels, name)(*key, draw, parameter, shape, starts, stops, bits)
            results.append(bits)
        numpy.testing.assert_array_equal(*results)


@given(
    elements=st.lists(st.integers(0, 2**63 - 1), max_size=30),
    draw=DRAWS,
    threshold=st.integers(0, 2**64),
)
def test_comparing_digits_is_comparing_numbers(elements, draw, threshold):
    key = (17, 4)
    elements = numpy.array(elements, dtype=numpy.uint64)
    kept = reference.kept_bernoulli(elements, draw, threshold, key)
    uniform = reference.uniforms(elements, draw, key)
    assert kept.tolist() == [int(u) < threshold for u in uniform]
    # A threshold next to an element's own number is decided by the last digit.
    for element, u in zip(elements[:3], uniform[:3], strict=True):
        assert not reference.kept_bernoulli([element], draw, int(u), key)[0]
        assert reference.kept_bernoulli([element], draw, int(u) + 1, key)[0]


@given(element=st.integers(0, 2**62), draw=DRAWS)
def test_the_kernels_decide_by_the_last_digit(each_isa, element, draw):
    u = int(reference.uniforms([element], draw, (17, 4))[0])
    kept = numpy.empty(24, dtype=numpy.uint8)
    for threshold, expected in ((u, 0), (u + 1, 1)):
        _kernels.draw_bernoulli(
            17, 4, draw, threshold, (2**62 + 1,), (element,), (element + 1,), kept
        )
        assert kept[0] == expected


@given(request_=requests(), other=KEEP_PROBS, seed=SEEDS, at=DRAWS)
def test_a_larger_keep_prob_keeps_a_superset(request_, other, seed, at):
    probabilities = sorted([request_.pop("keep_prob"), other])
    smaller, larger = (
        MaskStream(seed).draw(**request_, keep_prob=keep_prob, at=at).to_array()
        for keep_prob in probabilities
    )
    assert (larger | ~smaller).all()


@given(request_=requests(), seed=SEEDS, at=DRAWS)
def test_a_mask_survives_pickling_and_arrays(request_, seed, at):
    mask = MaskStream(seed).draw(**request_, at=at)
    again = pickle.loads(pickle.dumps(mask))
    assert again == mask
    assert (again.keep_prob, again.scale) == (mask.keep_prob, mask.scale)
    assert again.rows_per_mask == mask.rows_per_mask
    array = mask.to_array()
    assert array.shape == mask.shape
    assert mask.count() == int(array.sum())
    packed = numpy.packbits(array.ravel(), bitorder="little")
    numpy.testing.assert_array_equal(mask.bits, packed)


@given(data=st.data(), shape=SHAPES)
def test_any_array_becomes_a_mask_and_back(data, shape):
    seed = data.draw(st.integers(0, 1000))
    array = numpy.random.default_rng(seed).random(shape) < 0.5
    mask = Mask.from_array(array)
    numpy.testing.assert_array_equal(mask.to_array(), array)
    numpy.testing.assert_array_equal((~mask).to_array(), ~array)
    numpy.testing.assert_array_equal(mask.indices(), numpy.flatnonzero(array))
    other = numpy.random.default_rng(seed + 1).random(shape) < 0.5
    numpy.testing.assert_array_equal((mask | Mask.from_array(other)).to_array(), array | other)


@given(seed=SEEDS, positions=st.lists(DRAWS, min_size=1, max_size=6))
def test_a_draw_depends_on_its_number_not_on_history(seed, positions):
    stream = MaskStream(seed)
    for position in positions:
        stream.position = position
        by_position = stream.draw((70,), rate=0.5)
        assert stream.position == position + 1
        assert by_position == MaskStream(seed).draw((70,), rate=0.5, at=position)


@st.composite
def strided_arrays(draw, dtype):
    """An array of any number of axes whose strides have any order, sign and step."""
    shape = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple))
    steps = draw(st.tuples(*[st.sampled_from([1, 2, 3, -1, -2])] * len(shape)))
    order = draw(st.permutations(range(len(shape))))
    base_shape = tuple(abs(step) * size for step, size in zip(steps, shape, strict=True))
    base = numpy.random.default_rng(0).standard_normal(base_shape).astype(dtype)
    return base[tuple(slice(None, None, step) for step in steps)].transpose(order)


@pytest.mark.parametrize("dtype", [numpy.float16, numpy.float32, numpy.float64])
@given(data=st.data())
def test_the_layout_of_an_array_does_not_matter(each_isa, dtype, data):
    x = data.draw(strided_arrays(dtype))
    axes = data.draw(st.sets(st.integers(0, x.ndim - 1)))
    rows = data.draw(st.sampled_from([1, 3, "batch"])) if 0 not in axes else 1
    options = {"rate": 0.4, "shared_axes": tuple(axes), "rows_per_mask": rows}
    y, mask = fastdrop.dropout(x, rng=8, **options)
    expected, same = fastdrop.dropout(x.copy(), rng=8, **options)
    assert mask == same
    numpy.testing.assert_array_equal(y, expected)
    grad = fastdrop.dropout_backward(x, mask)
    numpy.testing.assert_array_equal(grad, expected)
    z, again = fastdrop.dropout(x, rng=8, out=x, **options)
    assert z is x
    assert again == mask
    numpy.testing.assert_array_equal(x, expected)
