"""Hostile arguments to layers, losses and optimisers: an error that names one, or the right result.

What is right is what the same call gives for a plain copy of its arguments.
"""

import numpy
import pytest
from conftest import assert_identical
from hostile import BAD_RATES, NOT_NUMBERS, RATES, other_arrays, placed, raised, wrapped
from hypothesis import given
from hypothesis import strategies as st

from fastdrop import MaskStream, nn, optim
from fastdrop.parameters import Parameter

LAYERS = {
    "dense": lambda: nn.Dense(4, 3),
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
    "dropout": lambda: nn.Dropout(0.5, rows_per_mask=2),
    "net": lambda: nn.Sequential(
        [nn.Dense(4, 5), nn.ReLU(), nn.Dropout(0.5), nn.Dense(5, 3)], rng=1
    ),
    "batchwise net": lambda: nn.Sequential(
        [nn.Dropout(0.3, rows_per_mask="batch"), nn.Dense(4, 5), nn.Tanh(),
         nn.Dropout(0.5, rows_per_mask="batch", exact_count=True), nn.Dense(5, 3)], rng=1,
        dtype=">f8",
    ),
}  # fmt: skip


def fresh_layer(kind):
    layer = LAYERS[kind]()
    if isinstance(layer, nn.Dropout):
        layer.stream = MaskStream(3)
    for parameter in layer.parameters():
        generator = numpy.random.default_rng(7)
        parameter.value[...] = generator.standard_normal(parameter.value.shape)
    return layer


@st.composite
def arrays(draw, shape):
    """A float array of any layout: (argument, its `Placed`); rarely something else."""
    if draw(st.integers(0, 7)) == 0:
        return draw(other_arrays(shape)), None
    if draw(st.integers(0, 7)) == 0:
        shape = draw(st.sampled_from([(), (4,), (0, 4), (3, 5), (2, 3, 4), (4, 3)]))
    place = draw(placed(shape, draw(st.sampled_from(["f4", "f8", "f8", "f2"])), special=False))
    return draw(wrapped(place.array)), place


@given(data=st.data(), kind=st.sampled_from(sorted(LAYERS)), training=st.booleans())
def test_layers(data, kind, training):
    x, x_place = data.draw(arrays((4, 4)))
    layer, reference = fresh_layer(kind), fresh_layer(kind)
    y = raised(lambda: layer.forward(x, training=training), ("x", layer.name, "rows_per_mask"))
    if x_place is not None:
        x_place.assert_untouched()
    if y is None:
        return
    plain = numpy.array(x)
    assert_identical(y, reference.forward(plain, training=training))
    assert y.dtype.isnative
    if not training:
        return
    grad, grad_place = data.draw(arrays(y.shape))
    result = raised(lambda: layer.backward(grad, input_gradient=True), ("grad", layer.name))
    for place in (x_place, grad_place):
        if place is not None:
            place.assert_untouched()
    if result is not None:
        assert_identical(result, reference.backward(numpy.array(grad), input_gradient=True))
        for mine, other in zip(layer.parameters(), reference.parameters(), strict=True):
            assert_identical(mine.full_grad(), other.full_grad())


LOSSES = [nn.SoftmaxCrossEntropy, nn.SigmoidCrossEntropy, nn.MeanSquaredError, nn.PoissonDeviance]


@given(
    data=st.data(), loss=st.sampled_from(LOSSES), weighted=st.booleans(),
    labels=st.none() | st.lists(st.integers(-1, 3), min_size=3, max_size=4),
)  # fmt: skip
def test_losses(data, loss, weighted, labels):
    prediction, place = data.draw(arrays((4, 3)))
    target, target_place = data.draw(arrays((4, 3))) if labels is None else (labels, None)
    weights, weights_place = data.draw(arrays((4,))) if weighted else (None, None)
    names = ("prediction", "target", "sample_weight")
    try:
        outcome = raised(lambda: loss()(prediction, target, sample_weight=weights), names)
    except FloatingPointError:
        outcome = None
    for each in (place, target_place, weights_place):
        if each is not None:
            each.assert_untouched()
    if outcome is None:
        return
    given_ = [None if array is None else numpy.array(array) for array in (target, weights)]
    value, grad = loss()(numpy.array(prediction), given_[0], sample_weight=given_[1])
    assert numpy.isfinite(value)
    # Of another layout NumPy sums the elements in another order.
    assert outcome[0] == pytest.approx(value, rel=1e-5)
    assert_identical(outcome[1], grad)


