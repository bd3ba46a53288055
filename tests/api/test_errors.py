"""Every error of the design: its type, the argument it names first, and the value it shows."""

import re

import numpy
import pytest

from fastdrop import Mask, MaskStream, _kernels, apply_mask, dropout, dropout_backward, reference

X = numpy.ones((6, 4), dtype=numpy.float32)
MASK = Mask.from_array(X)
NOT_A_NUMBER = float("nan")


def raises(error, name, shown):
    """Expect an error whose message begins with an argument's name and shows a value."""
    return pytest.raises(error, match=rf"^{re.escape(name)}\b.*{re.escape(str(shown))}")


# What MaskStream.draw and dropout refuse alike.
REQUESTS = [
    ({"rate": 1.5}, ValueError, "rate must be in [0, 1], got 1.5"),
    ({"rate": -0.1}, ValueError, "rate must be in [0, 1], got -0.1"),
    ({"rate": NOT_A_NUMBER}, ValueError, "rate must be in [0, 1], got nan"),
    ({"rate": float("inf")}, ValueError, "rate must be in [0, 1], got inf"),
    ({"keep_prob": 1.0000001}, ValueError, "keep_prob must be in [0, 1], got 1.0000001"),
    ({"keep_prob": -1e-300}, ValueError, "keep_prob must be in [0, 1], got -1e-300"),
    ({"keep_prob": NOT_A_NUMBER}, ValueError, "keep_prob must be in [0, 1], got nan"),
    ({"rate": "0.5"}, TypeError, "rate must be a real number, got '0.5'"),
    ({"rate": 0.5j}, TypeError, "rate must be a real number, got 0.5j"),
    ({"keep_prob": [0.5]}, TypeError, "keep_prob must be a real number, got [0.5]"),
]
LAYOUTS = [
    ({"shared_axes": 2}, ValueError, "shared_axes", 2),
    ({"shared_axes": -3}, ValueError, "shared_axes", -3),
    ({"shared_axes": (0, 0)}, ValueError, "shared_axes", (0, 0)),
    ({"shared_axes": (1, -1)}, ValueError, "shared_axes", (1, -1)),
    ({"shared_axes": 0.0}, TypeError, "shared_axes", 0.0),
    ({"shared_axes": "0"}, TypeError, "shared_axes", "'0'"),
    ({"rows_per_mask": 0}, ValueError, "rows_per_mask", 0),
    ({"rows_per_mask": -32}, ValueError, "rows_per_mask", -32),
    ({"rows_per_mask": 2.5}, TypeError, "rows_per_mask", 2.5),
    ({"rows_per_mask": "all"}, ValueError, "rows_per_mask", "'all'"),
    ({"rows_per_mask": None}, TypeError, "rows_per_mask", None),
    ({"rows_per_mask": 1.0}, TypeError, "rows_per_mask", 1.0),
    ({"rows_per_mask": 2, "shared_axes": 0}, ValueError, "rows_per_mask", 2),
    ({"rows_per_mask": "batch", "shared_axes": 0}, ValueError, "rows_per_mask", "'batch'"),
    ({"shared_axes": (0, 1), "exact_count": True}, ValueError, "exact_count", "shared"),
    (
        {"rows_per_mask": "batch", "shared_axes": 1, "exact_count": True},
        ValueError,
        "exact_count",
        "shared",
    ),
]


def ask_stream(**options):
    stream = MaskStream(0)
    try:
        return stream.draw(X.shape, **options)
    finally:
        assert stream.position == 0


def ask_dropout(**options):
    stream = MaskStream(0)
    try:
        return dropout(X, rng=stream, **options)
    finally:
        assert stream.position == 0


def ask_evaluation(**options):
    return dropout(X, training=False, **options)


EVERYWHERE = pytest.mark.parametrize("ask", [ask_stream, ask_dropout, ask_evaluation])


