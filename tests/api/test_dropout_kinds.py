"""The contracts of every kind of dropout, on the table in tests/dropout_kinds.py.

Statistics have fixed seeds, so they pass always or never. The limit is 6 sigma: a right kind, with
the seed chosen at random, would exceed it with probability 2e-9 for one number; each test looks at
fewer than 1000 of them for a kind.
"""

import pickle

import numpy
import pytest
import test_noise
from conftest import assert_identical, layouts, values
from dropout_kinds import KINDS
from nn_cases import STEP

import fastdrop
from fastdrop import Mask, MaskStream, nn
from fastdrop.schedules import Linear

SIGMAS = 6
DRAWS = 4000
kinds = pytest.mark.parametrize("kind", KINDS, ids=str)


def kept_of(mask, shape):
    """The mask as an array of the shape of x."""
    return numpy.broadcast_to(mask.to_array(), shape)


def agrees(y, expected, tolerance):
    """Bit for bit, or within a number of units in the last place of the largest."""
    if tolerance == 0:
        assert_identical(y, expected.astype(y.dtype))
        return
    limit = tolerance * numpy.finfo(y.dtype).eps
    numpy.testing.assert_allclose(y, expected, rtol=limit, atol=limit)


@kinds
def test_evaluation_draws_nothing(kind):
    x, stream = values(kind.shape), MaskStream(0)
    y, mask = kind.call(x, 0.3, rng=stream, training=False)[:2]
    assert mask is None
    assert stream.position == 0
    agrees(y, kind.evaluated(x.astype(numpy.float64), 0.3), kind.tolerance)
    if kind.layer is not None:
        layer = kind.layer(0.3, rng=stream)
        assert_identical(layer.forward(x), y)
        assert stream.position == 0


@kinds
@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_the_result_is_the_reference_on_every_instruction_set(kind, rate, each_backend):
    """Its mask has the shape it should, the bits of the stream, and one bit for all that share."""
    x = values(kind.shape, numpy.float64)
    y, mask = kind.call(x, rate, rng=7)[:2]
    assert mask.shape == kind.mask_shape
    agrees(y, kind.reference(x, kept_of(mask, x.shape), mask), kind.tolerance)
    assert y.shape == x.shape


@kinds
def test_the_gradient_equals_finite_differences(kind):
    x, grad = values(kind.shape, numpy.float64), values(kind.shape, numpy.float64, 1)
    result = kind.call(x, 0.4, rng=2)
    given = kind.gradient(grad, x, result)
    picked = numpy.random.default_rng(0).choice(x.size, min(x.size, 40), replace=False)
    for place in picked:
        index = numpy.unravel_index(place, x.shape)
        moved = []
        for step in (STEP, -STEP):
            other = x.copy()
            other[index] += step
            moved.append((kind.call(other, mask=result[1])[0] * grad).sum())
        slope = (moved[0] - moved[1]) / (2 * STEP)
        numpy.testing.assert_allclose(given[index], slope, rtol=1e-6, atol=1e-6)


@kinds
def test_mean_and_variance(kind):
    """Of every element, over draws of one stream; the variance by its own sample variance."""
    if kind.mean is None:
        pytest.skip("no formula: a file of its own tests its statistics")
    x, stream, rate = 1 + 0.1 * values(kind.shape, numpy.float64), MaskStream(11), 0.3
    drawn = numpy.array([kind.call(x, rate, rng=stream)[0] for _ in range(DRAWS)])
    deviation = drawn - kind.mean(x, rate)
    error = drawn.std(axis=0) / DRAWS**0.5
    assert (numpy.abs(deviation.mean(axis=0)) <= SIGMAS * error + 1e-12).all()
    if kind.variance is not None:
        squares = deviation**2
        error = squares.std(axis=0) / DRAWS**0.5
        distance = numpy.abs(squares.mean(axis=0) - kind.variance(x, rate))
        assert (distance <= SIGMAS * error + 1e-12).all()


@kinds
def test_rate_zero_and_one(kind):
    x, grad = values(kind.shape, numpy.float64), values(kind.shape, numpy.float64, 1)
    stream = MaskStream(0)
    y, mask = kind.call(x, 0.0, rng=stream)[:2]
    agrees(y, kind.evaluated(x, 0.0), max(kind.tolerance, 4))
    assert mask.count() == mask.size
    result = kind.call(x, 1.0, rng=stream)
    agrees(result[0], kind.at_one(x), kind.tolerance)
    assert result[1].count() == 0
    assert not kind.gradient(grad, x, result).any()
    assert stream.position == 2
    for rate in (-0.1, 1.5, numpy.nan):
        with pytest.raises(ValueError, match="rate must be in"):
            kind.call(x, rate, rng=stream)
    assert stream.position == 2