SETTINGS = st.one_of(RATES, BAD_RATES, st.none())


@given(
    kind=st.sampled_from([optim.SGD, optim.Adam, optim.AdamW]), learning_rate=SETTINGS,
    weight_decay=SETTINGS, max_norm=SETTINGS, first=SETTINGS, second=SETTINGS,
    params=st.sampled_from([None, 1, [], [1], "net", "good", "twice"]),
)  # fmt: skip
def test_settings_of_optimisers(kind, learning_rate, weight_decay, max_norm, first, second, params):
    good = [Parameter("w", numpy.ones((2, 3))), Parameter("b", numpy.ones(3))]
    if params == "good" or params == "twice":
        params = good if params == "good" else [good[0], good[0]]
    settings = {"weight_decay": weight_decay, "max_norm": max_norm}
    if kind is optim.SGD:
        settings |= {"momentum": first, "nesterov": second}
    else:
        settings |= {"beta1": first, "beta2": second}
    names = ("params", "learning_rate", *settings)
    made = raised(lambda: kind(params, learning_rate, **settings), names)
    if made is not None:
        for parameter in good:
            parameter.grad = numpy.ones_like(parameter.value)
        made.step()
        # Rates that are beyond all numbers make weights that are, too.
        if max(float(value or 0) for value in (learning_rate, weight_decay)) < 1e100:
            assert all(numpy.isfinite(parameter.value).all() for parameter in good)


@st.composite
def units(draw, extent):
    """Active units of an axis as an optimiser is given them: right ones and wrong ones."""
    kind = draw(st.sampled_from(["none", "good", "good", "offset", "short", "wrong"]))
    bits = numpy.random.default_rng(draw(st.integers(0, 50))).integers(0, 256, 4, numpy.uint8)
    if kind == "none":
        return None
    if kind == "offset":
        return bits, draw(st.sampled_from([0, 7, 27, 29, 32, -1, -8, 2**40, -(2**40)]))
    if kind == "short":
        return bits[:0], 0
    if kind == "wrong":
        wrong = [bits[::-2], bits.astype("i8"), bits[None], list(bits), None, bits.view("i1")]
        return draw(st.sampled_from(wrong)), 0
    return bits, 0


@given(
    data=st.data(), kind=st.sampled_from(["sgd", "momentum", "adam"]), compact=st.booleans(),
    vector=st.booleans(), max_norm=st.sampled_from([None, 1.0]),
)  # fmt: skip
def test_gradients_and_units(data, kind, compact, vector, max_norm):
    shape = (4,) if vector else (3, 4)
    dtype = data.draw(st.sampled_from(["f4", "f8"]))
    value = numpy.full((*shape[:-1], shape[-1]), 2, dtype)
    parameter, reference = Parameter("w", value), Parameter("w", value.copy())
    rows, columns = data.draw(units(3)), data.draw(units(4))
    extents = shape
    if compact and data.draw(st.integers(0, 3)):
        extents = tuple(map(active_count, [columns] if vector else [rows, columns], shape))
    grad, place = data.draw(arrays(extents))
    if data.draw(st.integers(0, 3)) and place is not None:
        grad = numpy.asarray(grad, dtype) if dtype != grad.dtype else grad
    makers = {
        "sgd": lambda p: optim.SGD([p], 0.1, max_norm=max_norm),
        "momentum": lambda p: optim.SGD([p], 0.1, momentum=0.9, max_norm=max_norm),
        "adam": lambda p: optim.Adam([p], 0.1, max_norm=max_norm),
    }
    opt, other = makers[kind](parameter), makers[kind](reference)
    parameter.grad, parameter.rows, parameter.columns = grad, rows, columns
    parameter.compact = compact
    if grad is None:
        with pytest.raises(RuntimeError, match="no parameter has a gradient"):
            opt.step()
        return
    done = raised(lambda: opt.step() or True, ("w", "gradient", "rows", "columns"))
    if place is not None:
        place.assert_untouched()
    if done is None:
        assert (parameter.value == 2).all()
        return
    reference.grad = full_gradient(numpy.array(grad), compact, shape, rows, columns)
    reference.rows, reference.columns = rows, columns
    other.step()
    assert_identical(parameter.value, reference.value)


