"""A network of layers one after the other."""

import collections
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy
from numpy.typing import ArrayLike, DTypeLike

from fastdrop.arguments import as_array, contiguous
from fastdrop.attributes import read_only
from fastdrop.nn.chain import Chain, check_layers, check_units
from fastdrop.nn.layer import Layer, fitting_gradient
from fastdrop.nn.state import State
from fastdrop.nn.types import Dtype, Ready, Rows
from fastdrop.nn.windows import check_rows
from fastdrop.parameters import Parameter
from fastdrop.stream import MaskStream, RandomSource, as_stream, child_sequence
from fastdrop.types import Array

__all__ = ["Sequential"]

# A child of a stream's seed that its `spawn` does not reach: the seed of the initial weights.
WEIGHTS_CHILD = 2**32 - 1


class Sequential(Layer):
    """Layers one after the other, whose training step leaves out dropped units.

    `Sequential` computes a Dense, the activation functions behind it and the dropout behind those
    as one block: it draws the mask first, and the dropped units leave the products of this Dense
    and of the next, forward, backward and in the optimiser. See ``docs/guide/nn.md``.

    Parameters
    ----------
    layers : sequence of Layer
    rng : optional
        As for `fastdrop.dropout`. Of the layers that draw, number k gets child number k of this
        stream, so that no other layer changes its masks; the initial weights come from a child too.
    dtype : optional
        float32 or float64: of parameters, activations and results.
    skip_zeros : bool, optional
        Leave out zeros of the network's input, too, in training where that is faster (pictures,
        counts of words). Zero times infinity or NaN of a weight is 0 where it is left out.

    Attributes
    ----------
    layers : tuple of Layer
        Read-only, as `dtype` is. Another network may have the same layers: they keep their weights
        and streams, and the optimisers of either network move them.

    Raises
    ------
    TypeError
        If something is no layer, or for another dtype.
    ValueError
        If a layer does not fit the one before it, or is there twice, or its parameters have
        another dtype, or two of its parameters and buffers have one name.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> net = nn.Sequential([nn.Dense(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Dense(16, 2)], rng=0)
    >>> x = numpy.ones((4, 8), numpy.float32)
    >>> value, grad = nn.SoftmaxCrossEntropy()(net.forward(x, training=True), [0, 1, 0, 1])
    >>> net.backward(grad)
    >>> [parameter.name for parameter in net.parameters()]
    ['dense0.weight', 'dense0.bias', 'dense1.weight', 'dense1.bias']
    """

    _sealed = True

    def __init__(
        self,
        layers: Iterable[Layer],
        rng: RandomSource = None,
        dtype: DTypeLike = numpy.float32,
        skip_zeros: bool = False,
    ) -> None:
        super().__init__()
        self._dtype = _float_dtype(dtype)
        try:
            self._layers = Layers(layers)
        except TypeError:
            kind = type(layers).__name__
            raise TypeError(f"layers must be a sequence of layers, got {kind}") from None
        check_layers(self.layers)
        names = _names_of(self.layers)
        for name, layer in zip(names, self.layers, strict=True):
            layer.named(name)
        self._first = check_units(self.layers)
        self._drawing = [layer for layer in self.layers if layer.draws_masks]
        streams = as_stream(rng).spawn(max(len(self._drawing), 1))
        self._build(names, streams[0])
        self._chain = Chain(self.layers, self.dtype, bool(skip_zeros))
        self._named = [
            (parameter.name, parameter) for layer in self.layers for parameter in layer.parameters()
        ]
        self._state = State(names, self.layers, self._named)
        for layer, stream in zip(self._drawing, streams, strict=False):
            layer.offer_stream(stream)

    @read_only("make a new network, nn.Sequential([...]); its layers keep their weights")
    def layers(self) -> "Layers":
        """tuple of Layer: the layers in their order."""
        return self._layers

    @read_only("make a new network, nn.Sequential([...], dtype=...), and assign the weights")
    def dtype(self) -> Dtype:
        """numpy.dtype: of parameters, activations and results."""
        return self._dtype

    def _build(self, names: list[str], stream: MaskStream) -> None:
        """Make the layers' parameters with numbers of a child of the stream's seed."""
        generator = numpy.random.default_rng(child_sequence(stream, WEIGHTS_CHILD))
        for name, layer in zip(names, self.layers, strict=True):
            layer.build(self.dtype, generator)
            parameters = list(layer.parameters())
            if list(map(id, parameters)) != list(map(id, layer.parameters())):
                raise ValueError(
                    f"{name}: parameters() must return the same Parameter objects every time"
                )
            for parameter in parameters:
                parameter.belongs_to(name)

    def parameters(self) -> list[Parameter]:
        """Return the list of all layers' `Parameter` objects, the same ones every time."""
        return [parameter for _, parameter in self._named]

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """Return pairs of name and `Parameter`.

        In this network, a parameter of a layer that another one has as well may have another name
        than `Parameter.name` says, which is of the network made last.

        Returns
        -------
        list of (str, Parameter)
        """
        return list(self._named)

    def buffers(self) -> dict[str, Array]:
        """Return the buffers of all layers by name, as they are now; see `Layer.buffers`."""
        return self._state.buffers()

    def _checked(self, x: ArrayLike) -> Array:
        x = as_array(x, "x")
        if x.dtype.kind not in "biuf":
            raise TypeError(f"x must hold real numbers, got dtype {x.dtype}")
        if self._first is not None:
            self._first.check_input(x.shape)
        elif x.ndim < 2:
            raise ValueError(f"x must have shape (batch, ...), got {x.shape}")
        return contiguous(x, self.dtype)

    def forward(self, x: ArrayLike, training: bool = False, rows: Rows | None = None) -> Array:
        """Return the network's output.

        Parameters
        ----------
        x : array_like of real numbers, shape (batch, ...)
            Converted to the network's dtype. In training it is not copied, if it has that dtype:
            leave it as it is until `backward`.
        training : bool, optional
            Draw masks, and keep what `backward` needs. At test time every unit takes part.
        rows : tuple of int, optional
            (first, total): `x` holds rows ``first``, ``first + 1``, ... of a batch of ``total``
            rows, the others being elsewhere, and gets their part of the batch's masks. The units
            that an optimiser takes for active are then those of the whole batch. `x` may have no
            rows at all.

        Returns
        -------
        numpy.ndarray, shape (batch, ...)
            A fresh array.

        Raises
        ------
        TypeError, ValueError
            If `x` is not what the first layer expects, or the batch has no such `rows`.
        """
        x = self._checked(x)
        rows = check_rows(rows, len(x))
        if not training:
            return self._chain.infer(x)
        drawing = self._drawing
        positions = [layer.stream.position for layer in drawing]
        try:
            for layer in drawing:
                if rows is not None:
                    layer.take_rows(rows)
                layer.follow_schedule()
            return self._chain.forward(x, rows)
        except BaseException:
            # Of a forward that failed half-way no draw counts: all layers repeat theirs.
            for layer, position in zip(drawing, positions, strict=True):
                layer.stream.position = position
            raise
        finally:
            if rows is not None:
                for layer in drawing:
                    layer.take_rows(None)

    def backward(
        self, grad: ArrayLike, input_gradient: bool = False, ready: Ready | None = None
    ) -> Array | None:
        """Set the gradients of all parameters.

        Parameters
        ----------
        grad : array_like
            Gradient of the loss with respect to what the last training forward returned.
        input_gradient : bool, optional
            Whether the gradient of the network's input is computed as well.
        ready : callable, optional
            Called with each `Parameter` as soon as its gradient is there, the last layer's first,
            while those of earlier layers are still to be computed.

        Returns
        -------
        numpy.ndarray or None
            The input's gradient, a fresh array; None if it was not asked for.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        made = self._chain.output
        if made is None:
            raise self._missing_forward()
        grad = fitting_gradient(grad, made.shape, self.dtype, self.name)
        return self._chain.backward(made, grad, input_gradient, ready)

    def state_dict(self) -> dict[str, Any]:
        """Return all that training changes, and the layers' settings.

        Returns
        -------
        dict
            Parameters and buffers by ``layer.name`` ("dense0.weight", copies); the full states of
            the mask streams ("dropout0.stream"), dicts; and "settings", a dict of all layers' names
            and their `Layer.settings`.
        """
        return self._state.taken()

    def load_state_dict(self, state: dict[str, Any], strict: bool = False) -> None:
        """Take over a state that `state_dict` returned, in place.

        Parameters
        ----------
        state : dict
        strict : bool, optional
            Refuse a state of other settings, such as another dropout rate, or of other layers
            without parameters. Otherwise there is a warning, and the settings of this network hold.

        Raises
        ------
        ValueError
            If it is not of a network like this one: by name, what it has and what is expected.
            Nothing is changed then.

        Warns
        -----
        UserWarning
            If the settings are others.
        """
        self._state.restore(state, strict)
        self._chain.output = None

    def __repr__(self) -> str:
        lines = "".join(f"    {layer!r},\n" for layer in self.layers)
        return f"Sequential([\n{lines}], dtype={self.dtype})"

    def _repr_html_(self) -> str:
        """Notebooks show a table of the layers."""
        from fastdrop.display import network_html  # notebooks only

        return network_html(self)


def _float_dtype(dtype: DTypeLike) -> Dtype:
    try:
        found = numpy.dtype(dtype).newbyteorder("=")
    except (TypeError, ValueError):
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from None
    if found.char not in "fd":
        raise TypeError(f"dtype must be float32 or float64, got {found}")
    return found


def _names_of(layers: Iterable[Layer]) -> list[str]:
    """A name for each layer: its kind and number."""
    seen: collections.Counter[str] = collections.Counter()
    names = []
    for layer in layers:
        kind = type(layer).__name__.lower()
        names.append(f"{kind}{seen[kind]}")
        seen[kind] += 1
    return names


class Layers(tuple[Any, ...]):
    """The layers of a network; read-only, since an optimiser holds their parameters."""

    __slots__ = ()

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise AttributeError(
            "the layers of a network cannot be changed: make a new one of those wanted, as in "
            "nn.Sequential([*net.layers[:-1], nn.Dense(8, 2)]); they keep their weights. Then make "
            "its optimiser"
        )

    append = extend = insert = pop = remove = clear = reverse = sort = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