@kinds
@pytest.mark.parametrize("dtype", [numpy.float16, numpy.float32, numpy.float64])
def test_dtypes(kind, dtype):
    """As the reference computes it in float64, to some units in the last place."""
    x = values(kind.shape, dtype)
    result = kind.call(x, 0.3, rng=5)
    y, mask = result[:2]
    assert y.dtype == dtype
    expected = kind.reference(x.astype(numpy.float64), kept_of(mask, x.shape), mask)
    agrees(y, expected, max(kind.tolerance, 4))
    grad = kind.gradient(values(kind.shape, dtype, 1), x, result)
    assert grad.dtype == dtype
    for wrong in (numpy.int32, numpy.complex64, numpy.longdouble):
        if numpy.dtype(wrong) != numpy.float64:
            with pytest.raises(TypeError, match="must be float16, float32 or float64"):
                kind.call(x.astype(wrong), 0.3, rng=5)


@kinds
def test_empty_arrays_and_arrays_without_axes(kind):
    for shape in kind.empty:
        x, stream = values(shape, numpy.float32), MaskStream(0)
        result = kind.call(x, 0.5, rng=stream)
        assert result[0].shape == shape
        assert stream.position == 1
        assert kind.gradient(x, x, result).shape == shape


@kinds
def test_every_layout_gets_the_mask_of_its_contiguous_copy(kind):
    expected = kind.call(values(kind.shape), 0.4, rng=3)[0]
    for name, x in layouts(kind.shape, numpy.float32):
        before = x.copy()
        result = kind.call(x, 0.4, rng=3)
        numpy.testing.assert_array_equal(result[0], expected, err_msg=name)
        numpy.testing.assert_array_equal(x, before, err_msg=f"{name}: x has changed")
        contiguous = kind.gradient(numpy.ascontiguousarray(x), x, result)
        numpy.testing.assert_array_equal(kind.gradient(x, x, result), contiguous, err_msg=name)


@kinds
def test_a_mask_can_be_pickled_and_given(kind):
    x, stream = values(kind.shape), MaskStream(4)
    y, mask = kind.call(x, 0.3, rng=stream)[:2]
    again = kind.call(x, mask=pickle.loads(pickle.dumps(mask)))
    assert_identical(again[0], y)
    assert again[1] == mask
    if kind.name != "dropout":
        for wrong in ({"rate": 0.5}, {"rng": stream}, {"keep_prob": 0.5}):
            with pytest.raises(TypeError, match=f"give a mask or {next(iter(wrong))}, not both"):
                kind.call(x, mask=mask, **wrong)
        with pytest.raises(TypeError, match=r"must be a fastdrop\.Mask, got ndarray"):
            kind.call(x, mask=mask.to_array())
        with pytest.raises(TypeError, match="mask must be None with training=False"):
            kind.call(x, mask=mask, training=False)
        other = Mask.from_array(numpy.ones((2, 3, 2, 3, 2, 3)), keep_prob=0.5)
        with pytest.raises(ValueError, match="does not fit"):
            kind.call(x, mask=other)
    assert stream.position == 1


@kinds
def test_a_position_repeats_a_draw(kind):
    x, stream = values(kind.shape), MaskStream(9)
    drawn = [kind.call(x, 0.5, rng=stream)[0] for _ in range(12)]
    assert stream.position == 12
    stream.position = 1
    assert_identical(kind.call(x, 0.5, rng=stream)[0], drawn[1])
    assert any((drawn[1] != other).any() for other in drawn)