def active_count(unit, extent):
    try:
        return int(active(unit, extent).sum())
    except (AttributeError, TypeError, ValueError):
        return extent


def active(unit, extent):
    """Which units of an axis are active, bools."""
    if unit is None:
        return numpy.ones(extent, bool)
    bits, offset = unit
    return numpy.unpackbits(bits, bitorder="little")[offset:][:extent].astype(bool)


def full_gradient(grad, compact, shape, rows, columns):
    if not compact:
        return grad
    chosen = [columns] if len(shape) == 1 else [rows, columns]
    full = numpy.zeros(shape, grad.dtype)
    full[numpy.ix_(*map(active, chosen, shape))] = grad
    return full


WEIGHTS = [
    numpy.ones((4, 3), ">f4"), numpy.ones((3, 4), "f4"), None, 1.0, numpy.ones((3, 4), "f4").T,
    numpy.ones((4, 3)), [[1.0] * 3] * 4, numpy.broadcast_to(numpy.float32(1), (4, 3)),
    numpy.ma.ones((4, 3), "f4"), numpy.ones((4, 3), "F"), numpy.ones((4, 3), "f4"),
]  # fmt: skip
BIASES = [None, numpy.ones(4), numpy.zeros(3, ">f8"), object(), "b"]


@given(value=st.sampled_from(WEIGHTS), bias=st.sampled_from(BIASES))
def test_weights_that_are_set(value, bias):
    layer = nn.Dense(4, 3)
    parameter = layer.parameters()[0]
    raised(lambda: setattr(parameter, "value", value), (parameter.name,))
    raised(lambda: setattr(layer, "weight", value), ("dense.weight",))
    raised(lambda: setattr(layer, "bias", bias), ("dense.bias",))
    weight = parameter.value
    assert weight.flags.carray
    assert (weight.shape, weight.dtype) == ((4, 3), numpy.dtype("f4"))
    numpy.testing.assert_allclose(
        layer.forward(numpy.ones((2, 4))), weight.sum(axis=0) + numpy.stack([layer.bias] * 2),
        rtol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda v: nn.Dense(v, 3), ("units_in",)),
        (lambda v: nn.Dense(3, v), ("units_out",)),
        (lambda v: nn.Dense(3, 3, initializer=v), ("initializer",)),
        (lambda v: nn.Dropout(v), ("rate",)),
        (lambda v: nn.Dropout(0.5, rows_per_mask=v), ("rows_per_mask",)),
        (lambda v: nn.Dropout(0.5, shared_axes=v), ("shared_axes",)),
        (lambda v: nn.Dropout(0.5, scale_at=v), ("scale_at",)),
        (lambda v: nn.LeakyReLU(v), ("negative_slope",)),
        (lambda v: nn.Sequential([nn.Dense(2, 2)], rng=v), ("rng", "seed")),
        (lambda v: nn.Sequential([nn.Dense(2, 2)], dtype=v), ("dtype",)),
        (lambda v: nn.Sequential([v]), ("layers", "layer")),
        (lambda v: nn.Sequential(v), ("layers", "layer")),
    ],
)
def test_arguments_of_layers(make, names):
    for value in (*NOT_NUMBERS, "x", -1, 2**70, 10**400, numpy.nan, numpy.inf, -numpy.inf, ">f4"):
        raised(lambda value=value: make(value), names)
