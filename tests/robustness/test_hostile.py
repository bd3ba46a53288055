"""Hostile arguments to the functions on arrays: an error that names one, or the right result.

Every array lies in guarded memory; what a call may not write to is compared byte by byte.
"""

import numpy
import pytest
from conftest import assert_identical, selected
from hostile import (
    BAD_INTEGERS,
    BAD_RATES,
    FLOATS,
    NOT_NUMBERS,
    RATES,
    SHAPES,
    is_masked,
    other_arrays,
    placed,
    raised,
    unmoved,
    wrapped,
)
from hypothesis import given
from hypothesis import strategies as st
from matmul_cases import Expected, kept

import fastdrop
from fastdrop import Mask, MaskStream

pytestmark = pytest.mark.filterwarnings("error")  # a warning is neither a result nor an error

SHARING = st.one_of(
    st.sampled_from([(), 0, -1, (0, 1), (1, 1), [0], "0", None, 0.0, (7,), (True,), 2**70]),
    st.lists(st.integers(-4, 4), max_size=3).map(tuple),
)
ROWS = st.sampled_from([1, 1, 2, 3, 100, 2**63, 2**70, "batch", "all", 0, -1, 2.0, None, True])
SCALES = st.one_of(
    st.sampled_from([None, None, 0, 1, -2, 0.5, numpy.inf, numpy.nan, 1e300, *NOT_NUMBERS]),
    st.floats(allow_nan=False, allow_infinity=False),
)


@st.composite
def outputs(draw, x, shape, dtype):
    """An `out` argument and what it lies in: none, x, a part of x's memory, or another array."""
    kind = draw(st.sampled_from(["none", "none", "own", "own", "same", "memory of x", "odd"]))
    if kind == "same":
        return x.array, x
    if kind == "memory of x":  # shares bytes with x, here or there
        size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
        start = draw(st.integers(0, max(x.buffer.size - size, 0)))
        if start + size <= x.buffer.size:
            return numpy.ndarray(shape, dtype, x.buffer, start), None
    if kind == "odd":
        wrong = draw(st.sampled_from([shape, (*shape, 2), shape[1:]]))
        return draw(other_arrays(wrong)), None
    if kind == "none":
        return None, None
    out = draw(placed(shape, dtype))
    return draw(wrapped(out.array)), out


@st.composite
def operands(draw):
    """An array for dropout: (argument, its `Placed` or None, its values or None if unusable)."""
    shape = draw(SHAPES)
    if draw(st.integers(0, 7)) == 0:
        return draw(other_arrays(shape)), None, None
    x = draw(placed(shape, draw(st.sampled_from(FLOATS))))
    given = draw(wrapped(x.array))
    return given, x, None if is_masked(given) else numpy.array(x.array)


def check(result, out, place, x, x_place):
    """Nothing but `out` has been written to; without a result not even that."""
    if place is not None and result is not None:
        assert result is out
        place.assert_only(result)
    elif place is not None:
        place.assert_untouched()
    if x_place is not None and place is not x_place and (out is None or place is not None):
        x_place.assert_untouched()


PROBABILITIES = st.one_of(RATES, BAD_RATES, st.none())


@given(
    data=st.data(), operand=operands(), rate=RATES | PROBABILITIES, keep_prob=st.none() | BAD_RATES,
    shared_axes=st.just(()) | SHARING, rows_per_mask=ROWS, exact_count=st.booleans(),
    training=st.booleans() | st.just(True), scale_at=st.sampled_from(["train", "test", "none", 1]),
)  # fmt: skip
def test_dropout(data, operand, rate, **options):
    x, place, plain = operand
    out, out_place = None, None
    if place is not None:
        out, out_place = data.draw(outputs(place, plain_shape(place), place.array.dtype))
    stream = MaskStream(5)
    names = ("x", "out", "rate", *options)
    with unmoved(stream) as draws:
        outcome = raised(lambda: fastdrop.dropout(x, rate, rng=stream, out=out, **options), names)
        if outcome is not None:
            draws.append(int(bool(options["training"])))
    if outcome is None:
        return check(None, out, out_place, x, place)
    y, mask = outcome
    assert plain is not None
    if not options["training"]:
        factor = 1.0
        if options["scale_at"] == "test":
            factor = keep_of(options["exact_count"], plain, rate, options)
        expected = selected(plain, True, factor) if factor != 1 else plain
        assert_identical(numpy.asarray(y), expected)
        return None if y is x else check(y, out, out_place, x, place)
    layout = {name: options[name] for name in ("shared_axes", "rows_per_mask", "exact_count")}
    drawn = MaskStream(5).draw(plain.shape, rate=rate, keep_prob=options["keep_prob"], **layout)
    assert mask == drawn
    scale = mask.scale if options["scale_at"] == "train" or not mask.scale else 1.0
    assert_identical(y, selected(plain, kept(drawn, plain.shape), scale))
    assert type(y) is (numpy.ndarray if out is None else type(out))
    check(y, out, out_place, x, place)


