"""What a network should compute, said layer by layer with dense products in float64."""

import numpy

import fastdrop
from fastdrop import nn

STEP = 1e-6  # of finite differences

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.3),
    "steep": lambda: nn.LeakyReLU(1.5),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def values(shape, seed=0, dtype=numpy.float64):
    return numpy.random.default_rng(seed).standard_normal(shape).astype(dtype)


def factors(layer, stream, shape, draw):
    """What a dropout layer multiplies by in training forward number `draw`, as a float array."""
    mask = stream.draw(
        shape,
        keep_prob=layer.keep_prob,
        rows_per_mask=layer.rows_per_mask,
        exact_count=layer.exact_count,
        shared_axes=layer.shared_axes,
        at=draw,
    )
    scale = mask.scale if layer.scale_at == "train" else 1.0
    kept = mask.to_array(dtype=numpy.float64)
    if layer.rows_per_mask not in (1, "batch"):
        kept = numpy.repeat(kept, layer.rows_per_mask, axis=0)[: shape[0]]
    return numpy.broadcast_to(kept, shape) * scale


def activation(layer, x):
    """The function and its derivative, from their definitions."""
    if isinstance(layer, nn.ReLU):
        return numpy.where(x > 0, x, 0), (x > 0).astype(x.dtype)
    if isinstance(layer, nn.LeakyReLU):
        slope = numpy.where(x > 0, 1, layer.negative_slope)
        return x * slope, slope
    if isinstance(layer, nn.Tanh):
        return numpy.tanh(x), 1 / numpy.cosh(x) ** 2
    if isinstance(layer, nn.Sigmoid):
        y = 1 / (1 + numpy.exp(-x))
        return y, y * (1 - y)
    return x, numpy.ones_like(x)


class Reference:
    """The same network, unfused: forward and backward of one training step.

    Masks come from streams made here, not from the network's: the children of the seed, one per
    dropout layer in their order.
    """

    def __init__(self, net, seed):
        self.net = net
        dropouts = [layer for layer in net.layers if isinstance(layer, nn.Dropout)]
        streams = fastdrop.MaskStream(seed).spawn(len(dropouts))
        self.streams = dict(zip(map(id, dropouts), streams, strict=True))

    def forward(self, x, draw):
        x = numpy.asarray(x, numpy.float64)
        self.inputs = []
        for layer in self.net.layers:
            if isinstance(layer, nn.Dense):
                self.inputs.append(x)
                x = x @ layer.weight.astype(numpy.float64)
                x = x if layer.bias is None else x + layer.bias
            elif isinstance(layer, nn.Dropout):
                by = factors(layer, self.streams[id(layer)], x.shape, draw)
                self.inputs.append(by)
                x = numpy.where(by != 0, x * by, 0)
            else:
                x, slope = activation(layer, x)
                self.inputs.append(slope)
        return x

    def backward(self, grad):
        """Return the input's gradient and those of the parameters, by name."""
        grad, grads = numpy.asarray(grad, numpy.float64), {}
        for layer, kept in zip(reversed(self.net.layers), reversed(self.inputs), strict=True):
            if not isinstance(layer, nn.Dense):
                grad = grad * kept
                continue
            rows = grad.reshape(-1, grad.shape[-1])
            grads[f"{layer.name}.weight"] = kept.reshape(-1, kept.shape[-1]).T @ rows
            if layer.bias is not None:
                grads[f"{layer.name}.bias"] = rows.sum(axis=0)
            grad = grad @ layer.weight.T.astype(numpy.float64)
        return grad, grads


def randomise(net, seed=1):
    """Give the biases other values than 0."""
    for number, parameter in enumerate(net.parameters()):
        if parameter.value.ndim == 1:
            parameter.value[...] = 0.3 * values(parameter.value.shape, seed + number)


def assert_step_agrees(net, seed, x, draw, tolerance):
    """One training step of a network equals that of its reference."""
    reference = Reference(net, seed)
    expected = reference.forward(x, draw)
    y = net.forward(x, training=True)
    assert y.dtype == net.dtype
    numpy.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    grad = values(y.shape, 7, net.dtype)
    expected, by_name = reference.backward(grad)
    grad_x = net.backward(grad, input_gradient=True)
    numpy.testing.assert_allclose(grad_x, expected, rtol=tolerance, atol=tolerance)
    for layer in net.layers:
        if isinstance(layer, nn.Dense):
            for what in ("weight", "bias"):
                name = f"{layer.name}.{what}"
                if name in by_name:
                    given = getattr(layer, f"grad_{what}")
                    numpy.testing.assert_allclose(
                        given, by_name[name], rtol=tolerance, atol=tolerance, err_msg=name
                    )


def differences(value, array):
    """Derivative of a function with respect to every element of an array that it reads."""
    slopes = numpy.empty(array.shape)
    for place in numpy.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + STEP
        above = value()
        array[place] = kept - STEP
        below = value()
        array[place] = kept
        slopes[place] = (above - below) / (2 * STEP)
    return slopes
