"""Calls of layers that have forward and backward passes of their own."""

import numpy

__all__ = ["Passes", "Units"]


class Passes:
    """Calls of a layer that keeps what its backward pass needs, for one of its networks.

    Parameters
    ----------
    layer : Layer
    """

    def __init__(self, layer):
        self._layer = layer

    def forward(self, x, training):
        """The layer's output."""
        y = self._layer.forward(x, training)
        if training:
            self._layer._forward_of = self
        return y

    def backward(self, grad, input_gradient):
        """The layer's gradient of its input.

        Raises
        ------
        RuntimeError
            If what the layer keeps is not of this network's forward pass.
        """
        layer = self._layer
        if layer._forward_of is not self:
            raise RuntimeError(
                f"{layer.name}: its last forward pass was another network's; a layer that two "
                "networks share has to go backward in the one before it goes forward in the other"
            )
        return layer.backward(grad, input_gradient)


class Units:
    """A layer between the others of a link: it is called with the kept units only.

    It has what a link calls of an `Elementwise`.

    Parameters
    ----------
    layer : Layer
    dtype : numpy.dtype
        Of the network.

    Attributes
    ----------
    lead : tuple of int
        The shape of the batch without the units, of the forward pass to come.
    """

    from_output = False  # what it was given must stay as it is: it may hold it

    def __init__(self, layer, dtype):
        self._layer = layer
        self._passes = Passes(layer)
        self._dtype = dtype
        self.lead = None

    def apply(self, x, out, scratch):
        """Call forward; out is an array that the layer does not see."""
        numpy.copyto(out, self._forward(x, self.lead, True))

    def parameters(self):
        """The layer's parameters."""
        return self._layer.parameters()

    def infer(self, x, lead):
        """Return the output at test time, a fresh array."""
        return self._forward(x, lead, False).copy()

    def _forward(self, x, lead, training):
        y = numpy.asarray(self._passes.forward(x.reshape(*lead, x.shape[1]), training), self._dtype)
        return self._fitting(y, (*lead, x.shape[1]), "forward").reshape(x.shape)

    def as_applied(self):
        """Return what a backward pass asks for the derivative: set as in the forward pass."""
        return self

    def multiply_derivative(self, grad, x, y, scratch):
        """Call backward, and put what it returns in the place of grad."""
        shape = (*self.lead, grad.shape[1])
        given = numpy.asarray(self._passes.backward(grad.reshape(shape), True), self._dtype)
        numpy.copyto(grad, self._fitting(given, shape, "backward").reshape(grad.shape))

    def _fitting(self, array, shape, method):
        if array.shape != shape:
            raise ValueError(
                f"{self._layer.name}: {method} must return the shape that it is given, expected "
                f"{shape}, got {array.shape}"
            )
        return array