def plain_shape(place):
    return place.array.shape


def keep_of(exact_count, plain, rate, options):
    """What values are multiplied by at test time, as the mask of a draw would have it."""
    layout = {name: options[name] for name in ("shared_axes", "rows_per_mask", "exact_count")}
    mask = MaskStream(0).draw(plain.shape, rate=rate, keep_prob=options["keep_prob"], **layout)
    if not exact_count:
        return mask.keep_prob
    return 1 / mask.scale if mask.scale else 0.0


@st.composite
def masks_for(draw, shape):
    """A mask that fits a shape, or one that does not, or no mask."""
    kind = draw(st.sampled_from(["full", "full", "broadcast", "rows", "other", "none", "array"]))
    if kind == "none":
        return draw(st.sampled_from([None, 1, "mask", True]))
    if kind == "array":
        return numpy.ones(shape, bool)
    stream = MaskStream(draw(st.integers(0, 20)))
    if kind == "other":
        shape = draw(SHAPES)
    elif kind == "broadcast":
        shape = tuple(draw(st.sampled_from([1, extent])) for extent in shape)
        shape = shape[draw(st.integers(0, len(shape))) :]
    rows = draw(st.sampled_from([2, 3, 2**70, "batch"])) if kind == "rows" and shape else 1
    mask = stream.draw(shape, keep_prob=draw(st.sampled_from([0.5, 0.9, 0, 1])), rows_per_mask=rows)
    return mask.with_scale(draw(st.sampled_from([mask.scale, 1, -3.0])))


@given(data=st.data(), operand=operands(), scale=SCALES, backward=st.booleans())
def test_masks_on_arrays(data, operand, scale, backward):
    x, place, plain = operand
    shape = () if place is None else plain_shape(place)
    mask = data.draw(masks_for(shape))
    out, out_place = None, None
    if place is not None:
        out, out_place = data.draw(outputs(place, shape, place.array.dtype))
    function = fastdrop.dropout_backward if backward else fastdrop.apply_mask
    names = ("x", "grad_y", "mask", "scale", "out")
    y = raised(lambda: function(x, mask, scale=scale, out=out), names)
    check(y, out, out_place, x, place)
    if y is None:
        return
    factor = (1.0 if mask is None else mask.scale) if scale is None else float(scale)
    keep = numpy.True_ if mask is None else kept(mask, shape)
    if mask is None and factor == 1:
        assert_identical(numpy.asarray(y), plain)
    else:
        assert_identical(numpy.asarray(y), selected(plain, keep, factor))


@st.composite
def matrices(draw, shape, dtype):
    """An operand of a product: (argument, its `Placed`); rarely something else."""
    if draw(st.integers(0, 11)) == 0:
        return draw(other_arrays(shape)), None
    if draw(st.integers(0, 11)) == 0:
        shape = draw(SHAPES)
    dtype = draw(st.sampled_from([dtype] * 9 + ["f2", "f8"]))
    place = draw(placed(shape, dtype, special=False))
    return draw(wrapped(place.array)), place


METHODS = st.sampled_from(["auto", "compact", "skip", "dense", "auto", "fast", None, b"auto", 0])


@given(
    data=st.data(), lead=st.sampled_from([(4,), (5,), (0,), (1,), (2, 3), ()]),
    units_in=st.integers(0, 40), units_out=st.integers(0, 40), dtype=st.sampled_from(["f4", "f8"]),
    skip_zeros=st.booleans(), method=METHODS, with_bias=st.booleans(),
)  # fmt: skip
def test_masked_products(
    each_isa, data, lead, units_in, units_out, dtype, skip_zeros, method, with_bias
):
    shapes = {"x": (*lead, units_in), "w": (units_in, units_out), "grad_y": (*lead, units_out)}
    drawn = {name: data.draw(matrices(shape, dtype)) for name, shape in shapes.items()}
    drawn["bias"] = data.draw(matrices((units_out,), dtype)) if with_bias else (None, None)
    masks = {
        "mask_in": data.draw(st.none() | masks_for(shapes["x"])),
        "mask_out": data.draw(st.none() | masks_for(shapes["grad_y"])),
    }
    x, w, grad_y, bias = (drawn[name][0] for name in ("x", "w", "grad_y", "bias"))
    places = [place for _, place in drawn.values() if place is not None]
    out, out_place = None, None
    if drawn["w"][1] is not None:
        out, out_place = data.draw(outputs(drawn["w"][1], shapes["grad_y"], dtype))
    options = {**masks, "skip_zeros": skip_zeros, "method": method}
    names = (*drawn, *options, "out", "masks", "mask", "y")
    y = raised(lambda: fastdrop.masked_matmul(x, w, bias=bias, out=out, **options), names)
    # An array in w's buffer that overlaps no element of w may be written to.
    beside_w = drawn["w"][1] if y is not None and out is not None and out_place is None else None
    for place in places:
        if place is not beside_w:
            place.assert_untouched()
        place.before = place.buffer.copy()
    if out_place is not None and out_place not in places:
        out_place.assert_untouched() if y is None else out_place.assert_only(y)
    if y is not None:
        Expected(numpy.array(x), numpy.array(w), bias=bias, **masks).check(numpy.asarray(y))
    gradients = raised(lambda: fastdrop.masked_matmul_backward(grad_y, x, w, **options), names)
    for place in places:
        place.assert_untouched()
    if gradients is not None:
        expected = Expected(numpy.array(x), numpy.array(w), **masks)
        expected.check_backward(gradients, numpy.array(grad_y))


