"""Calls of layers that have forward and backward passes of their own."""

from typing import Any

from fastdrop.nn.layer import Layer
from fastdrop.types import Array

__all__ = ["Passes"]


class Passes:
    """Calls of a layer that keeps what its backward pass needs, for one of its networks.

    Parameters
    ----------
    layer : Layer
    """

    def __init__(self, layer: Layer) -> None:
        self._layer: Any = layer

    def forward(self, x: Array, training: bool) -> Array:
        """The layer's output."""
        y: Array = self._layer.forward(x, training)
        if training:
            self._layer._forward_of = self
        return y

    def backward(self, grad: Array, input_gradient: bool) -> Any:
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
