"""A batch for a training step, and how to tell that a network of fastdrop's is right.

The networks are Dense - ReLU - dropout for each hidden layer, and a last Dense; the loss is the
cross-entropy of the softmax.
"""

import math

import numpy

import fastdrop

from .. import verify
from ..cases import SEED

__all__ = ["LEARNING_RATE", "MOMENTUM", "Work"]

# So small that hundreds of steps on one batch do not learn it by heart: its gradients would become
# subnormal numbers, for which Intel's cores take a hundred cycles each, and which training has not.
LEARNING_RATE = 1e-5
MOMENTUM = 0.9
# Several roundings of float32 for each of the sums' terms, relative to the largest element.
TOLERANCE = 2e-4


class Work:
    """A batch for a network of some size.

    Parameters
    ----------
    size : tuple of int
        Examples in the batch, then the units of the input, the hidden layers and the output.
    """

    def __init__(self, size):
        self.batch, *self.units = size
        generator = numpy.random.default_rng(SEED)
        self.x = generator.standard_normal((self.batch, self.units[0]), dtype=numpy.float32)
        self.labels = generator.integers(0, self.units[-1], self.batch)

    def check_value(self, value):
        """Require that a loss is one: such a network begins near the logarithm of the classes."""
        limit = 20 + 2 * math.log(self.units[-1] + 1)
        verify.require(0 <= value < limit, f"{value} is no loss of this network")

    def check_network(self, net, opt):
        """Require that the gradients of a further step are right, and that `opt` heeds the masks.

        The gradients are compared with those of dense products in float64, of the same masks; a
        weight of a unit that no example kept has to stay as it is, bit for bit.
        """
        nn = fastdrop.nn
        draws = [layer.stream.position for layer in net.layers if isinstance(layer, nn.Dropout)]
        _, grad = nn.SoftmaxCrossEntropy()(net.forward(self.x, training=True), self.labels)
        net.backward(grad)
        before = [parameter.value.copy() for parameter in net.parameters()]
        expected, kept = self._reference(net, grad, draws)
        for parameter in net.parameters():
            wanted = expected[parameter.name]
            error = abs(parameter.full_grad() - wanted).max(initial=0)
            close = error <= TOLERANCE * max(abs(wanted).max(initial=0), 1e-3)
            verify.require(close, f"the gradient of {parameter.name} is wrong by {error}")
        opt.step()
        for parameter, old in zip(net.parameters(), before, strict=True):
            changed = parameter.value != old
            rows, columns = kept[parameter.name]
            idle = ~columns if changed.ndim == 1 else ~numpy.logical_and.outer(rows, columns)
            verify.require(not changed[idle].any(), f"{parameter.name} of a dropped unit changed")

    def _reference(self, net, grad, draws):
        """Gradients in float64, and which units of either side of a parameter took part."""
        nn = fastdrop.nn
        x, inputs = self.x.astype(float), []
        units, draws = numpy.ones(x.shape[1], bool), iter(draws)
        sides = []
        for layer in net.layers:
            if isinstance(layer, nn.Dense):
                inputs.append(x)
                sides.append([layer, units, numpy.ones(layer.units_out, bool)])
                units = sides[-1][2]
                x = x @ layer.weight.astype(float) + layer.bias
            elif isinstance(layer, nn.ReLU):
                inputs.append(x > 0)
                x = numpy.where(x > 0, x, 0)
            else:
                factors = self._factors(layer, x.shape, next(draws))
                inputs.append(factors)
                x = x * factors
                units &= (factors != 0).any(axis=0)
        gradients, grad = {}, grad.astype(float)
        for layer, seen in zip(reversed(net.layers), reversed(inputs), strict=True):
            if isinstance(layer, nn.Dense):
                gradients[f"{layer.name}.weight"] = seen.T @ grad
                gradients[f"{layer.name}.bias"] = grad.sum(axis=0)
                grad = grad @ layer.weight.T.astype(float)
            else:
                grad = grad * seen
        kept = {
            f"{layer.name}.{what}": (rows, columns)
            for layer, rows, columns in sides
            for what in ("weight", "bias")
        }
        return gradients, kept

    @staticmethod
    def _factors(layer, shape, draw):
        mask = layer.stream.draw(
            shape,
            keep_prob=layer.keep_prob,
            rows_per_mask=layer.rows_per_mask,
            exact_count=layer.exact_count,
            at=draw,
        )
        kept = mask.to_array(dtype=float) * mask.scale
        if layer.rows_per_mask not in (1, "batch"):
            kept = numpy.repeat(kept, layer.rows_per_mask, axis=0)[: shape[0]]
        return numpy.broadcast_to(kept, shape)