@EVERYWHERE
@pytest.mark.parametrize(("options", "error", "message"), REQUESTS, ids=str)
def test_probabilities(ask, options, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        ask(**options)


@EVERYWHERE
def test_exactly_one_of_rate_and_keep_prob(ask):
    with pytest.raises(TypeError, match=r"exactly one of rate and keep_prob, got neither"):
        ask()
    with pytest.raises(TypeError, match=r"exactly one of rate and keep_prob, got both"):
        ask(rate=0.5, keep_prob=0.5)


@EVERYWHERE
@pytest.mark.parametrize(("options", "error", "name", "shown"), LAYOUTS, ids=str)
def test_layout_of_the_mask(ask, options, error, name, shown):
    with raises(error, name, shown):
        ask(rate=0.5, **options)


@pytest.mark.parametrize(
    ("shape", "error", "shown"),
    [
        (-1, ValueError, -1),
        ((3, -2), ValueError, (3, -2)),
        ((3, 2.0), TypeError, 2.0),
        ("3", TypeError, "'3'"),
        (None, TypeError, None),
        ((2**62, 4), ValueError, (2**62, 4)),
        ((0, 2**70), ValueError, (0, 2**70)),
    ],
    ids=str,
)
def test_shape(shape, error, shown):
    stream = MaskStream(0)
    with raises(error, "shape", shown):
        stream.draw(shape, rate=0.5)
    assert stream.position == 0


@pytest.mark.parametrize("shape", [(), (5,)])
def test_nothing_to_count_exactly(shape):
    with raises(ValueError, "exact_count", "shared"):
        MaskStream(0).draw(shape, rate=0.5, exact_count=True, shared_axes=() if not shape else 0)
    if not shape:
        with raises(ValueError, "rows_per_mask", "'batch'"):
            MaskStream(0).draw(shape, rate=0.5, rows_per_mask="batch")


@pytest.mark.parametrize(
    ("window", "error"),
    [
        ((slice(0, 2),), ValueError),
        ((slice(0, 2),) * 3, ValueError),
        ((slice(0, 4, 2), slice(0, 4)), ValueError),
        ((slice(None, None, -1), slice(0, 4)), ValueError),
        ((slice(0, 7), slice(0, 4)), ValueError),
        ((slice(-7, 2), slice(0, 4)), ValueError),
        ((0, slice(0, 4)), TypeError),
        ([slice(0, 2), slice(0, 2)], TypeError),
        ((slice(0.0, 2), slice(0, 2)), TypeError),
        (..., TypeError),
    ],
    ids=str,
)
def test_window(window, error):
    with raises(error, "window", window):
        ask_stream(rate=0.5, window=window)


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (2**56, ValueError), (1.0, TypeError), ("0", TypeError)]
)
def test_at(value, error):
    with raises(error, "at", repr(value)):
        ask_stream(rate=0.5, at=value)


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (2**56 + 1, ValueError), (1.5, TypeError)]
)
def test_position(value, error):
    stream = MaskStream(0)
    stream.position = 3
    with raises(error, "position", value):
        stream.position = value
    assert stream.position == 3


@pytest.mark.parametrize(
    ("seed", "error"),
    [
        (-1, ValueError),
        (1.5, TypeError),
        ("zero", TypeError),
        ([1, -2], ValueError),
        ({}, TypeError),
    ],
    ids=str,
)
def test_seed(seed, error):
    with raises(error, "seed", repr(seed)):
        MaskStream(seed)


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError)])
def test_spawn(n, error):
    with raises(error, "n", repr(n)):
        MaskStream(0).spawn(n)


@pytest.mark.parametrize(
    ("rng", "shown"),
    [
        ("seed", "'seed'"),
        (1.5, "1.5"),
        (numpy.random, "module"),
        (print, "built-in"),
    ],
    ids=str,
)
def test_rng(rng, shown):
    with raises(TypeError, "rng", shown):
        dropout(X, 0.5, rng=rng)


