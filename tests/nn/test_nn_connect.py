"""Dense layers whose weights are dropped: DropConnect in networks."""

import copy
import pickle

import numpy
import pytest
from conftest import assert_identical
from nn_cases import STEP, values

import fastdrop
from fastdrop import MaskStream, nn, optim
from fastdrop.schedules import Linear


def network(rate=0.4, every="batch", **options):
    layers = [
        nn.Dense(5, 7, drop_connect=rate, rows_per_mask=every),
        nn.Tanh(),
        nn.Dropout(0.3),
        nn.Dense(7, 6, drop_connect=rate, rows_per_mask=every, bias=False),
        nn.ReLU(),
        nn.Dense(6, 3),
    ]
    return nn.Sequential(layers, rng=1, dtype=numpy.float64, **options)


@pytest.mark.parametrize("every", ["batch", 1, 3])
def test_the_layer_is_the_function(every):
    layer = nn.Dense(5, 7, drop_connect=0.4, rows_per_mask=every, rng=3)
    layer.weight, layer.bias = values((5, 7)), values((7,))
    x, grad, stream = values((8, 5)).astype("f4"), values((8, 7)).astype("f4"), MaskStream(3)
    with pytest.raises(RuntimeError, match="needs a forward with training=True"):
        layer.backward(grad)
    for _ in range(2):
        y, mask = fastdrop.dropconnect(
            x, layer.weight, 0.4, bias=layer.bias, rng=stream, rows_per_mask=every
        )
        assert_identical(layer.forward(x, training=True), y)
        expected = fastdrop.dropconnect_backward(grad, x, layer.weight, mask)
        assert_identical(layer.backward(grad), expected[0])
        assert_identical(layer.grad_weight, expected[1])
        assert_identical(layer.grad_bias, expected[2])
        assert layer.backward(grad, input_gradient=False) is None
        assert_identical(layer.grad_weight, expected[1])
    assert_identical(layer.forward(x), x @ layer.weight + layer.bias)
    assert stream.position == layer.stream.position == 2
    assert (layer.drop_connect, layer.rows_per_mask) == (0.4, every)


@pytest.mark.parametrize("every", ["batch", 1, 4])
@pytest.mark.parametrize("input_gradient", [False, True])
def test_finite_differences(every, input_gradient):
    """Of every weight and of the input, between fused blocks and dropout."""
    net, x, grad = network(every=every), values((6, 5), 1), values((6, 3), 2)

    def loss():
        for layer in net.layers:
            if layer.draws_masks:
                layer.stream.position = 5
        return (net.forward(x, training=True) * grad).sum()

    loss()
    given = net.backward(grad, input_gradient=input_gradient)
    arrays = [(parameter.value, parameter.full_grad()) for parameter in net.parameters()]
    if input_gradient:
        arrays.append((x, given.copy()))
    for array, gradient in arrays:
        for index in numpy.ndindex(array.shape):
            before, moved = array[index], []
            for step in (STEP, -STEP):
                array[index] = before + step
                moved.append(loss())
            array[index] = before
            slope = (moved[0] - moved[1]) / (2 * STEP)
            numpy.testing.assert_allclose(gradient[index], slope, rtol=1e-6, atol=1e-6)


def test_masks_are_those_of_the_networks_stream():
    """The layer gets a child of the stream in the order of those that draw, and keeps it."""
    net = network()
    children = MaskStream(1).spawn(3)
    drawing = [layer for layer in net.layers if layer.draws_masks]
    assert [layer.stream for layer in drawing] == children
    assert not hasattr(net.layers[-1], "stream")
    own = nn.Dense(5, 7, drop_connect=0.5, rng=9)
    nn.Sequential([own], rng=1)
    assert own.stream == MaskStream(9)


def test_a_schedule_moves_the_rate():
    x = values((6, 5))
    schedule = Linear(0.1, 0.6, 5)
    moved, by_hand = (nn.Dense(5, 4, drop_connect=rate, rng=3) for rate in (schedule, 0.3))
    for layer in (moved, by_hand):
        layer.weight = values((5, 4), 1)
    for number in range(3):
        by_hand.drop_connect = schedule(number)
        assert_identical(moved.forward(x, training=True), by_hand.forward(x, training=True))
        assert moved.drop_connect == by_hand.drop_connect
    assert "Linear" in repr(moved)
    assert "drop_connect=0.3" in repr(by_hand)
    assert "drop_connect" not in repr(nn.Dense(2, 3))


@pytest.mark.parametrize("every", ["batch", 1])
def test_states_copies_and_files(every, tmp_path):
    net, x = network(every=every), values((6, 5))
    opt = optim.Adam(net, 0.01)

    def steps(net, opt):
        for _ in range(3):
            net.backward(net.forward(x, training=True))
            opt.step()
        return net.forward(x)

    steps(net, opt)
    fastdrop.save(tmp_path / "net.npz", net, opt)
    other = network(every=every)
    other_opt = optim.Adam(other, 0.01)
    fastdrop.load(tmp_path / "net.npz", other, other_opt)
    copied = copy.deepcopy((net, opt))
    pickled = pickle.loads(pickle.dumps((net, opt)))
    expected = steps(net, opt)
    for pair in ((other, other_opt), copied, pickled):
        assert_identical(steps(*pair), expected)
    with pytest.warns(UserWarning, match="drop_connect"):
        network(rate=0.2, every=every).load_state_dict(net.state_dict())


@pytest.mark.parametrize("every", ["batch", 1, 3, 4])
def test_parts_of_a_batch_have_its_mask(every):
    x, grad = values((6, 5)), values((6, 3))
    layer = nn.Dense(5, 3, drop_connect=0.5, rows_per_mask=every)
    net = nn.Sequential([layer], rng=2, dtype=numpy.float64)
    whole = net.forward(x, training=True)
    net.backward(grad)
    expected, total = net.layers[0].grad_weight, 0
    for first in (0, 4):
        part = slice(first, min(first + 4, 6))
        net.layers[0].stream.position = 0
        y = net.forward(x[part], training=True, rows=(first, 6))
        numpy.testing.assert_allclose(y, whole[part], rtol=1e-12)
        net.backward(grad[part])
        total = total + net.layers[0].grad_weight
    numpy.testing.assert_allclose(total, expected, rtol=1e-12)


def test_what_cannot_be_is_named():
    for rate in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"^drop_connect must be in"):
            nn.Dense(2, 3, drop_connect=rate)
    with pytest.raises(ValueError, match="rows_per_mask"):
        nn.Dense(2, 3, drop_connect=0.5, rows_per_mask="row")
    with pytest.raises(TypeError, match="rng and rows_per_mask are of drop_connect"):
        nn.Dense(2, 3, rng=0)
    plain, dropping = nn.Dense(2, 3), nn.Dense(2, 3, drop_connect=0.5)
    assert plain.drop_connect is plain.rows_per_mask is None
    with pytest.raises(AttributeError, match="draws no masks"):
        _ = plain.stream
    with pytest.raises(AttributeError, match="drop_connect of dense is None and cannot be set"):
        plain.drop_connect = 0.5
    with pytest.raises(AttributeError, match="cannot be set to None"):
        dropping.drop_connect = None
    with pytest.raises(AttributeError, match="make a new layer"):
        dropping.rows_per_mask = 1
    with pytest.raises(ValueError, match=r"^drop_connect must be in \[0, 1\], got 2.0"):
        dropping.drop_connect = 2.0
    assert dropping.drop_connect == 0.5
