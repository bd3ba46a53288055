"""Layers that two networks share, and what was set before a network was made: all of it stays."""

import copy
import pickle

import numpy
import pytest
from nn_cases import values

import fastdrop
from fastdrop import nn, optim


def train(net, opt, steps=3, seed=0):
    loss = nn.MeanSquaredError()
    for step in range(steps):
        x = values((6, 4), seed + step, net.dtype)
        y = net.forward(x, training=True)
        _, grad = loss(y, values(y.shape, 50 + seed + step))
        net.backward(grad)
        opt.step()


def body(dtype=numpy.float32):
    layers = [nn.Dense(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Dense(6, 2)]
    return nn.Sequential(layers, rng=0, dtype=dtype)


def test_a_second_network_has_the_same_weights():
    a = nn.Dense(2, 2)
    first = nn.Sequential([a])
    a.weight = numpy.eye(2)
    opt = optim.SGD(first, 0.5)
    second = nn.Sequential([a, nn.ReLU()], rng=1)
    numpy.testing.assert_array_equal(a.weight, numpy.eye(2))
    assert first.parameters() == second.parameters()
    first.forward(numpy.ones((1, 2)), training=True)
    first.backward(numpy.ones((1, 2)))
    opt.step()
    numpy.testing.assert_array_equal(a.weight, [[0.5, -0.5], [-0.5, 0.5]])
    numpy.testing.assert_array_equal(second.forward([[1, 1]]), [[0, 0]])


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_weights_set_before_the_first_network(dtype):
    weight, bias = values((3, 2)), values(2, 1)
    layer = nn.Dense(3, 2)
    layer.weight, layer.bias = weight, bias
    nn.Sequential([layer, nn.Dense(2, 2)], rng=5, dtype=dtype)
    numpy.testing.assert_array_equal(layer.weight, weight.astype(dtype))
    numpy.testing.assert_array_equal(layer.bias, bias.astype(dtype))
    weight += 1  # was copied
    assert (layer.weight != weight.astype(dtype)).all()


def test_what_was_not_set_is_drawn_by_the_network():
    """And weights do not come from the operating system because a bias was set before."""
    layer = nn.Dense(3, 2)
    layer.bias = [1, 2]
    nn.Sequential([layer], rng=5)
    numpy.testing.assert_array_equal(
        layer.weight, nn.Sequential([nn.Dense(3, 2)], rng=5).layers[0].weight
    )
    numpy.testing.assert_array_equal(layer.bias, [1, 2])


def test_weights_of_a_layer_that_was_used_alone():
    layer = nn.Dense(3, 2)
    alone = layer.forward(numpy.ones((1, 3)))
    opt = optim.SGD(layer, 1.0)
    net = nn.Sequential([layer], rng=0)
    numpy.testing.assert_array_equal(net.forward(numpy.ones((1, 3))), alone)
    net.forward(numpy.ones((1, 3)), training=True)
    net.backward(numpy.ones((1, 2)))
    opt.step()
    numpy.testing.assert_allclose(net.forward(numpy.ones((1, 3))), alone - 4, rtol=1e-5)


def test_another_dtype_is_told():
    layer = nn.Dense(3, 2)
    nn.Sequential([nn.Dense(2, 3), layer])
    before = layer.weight.copy()
    other = nn.Dense(2, 3)
    with pytest.raises(ValueError, match=r"^dense1: its parameters are float32 and the network is"):
        nn.Sequential([other, layer], dtype=numpy.float64)
    numpy.testing.assert_array_equal(layer.weight, before)


def test_fine_tuning():
    """A body that was trained, a new head; the old network's optimiser goes on working."""
    net = body()
    opt = optim.Adam(net)
    train(net, opt)
    trained = net.state_dict()
    opt_state = opt.state_dict()
    tuned = nn.Sequential([*net.layers[:-1], nn.Dense(6, 3)], rng=9)
    numpy.testing.assert_array_equal(tuned.layers[0].weight, trained["dense0.weight"])
    tuner = optim.Adam(tuned)
    train(tuned, tuner)
    assert (tuned.layers[0].weight != trained["dense0.weight"]).any()
    numpy.testing.assert_array_equal(net.layers[3].weight, trained["dense1.weight"])
    train(net, opt)
    assert net.state_dict().keys() == trained.keys()
    assert opt.state_dict().keys() == opt_state.keys()
    assert opt.steps == 6


def test_names_are_of_each_network(tmp_path):
    """A layer is the second Dense of one network and the first of another: states go by both."""
    net = body()
    opt = optim.SGD(net, 0.1, momentum=0.9)
    head = nn.Sequential([net.layers[3], nn.Dense(2, 2)], rng=0)
    assert [name for name, _ in net.named_parameters()] == [
        "dense0.weight", "dense0.bias", "dense1.weight", "dense1.bias",
    ]  # fmt: skip
    assert [name for name, _ in head.named_parameters()] == [
        "dense0.weight", "dense0.bias", "dense1.weight", "dense1.bias",
    ]  # fmt: skip
    assert head.named_parameters()[0][1] is net.named_parameters()[2][1]
    numpy.testing.assert_array_equal(net.state_dict()["dense1.weight"], net.layers[3].weight)
    numpy.testing.assert_array_equal(head.state_dict()["dense0.weight"], net.layers[3].weight)
    train(net, opt)
    late = optim.SGD(net, 0.1, momentum=0.9)
    assert late.state_dict().keys() == opt.state_dict().keys()
    fastdrop.save(tmp_path / "net.npz", net, opt)
    fresh = body()
    fastdrop.load(tmp_path / "net.npz", fresh, optim.SGD(fresh, 0.1, momentum=0.9))
    x = values((3, 4))
    numpy.testing.assert_array_equal(fresh.forward(x), net.forward(x))


def test_tied_encoders_in_turn_and_interleaved():
    """Two heads on one encoder: every network keeps its own forward pass."""
    encoder = [nn.Dense(4, 6), nn.Tanh()]
    nets = [nn.Sequential([*encoder, nn.Dense(6, n)], rng=n, dtype=numpy.float64) for n in (2, 3)]
    x = [values((5, 4), n) for n in range(2)]
    grads = [values((5, n), n) for n in (2, 3)]
    expected = []
    for net, one, grad in zip(nets, x, grads, strict=True):
        net.forward(one, training=True)
        expected.append((net.backward(grad, input_gradient=True), encoder[0].grad_weight))
    for net, one in zip(nets, x, strict=True):
        net.forward(one, training=True)
    for net, grad, (grad_x, grad_weight) in zip(nets, grads, expected, strict=True):
        numpy.testing.assert_array_equal(net.backward(grad, input_gradient=True), grad_x)
        numpy.testing.assert_array_equal(encoder[0].grad_weight, grad_weight)


class Cube(nn.Layer):
    """Keeps its input, so that only one forward pass at a time can be gone back."""

    def forward(self, x, training=False):
        self.x = x.copy()
        return x**3

    def backward(self, grad, input_gradient=True):
        return 3 * self.x**2 * grad


class CubeUnits(Cube):
    fused_as = "any units"


@pytest.mark.parametrize("kind", [Cube, CubeUnits])
def test_a_layer_of_ones_own_in_two_networks(kind):
    cube = kind()
    first, second = (nn.Sequential([nn.Dense(4, 2), cube], rng=n) for n in range(2))
    x = values((3, 4))
    for net in (first, second):  # one after the other is right
        net.backward(net.forward(x, training=True))
    first.forward(x, training=True)
    second.forward(x)  # test time changes what the layer keeps, if it wants to
    second.forward(x, training=True)
    with pytest.raises(RuntimeError, match=r"0: its last forward pass was another network's; a la"):
        first.backward(numpy.ones((3, 2)))
    second.backward(numpy.ones((3, 2)))


def test_streams_that_were_set_stay():
    given = nn.Dropout(0.5, rng=7)
    later = nn.Dropout(0.5)
    later.stream = fastdrop.MaskStream(8)
    plain = nn.Dropout(0.5)
    plain.forward(numpy.ones((2, 2)), training=True)  # of a stream nobody asked for
    net = nn.Sequential([given, later, plain], rng=0)
    streams = fastdrop.MaskStream(0).spawn(3)
    assert [layer.stream for layer in net.layers] == [
        fastdrop.MaskStream(7), fastdrop.MaskStream(8), streams[2],
    ]  # fmt: skip
    net.forward(numpy.ones((2, 2)), training=True)
    other = nn.Sequential([plain, nn.Dropout(0.5)], rng=1)
    assert other.layers[0].stream.position == 1  # goes on: no mask comes twice
    assert other.layers[1].stream == fastdrop.MaskStream(1).spawn(2)[1]


def test_a_network_that_could_not_be_made_takes_no_stream():
    dropout = nn.Dropout(0.5)
    old = nn.Dense(2, 2)
    nn.Sequential([old])
    with pytest.raises(ValueError, match="float32"):
        nn.Sequential([dropout, old], rng=0, dtype=numpy.float64)
    assert nn.Sequential([dropout], rng=1).layers[0].stream == fastdrop.MaskStream(1).spawn(1)[0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_of_network_and_optimiser(copied):
    """Together they go on as the originals would; apart, the first step says what is wrong."""
    net = body()
    opt = optim.Adam(net)
    train(net, opt)
    both = copied((net, opt))
    other_way = copied((opt, net))
    net2, opt2 = copied(net), copied(opt)
    train(net, opt, seed=9)
    for again, its in (both, other_way[::-1]):
        train(again, its, seed=9)
        numpy.testing.assert_array_equal(again.layers[0].weight, net.layers[0].weight)
    loss = nn.MeanSquaredError()
    _, grad = loss(net2.forward(numpy.ones((2, 4)), training=True), numpy.zeros((2, 2)))
    net2.backward(grad)
    with pytest.raises(RuntimeError, match=r"copy network and optimiser together"):
        opt2.step()
    remade = optim.Adam(net2)  # the right way, of a copy of the network alone
    remade.load_state_dict(opt2.state_dict())
    remade.step()
    assert remade.steps == 4