@pytest.mark.parametrize("value", ["inference", None, True])
def test_scale_at(value):
    for training in (True, False):
        with raises(ValueError, "scale_at", repr(value)):
            dropout(X, 0.5, scale_at=value, training=training)


# --- Arrays ---------------------------------------------------------------------------------------

FUNCTIONS = [
    ("x", lambda a, out=None: dropout(a, 0.5, rng=0, out=out)),
    ("x", lambda a, out=None: dropout(a, 0.5, rng=0, shared_axes=1, out=out)),
    ("x", lambda a, out=None: dropout(a, 0.5, training=False, scale_at="test", out=out)),
    ("x", lambda a, out=None: apply_mask(a, MASK, out=out)),
    ("grad_y", lambda a, out=None: dropout_backward(a, MASK, out=out)),
    ("grad_y", lambda a, out=None: dropout_backward(a, None, scale=2, out=out)),
]
EVERY_FUNCTION = pytest.mark.parametrize(("name", "call"), FUNCTIONS, ids=range(len(FUNCTIONS)))


@EVERY_FUNCTION
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64", "longdouble", "O"])
def test_dtypes_that_dropout_does_not_take(name, call, dtype):
    with raises(TypeError, name, numpy.dtype(dtype)):
        call(numpy.ones((6, 4), dtype=dtype))


@EVERY_FUNCTION
def test_out_does_not_fit(name, call):
    with raises(ValueError, "out", (4, 6)):
        call(X, numpy.ones((4, 6), numpy.float32))
    with raises(ValueError, "out", (1, 6, 4)):
        call(X, numpy.ones((1, 6, 4), numpy.float32))
    with raises(TypeError, "out", "float64"):
        call(X, numpy.ones((6, 4)))
    with raises(TypeError, "out", "list"):
        call(X, X.tolist())


@EVERY_FUNCTION
def test_out_cannot_be_written(name, call):
    out = X.copy()
    out.flags.writeable = False
    with raises(ValueError, "out", "writeable"):
        call(X, out)


@EVERY_FUNCTION
def test_out_overlaps_in_part(name, call):
    buffer = numpy.ones(60, numpy.float32)
    x = buffer[:24].reshape(6, 4)
    before = buffer.copy()
    for out in (buffer[4:28].reshape(6, 4), buffer[23:47].reshape(6, 4), x[::-1], x[:, ::-1]):
        with raises(ValueError, "out", "overlap"):
            call(x, out)
    assert (buffer == before).all()
    square = numpy.ones((4, 4), numpy.float32)
    with raises(ValueError, "out", "overlap"):
        dropout(square, 0.5, out=square.T)
    with raises(ValueError, "out", "overlap"):
        call(X, numpy.lib.stride_tricks.as_strided(buffer, (6, 4), (4, 4)))


def test_arrays_side_by_side_do_not_overlap():
    buffer = numpy.ones((6, 8), numpy.float32)
    for _, call in FUNCTIONS:
        call(buffer[:, :4], buffer[:, 4:])
        call(buffer[:, ::2], buffer[:, 1::2])
        # The same elements, seen through another object.
        call(buffer[:, :4], buffer[:, :4])


@pytest.mark.parametrize("function", [apply_mask, dropout_backward])
@pytest.mark.parametrize(
    ("shape", "rows_per_mask", "array"),
    [
        ((6, 5), 1, (6, 4)),
        ((4, 6), 1, (6, 4)),
        ((1, 6, 4), 1, (6, 4)),
        ((24,), 1, (6, 4)),
        ((6, 4), 2, (7, 4)),
        ((6, 4), 2, (4, 4)),
        ((6, 4), 2, (2, 6, 4)),
        ((6, 4), "batch", (6, 5)),
        ((6, 4), 1, ()),
        ((2, 4), 1, (0, 4)),
    ],
    ids=str,
)
def test_the_mask_does_not_fit(function, shape, rows_per_mask, array):
    mask = MaskStream(0).draw(shape, rate=0.5, rows_per_mask=rows_per_mask)
    with raises(ValueError, "mask", f"{mask.shape}") as caught:
        function(numpy.ones(array), mask)
    assert str(array) in str(caught.value)


