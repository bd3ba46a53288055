"""Arguments that nobody should pass, and that somebody will: strategies for hypothesis.

A `Placed` array lies in a buffer with guards around and between its elements, so that a write
outside of it is seen whatever its strides are.
"""

import contextlib
import fractions
import re
import tempfile

import numpy
import pytest
from hypothesis import strategies as st

GUARD = 0xA5
FLOATS = ("f2", "f4", "f8")
# Nothing the kernels know: other kinds, and the known ones in the other byte order.
OTHERS = ("g", "F", "D", "i4", "u8", "?", "O", "S3", "U2", "M8[s]", "m8[s]")
SPECIAL = (0.0, -0.0, numpy.nan, numpy.inf, -numpy.inf, 6e-8, 1e-45, 5e-324, 6e4, 3e38, 1e308)


class Subclass(numpy.ndarray):
    """An array of a user's own kind."""


class Placed:
    """An array in a guarded buffer, and the means to lay the same one out in another buffer."""

    def __init__(self, buffer, shape, dtype, offset, strides):
        self.buffer = buffer
        self.layout = (shape, dtype, offset, strides)
        self.array = self.view(buffer)
        self.before = buffer.copy()

    def view(self, buffer):
        shape, dtype, offset, strides = self.layout
        return numpy.ndarray(shape, dtype, buffer, offset, strides)

    def assert_untouched(self):
        """No byte of the buffer has changed."""
        numpy.testing.assert_array_equal(self.buffer, self.before)

    def assert_only(self, result):
        """The buffer holds the result where the array is, and is as it was elsewhere."""
        expected = self.before.copy()
        self.view(expected)[...] = result
        numpy.testing.assert_array_equal(self.buffer, expected)


@st.composite
def placed(draw, shape, dtype, special=True):
    """A `Placed` array of any strides: permuted, stepped, negative; zero and overlapping ones."""
    dtype = numpy.dtype(dtype)
    kind = draw(st.sampled_from(["plain", "plain", "strided", "strided", "misaligned", "zero"]))
    order = draw(st.permutations(range(len(shape))))
    steps = [1] * len(shape)
    if kind == "strided":
        steps = [draw(st.sampled_from([1, 1, 2, -1, -2])) for _ in shape]
    strides, reach = [0] * len(shape), dtype.itemsize
    for axis in order if kind != "plain" else range(len(shape) - 1, -1, -1):
        strides[axis] = reach * steps[axis]
        reach *= max(abs(steps[axis]) * shape[axis], 1)
    if kind == "zero" and shape:
        axis = draw(st.sampled_from(range(len(shape))))
        strides[axis] = draw(st.sampled_from([0, dtype.itemsize, -dtype.itemsize]))
    spans = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    lowest = sum(min(span, 0) for span in spans)
    highest = sum(max(span, 0) for span in spans) if min(shape, default=1) else 0
    offset = 64 - (lowest if min(shape, default=1) else 0) + (kind == "misaligned")
    size = offset + highest + dtype.itemsize + 64
    buffer = numpy.full(size, GUARD, numpy.uint8)
    if draw(st.integers(0, 9)) == 0:
        with tempfile.TemporaryFile() as file:
            file.write(buffer.tobytes())
            file.flush()
            buffer = numpy.memmap(file, numpy.uint8, "r+")
    result = Placed(buffer, shape, dtype, offset, tuple(strides))
    generator = numpy.random.default_rng(draw(st.integers(0, 1000)))
    values = generator.standard_normal(shape)
    special = special and draw(st.lists(st.sampled_from(SPECIAL), max_size=4))
    if special and values.size:
        values.flat[generator.integers(0, values.size, len(special))] = special
    with numpy.errstate(all="ignore"):
        result.array[...] = values.astype(dtype)
    result.before = buffer.copy()
    return result


@st.composite
def wrapped(draw, array):
    """The array itself, or as something else than a plain writeable array."""
    kind = draw(st.sampled_from(["plain"] * 4 + ["read-only", "subclass", "matrix", "masked"]))
    if kind == "read-only":
        array = array.view()
        array.flags.writeable = False
    elif kind == "subclass":
        array = array.view(Subclass)
    elif kind == "matrix" and array.ndim == 2:
        array = array.view(numpy.matrix)
    elif kind == "masked":
        array = numpy.ma.array(array, mask=draw(st.booleans()), copy=False)
    return array


@st.composite
def other_arrays(draw, shape):
    """An array of a dtype that no kernel knows, or no array at all."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from([None, "x", object(), {}, [[1.0], [1.0, 2.0]], [None], 1j]))
    kind = draw(st.sampled_from(OTHERS))
    return numpy.zeros(shape, kind)


def is_masked(array):
    return isinstance(array, numpy.ma.MaskedArray)


SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
NOT_NUMBERS = (
    None, "0.5", b"1", [0.5], 0.5j, numpy.complex64(0.5), True, numpy.bool_(1), object(),
    numpy.timedelta64(1, "s"), numpy.array([0.5, 0.5]), numpy.array("a"), {}, slice(1),
)  # fmt: skip
RATES = st.one_of(
    st.floats(0, 1),
    st.sampled_from([0, 1, 0.5, numpy.float32(0.25), numpy.float16(0.5), numpy.array(0.5)]),
    st.sampled_from([fractions.Fraction(1, 3), 2.0**-64, 1 - 2.0**-53, -0.0, numpy.int8(1)]),
)
BAD_RATES = st.one_of(
    st.sampled_from([*NOT_NUMBERS, numpy.nan, numpy.inf, -1e-300, 1.5, 2**70, 10**400, -(10**400)]),
    st.floats(min_value=1.0000001),
)
BAD_INTEGERS = (2.0, "2", None, [1], numpy.float64(1), True, numpy.bool_(0), 1j, -(2**70), 2**70)


def raised(call, names):
    """What a call returns, or None if it refused an argument of those names.

    Anything but a TypeError or ValueError that names one of them is a failure, or a MemoryError:
    no array is too large to be asked for.
    """
    try:
        return call()
    except MemoryError:
        return None
    except (TypeError, ValueError) as error:
        words = "|".join(re.escape(name) for name in names)
        if not re.search(rf"\b({words})\b", str(error)):
            pytest.fail(f"{type(error).__name__} names none of {names}: {error}")
        return None


@contextlib.contextmanager
def unmoved(stream):
    """The position stands where a call failed; elsewhere it moves by what was put into the list."""
    before, outcome = stream.position, []
    yield outcome
    assert stream.position == before + (outcome[-1] if outcome else 0)