@given(data=st.data(), dtype=st.sampled_from(["f4", "f8"]))
def test_gradients_into_arrays_of_the_caller(data, dtype):
    generator = numpy.random.default_rng(0)
    x, w, grad_y = (generator.standard_normal(s).astype(dtype) for s in [(5, 3), (3, 4), (5, 4)])
    mask = MaskStream(1).draw((5, 3), rate=0.5)
    shapes = [(5, 3), (3, 4), (4,)]
    out = [data.draw(placed(shape, dtype)) for shape in shapes]
    result = raised(
        lambda: fastdrop.masked_matmul_backward(
            grad_y, x, w, mask_in=mask, out=tuple(place.array for place in out)
        ),
        ("out",),
    )
    if result is None:
        for place in out:
            place.assert_untouched()
        return
    Expected(x, w, mask_in=mask).check_backward(result, grad_y)
    for place, array in zip(out, result, strict=True):
        place.assert_only(array)


@given(
    shape=SHAPES | st.sampled_from([None, "3", 2.0, (1,) * 65, (2**62, 4), (0, 2**70), (-1,)]),
    rate=st.none() | PROBABILITIES, keep_prob=st.none() | PROBABILITIES, shared_axes=SHARING,
    rows_per_mask=ROWS, exact_count=st.booleans(),
    window=st.none() | st.sampled_from([slice(0, 1), (slice(None),) * 2, (slice(0, 2**70),), 3,
                                        (slice(0, 3, 2),), (slice(0.0, 1),), (slice(-9, 1),)]),
    at=st.none() | st.sampled_from([0, 2**56 - 1, 2**56, *BAD_INTEGERS]),
)  # fmt: skip
def test_draw(shape, **options):
    stream = MaskStream(5)
    names = ("shape", *options)
    with unmoved(stream) as draws:
        mask = raised(lambda: stream.draw(shape, **options), names)
        if mask is not None:
            draws.append(int(options["at"] is None))
    if mask is not None:
        keep = options["keep_prob"]
        assert mask.keep_prob == (1 - float(options["rate"]) if keep is None else float(keep))
        assert mask.bits.size == -(-mask.to_array().size // 8)


@given(
    value=st.sampled_from([*BAD_INTEGERS, *NOT_NUMBERS, -1, 2**56 + 1, [1.5], [-1], "seed"]),
    what=st.sampled_from(["seed", "position", "n", "rng", "s", "at", "threads", "keep_prob"]),
)
def test_small_arguments(value, what):
    stream = MaskStream(5)
    mask = stream.draw((3, 4), rate=0.5, at=0)
    calls = {
        "seed": lambda: MaskStream(value),
        "position": lambda: setattr(stream, "position", value),
        "n": lambda: stream.spawn(-1 if isinstance(value, int) and value == 2**70 else value),
        "rng": lambda: fastdrop.dropout(numpy.ones(3), 0.5, rng=value),
        "s": lambda: mask.with_scale(value),
        "at": lambda: stream.draw((3,), rate=0.5, at=value),
        "threads": lambda: fastdrop.set_num_threads(value),
        "keep_prob": lambda: Mask.from_array([1, 0], keep_prob=value),
    }
    before = stream.state, fastdrop.get_num_threads()
    result = raised(calls[what], ("n", what) if what == "threads" else (what, "seed"))
    if result is None:
        assert what == "position" or (stream.state, fastdrop.get_num_threads()) == before


@given(operand=operands(), keep_prob=st.none() | RATES)
def test_masks_from_arrays(operand, keep_prob):
    a, _, plain = operand
    mask = raised(lambda: Mask.from_array(a, keep_prob=keep_prob), ("a", "keep_prob"))
    if mask is not None:
        values = plain if plain is not None else numpy.asarray(a)
        numpy.testing.assert_array_equal(mask.to_array(), values != 0)