@pytest.mark.parametrize("mask", [X, X > 0, 1, "mask"], ids=["float", "bool", "int", "str"])
def test_the_mask_is_none(mask):
    for function in (apply_mask, dropout_backward):
        with raises(TypeError, "mask", type(mask).__name__):
            function(X, mask)
    with raises(TypeError, "mask", "NoneType"):
        apply_mask(X, None)


@pytest.mark.parametrize("scale", ["2", [2], 2j])
def test_scale(scale):
    for function in (apply_mask, dropout_backward):
        with raises(TypeError, "scale", repr(scale)):
            function(X, MASK, scale=scale)
    with raises(TypeError, "scale", repr(scale)):
        dropout_backward(X, None, scale=scale)
    with raises(TypeError, "s", repr(scale)):
        MASK.with_scale(scale)


# --- Masks and settings ---------------------------------------------------------------------------


def test_masks_are_not_made_by_calling_the_class():
    with pytest.raises(TypeError, match="from_array"):
        Mask()


@pytest.mark.parametrize("array", [["a"], [Ellipsis], [1j]], ids=str)
def test_from_array_takes_numbers(array):
    with raises(TypeError, "a", numpy.asarray(array).dtype):
        Mask.from_array(array)


@pytest.mark.parametrize(
    ("keep_prob", "error"),
    [(1.5, ValueError), (-0.5, ValueError), (NOT_A_NUMBER, ValueError), ("half", TypeError)],
)
def test_from_array_checks_keep_prob(keep_prob, error):
    with raises(error, "keep_prob", repr(keep_prob)):
        Mask.from_array([1, 0], keep_prob=keep_prob)


def test_masks_of_different_shapes_do_not_join():
    with pytest.raises(ValueError, match=re.escape("(6, 4), (4, 6)")):
        MASK | Mask.from_array(X.T)
    with pytest.raises(TypeError):
        MASK | X


@pytest.mark.parametrize("kernels", [_kernels, reference], ids=["c", "numpy"])
def test_thread_counts(kernels):
    before = kernels.get_num_threads()
    for value, error in ((0, ValueError), (-1, ValueError), (5000, ValueError)):
        with raises(error, "n", value):
            kernels.set_num_threads(value)
    for value in (1.0, "1", None, True):
        with raises(TypeError, "n", type(value).__name__):
            kernels.set_num_threads(value)
    assert kernels.get_num_threads() == before


def test_instruction_sets():
    with raises(ValueError, "name", "'sse9'"):
        _kernels.select_isa("sse9")


def test_reference_checks_what_it_is_given():
    bits = numpy.empty(1, dtype=numpy.uint8)
    good = {"key0": 0, "key1": 0, "draw": 0, "shape": (8,), "starts": (0,), "stops": (8,)}
    for name, value in (("key0", 2**32), ("key1", -1), ("draw", 2**56), ("starts", (-1,))):
        for parameter, kernel in (
            ({"threshold": 1}, reference.draw_bernoulli),
            ({"keep": 1}, reference.draw_exact_count),
        ):
            with raises(ValueError, name, value):
                kernel(**{**good, **parameter, name: value}, bits=bits)
    with raises(ValueError, "threshold", 2**64 + 1):
        reference.draw_bernoulli(**good, threshold=2**64 + 1, bits=bits)
    with raises(ValueError, "keep", 9):
        reference.draw_exact_count(**good, keep=9, bits=bits)
    with raises(ValueError, "bits", "(0,)"):
        reference.draw_bernoulli(**good, threshold=1, bits=bits[:0])
