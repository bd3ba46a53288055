"""float16 given to layers and losses is computed in float32."""

import numpy
import pytest
from nn_cases import values

from fastdrop import MaskStream, nn

ELEMENTWISE = [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity]


@pytest.mark.parametrize("make", [*ELEMENTWISE, lambda: nn.Dense(5, 3), lambda: nn.Dropout(0.5)])
def test_layers(make):
    x = values((6, 5)).astype(numpy.float16)
    results = []
    layer = make()
    for given in (x, x.astype(numpy.float32)):
        if isinstance(layer, nn.Dropout):
            layer.stream = MaskStream(0)
        y = layer.forward(given, training=True)
        grad = values(y.shape, 1).astype(numpy.float16)
        back = layer.backward(grad if given is x else grad.astype(numpy.float32))
        results.append((y, back, layer.forward(given)))
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype == numpy.float32
        numpy.testing.assert_array_equal(mine, theirs)


def test_networks():
    net = nn.Sequential([nn.Dense(5, 4), nn.ReLU(), nn.Dense(4, 2)], rng=0)
    x = values((6, 5)).astype(numpy.float16)
    numpy.testing.assert_array_equal(net.forward(x), net.forward(x.astype(numpy.float32)))


@pytest.mark.parametrize(
    "loss", [nn.SoftmaxCrossEntropy, nn.SigmoidCrossEntropy, nn.MeanSquaredError]
)
def test_losses(loss):
    """Sums of float16 would overflow at 65504."""
    prediction = numpy.full((300, 2), 200, numpy.float16)
    target = numpy.zeros((300, 2), numpy.float16)
    target[:, 0] = 1
    value, grad = loss()(prediction, target)
    expected, expected_grad = loss()(prediction.astype(numpy.float32), target)
    assert value == expected
    assert grad.dtype == numpy.float32
    numpy.testing.assert_array_equal(grad, expected_grad)