@kinds
def test_the_layer_is_the_function(kind):
    if kind.layer is None:
        pytest.skip("its layer takes more than one array")
    x, grad = values(kind.shape), values(kind.shape, seed=1)
    layer, stream = kind.layer(0.3, rng=6), MaskStream(6)
    with pytest.raises(RuntimeError, match="needs a forward with training=True"):
        layer.backward(grad)
    copy = pickle.loads(pickle.dumps(layer))
    for one in (layer, copy):
        stream.position = 0
        for _ in range(2):
            result = kind.call(x, 0.3, rng=stream)
            assert_identical(one.forward(x, training=True), result[0])
            assert_identical(one.backward(grad), kind.gradient(grad, x, result))
    assert layer.backward(grad, input_gradient=False) is None
    with pytest.raises(ValueError, match="grad must have the shape"):
        layer.backward(grad[:1])
    layer.rate = 0.0
    assert layer.keep_prob == 1.0
    numpy.testing.assert_allclose(layer.forward(x, training=True), layer.forward(x), rtol=1e-6)
    assert layer.settings()["keep_prob"] == 1.0
    with pytest.raises(AttributeError, match="has no attribute 'rte'"):
        layer.rte = 0.5
    assert type(layer).__name__ in repr(layer)


@kinds
def test_the_layer_follows_a_schedule(kind):
    """Draw number n has the rate of n, as if that had been set before."""
    if kind.layer is None:
        pytest.skip("its layer takes more than one array")
    x, schedule = values(kind.shape), Linear(0.1, 0.6, 5)
    moved, by_hand = (kind.layer(rate, rng=3) for rate in (schedule, 0.3))
    for number in range(3):
        by_hand.rate = schedule(number)
        expected = by_hand.forward(x, training=True)
        assert_identical(moved.forward(x, training=True), expected)
        assert moved.rate == by_hand.rate
    assert "Linear" in repr(moved)


@kinds
def test_the_layer_in_a_network(kind):
    """It gets a child of the network's stream, and its state goes with the network's."""
    if kind.layer is None:
        pytest.skip("its layer takes more than one array")
    x = values(kind.shape)
    net = nn.Sequential([kind.layer(0.5, rng=None)], rng=1)
    expected = kind.call(x, 0.5, rng=MaskStream(1).spawn(1)[0])
    assert_identical(net.forward(x, training=True), expected[0])
    grad = values(kind.shape, seed=2)
    given = net.backward(grad, input_gradient=True)
    numpy.testing.assert_allclose(given, kind.gradient(grad, x, expected), rtol=1e-6, atol=1e-6)
    other = nn.Sequential([kind.layer(0.5, rng=None)], rng=2)
    other.load_state_dict(net.state_dict(), strict=True)
    assert_identical(other.forward(x, training=True), net.forward(x, training=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("state", ["new", "previous"])
def test_zoneout_into_one_of_its_states(state, training):
    states = {"new": values((4, 37)), "previous": values((4, 37), seed=1)}
    expected, mask = fastdrop.zoneout(**states, rate=0.3, rng=1, training=training)
    given = {name: array.copy() for name, array in states.items()}
    y, _ = fastdrop.zoneout(**given, rate=0.3, rng=1, training=training, out=given[state])
    assert y is given[state]
    assert_identical(y, expected)
    other = "new" if state == "previous" else "previous"
    assert_identical(given[other], states[other])
    if training:
        view = states[state].copy()
        kept = states | {state: view}
        assert_identical(fastdrop.zoneout(**kept, mask=mask, out=view[:])[0], expected)
    buffer, stream = numpy.zeros(38, numpy.float32), MaskStream(0)
    overlapping = {"new": numpy.ones(37, "f"), "previous": numpy.ones(37, "f"), state: buffer[1:]}
    with pytest.raises(ValueError, match=f"out must be {state} itself or not overlap it"):
        fastdrop.zoneout(**overlapping, rate=0.3, rng=stream, training=training, out=buffer[:-1])
    assert stream.position == 0


@pytest.mark.parametrize("space", [1, 2, 3])
def test_blocks_of_layer_and_function_have_one_size_by_default(space):
    x = values((2, 3) + (9,) * space)
    expected = getattr(fastdrop, f"dropblock{space}d")(x, 0.3, rng=5)[0]
    layer = getattr(nn, f"DropBlock{space}d")(0.3, rng=5)
    assert_identical(layer.forward(x, training=True), expected)


def test_the_table_names_every_kind_of_fastdrop():
    """A kind without contracts is one that nobody has tested."""
    tested = {kind.name.partition(",")[0] for kind in KINDS}
    # What has no mask has contracts of its own, and so has what learns its rates.
    noise = {"apply_noise", *test_noise.KINDS, "concrete_dropout", "standout"}
    noise |= {"dropconnect_moments", "dropconnect_inference"}
    names = {name for name in fastdrop.dropouts.__all__ if not name.endswith("_backward")}
    assert names <= tested | noise
