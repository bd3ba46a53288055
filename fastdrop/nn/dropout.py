"""The dropout layer."""

import math
from collections.abc import Sequence
from typing import Any

import numpy

from fastdrop._backend import kernels
from fastdrop.arguments import integer, is_one_of, mask_plan, noise_axes, threshold
from fastdrop.functional import apply_mask, dropout
from fastdrop.nn.masks import any_kept_units, bit_count, row_and_any_kept
from fastdrop.nn.random import MaskedLayer, trained
from fastdrop.nn.signal import Signal
from fastdrop.nn.types import Rate, Rows
from fastdrop.nn.windows import draw_rows, draw_units
from fastdrop.operands import RowMask
from fastdrop.stream import RandomSource, draw_with, take_position
from fastdrop.types import Array, Axes, RowsPerMask, ScaleAt, Shape

__all__ = ["Dropout"]


class Layout:
    """What a mask for arrays of one shape looks like; worked out once per shape."""

    __slots__ = (
        "direct", "kept", "nbytes", "plan", "row_axis", "scale", "shape", "starts", "test_scale",
        "unit",
    )  # fmt: skip

    def __init__(
        self,
        shape: Shape,
        shared_axes: Axes,
        rows_per_mask: RowsPerMask,
        keep: float,
        exact_count: bool,
    ) -> None:
        self.shape = shape
        self.plan = plan = mask_plan(shape, shared_axes, rows_per_mask)
        self.nbytes = -(-math.prod(plan.shape) // 8)
        self.starts = (0,) * len(plan.shape)
        self.kept: int | None = None
        self.row_axis = -1
        if exact_count:
            self.row_axis, self.kept, self.scale = plan.exact_count(keep)
            self.test_scale = 1 / self.scale if self.kept else 0.0
        else:
            limit = threshold(keep)
            self.scale = 1.0 / keep if limit else 0.0
            self.test_scale = keep
        own = plan.shape
        whole_rows = bool(own) and own[-1] == shape[-1]
        self.unit = whole_rows and math.prod(own[:-1]) == 1
        # Rows of the array use rows of the mask in order: bits are those of a RowMask.
        self.direct = self.unit or (whole_rows and (len(shape) == 2 or own == shape))


class Dropout(MaskedLayer):
    """Drop units at random in training, each with probability `rate` [1]_.

    Parameters
    ----------
    rate : float
        Probability that a unit is dropped. Give `rate` or `keep_prob`, not both.
    keep_prob : float
        Probability that a unit is kept, ``1 - rate``.
    rows_per_mask : int or "batch", optional
        How many consecutive examples share one mask. 1: each has its own [1]_. "batch": one set
        of units per iteration [2]_, the fastest; groups lie between. Four masks or more in a batch,
        with half the learning rate that suits a mask for each example, keep the test error within
        0.6 points of it; one mask costs up to 3 points after 40 epochs, at a smaller learning rate
        still, and catches up in some hundreds (docs/study/study.md, "Masks in a batch").
    exact_count : bool, optional
        Keep exactly ``floor(keep_prob * n + 0.5 + 1e-6)`` of n units.
    shared_axes : int or tuple of int, optional
        Axes along which one mask is shared.
    noise_shape : tuple of int or None, optional
        The same in Keras' words, as for `fastdrop.dropout`, in the place of `shared_axes`.
    scale_at : "train" or "test", optional
        Multiply kept values by ``1 / keep_prob`` in training, or all values by ``keep_prob`` at
        test time.
    rng : optional
        As for `fastdrop.dropout`: where the masks come from. By default the network decides.

    Attributes
    ----------
    rate, keep_prob, rows_per_mask, exact_count, shared_axes, scale_at
        As given. Setting one checks it and holds from the next forward pass on, test time
        included; the two rates go together.
    stream : MaskStream
        Training forward number t uses its draw number t. A `Sequential` gives its dropout layers
        the children of its own stream, in their order, except those that have one already: of
        `rng`, set here, or of the network they were in before. A layer outside has entropy of its
        own.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    References
    ----------
    .. [1] N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a
       simple way to prevent neural networks from overfitting", JMLR 15 (2014), section 4.
    .. [2] B. Graham, J. Reizenstein, L. Robinson, "Efficient batchwise dropout training using
       submatrices", arXiv 1502.02478 (2015), section 2.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.Dropout(0.5, rng=0)
    >>> layer.forward(numpy.ones((2, 4)), training=True)
    array([[2., 2., 0., 0.],
           [2., 0., 0., 0.]])
    >>> layer.forward(numpy.ones((1, 4)))
    array([[1., 1., 1., 1.]])
    """

    _sealed = True
    fused_as = "dropout"
    _noise_shape: tuple[int | None, ...] | None = None
    _layout: Layout | None = None

    def __init__(
        self,
        rate: Rate | None = None,
        *,
        keep_prob: float | None = None,
        rows_per_mask: RowsPerMask = 1,
        exact_count: bool = False,
        shared_axes: Axes = (),
        noise_shape: Sequence[int | None] | None = None,
        scale_at: ScaleAt = "train",
        rng: RandomSource = None,
    ) -> None:
        super().__init__(rate, keep_prob, rng)
        self.rows_per_mask = rows_per_mask
        self.exact_count = exact_count
        self.shared_axes = shared_axes
        if noise_shape is not None:
            if shared_axes != ():
                raise TypeError("give at most one of shared_axes and noise_shape, got both")
            self.shared_axes = noise_axes(noise_shape)
            self._noise_shape = tuple(noise_shape)
        self.scale_at = scale_at

    def _set_keep_prob(self, keep_prob: float) -> None:
        super()._set_keep_prob(keep_prob)
        self._layout = None

    @property
    def rows_per_mask(self) -> RowsPerMask:
        """int or "batch": how many consecutive examples share one mask."""
        return self._rows_per_mask

    @rows_per_mask.setter
    def rows_per_mask(self, rows_per_mask: RowsPerMask) -> None:
        self._rows_per_mask = mask_plan((1, 1), (), rows_per_mask).rows_per_mask
        self._layout = None

    @property
    def exact_count(self) -> bool:
        """bool: whether every mask keeps the same number of units."""
        return self._exact_count

    @exact_count.setter
    def exact_count(self, exact_count: bool) -> None:
        if not isinstance(exact_count, bool | numpy.bool_):
            raise TypeError(f"exact_count must be True or False, got {exact_count!r}")
        self._exact_count = bool(exact_count)
        self._layout = None

    @property
    def shared_axes(self) -> Any:
        """tuple of int: axes along which one mask is shared."""
        return self._shared_axes

    @shared_axes.setter
    def shared_axes(self, shared_axes: Axes) -> None:
        axes = shared_axes if isinstance(shared_axes, tuple | list) else (shared_axes,)
        self._shared_axes = tuple(integer(axis, "shared_axes") for axis in axes)
        self._noise_shape = self._layout = None

    @property
    def scale_at(self) -> ScaleAt:
        """str: "train" or "test"."""
        return self._scale_at

    @scale_at.setter
    def scale_at(self, scale_at: ScaleAt) -> None:
        if not is_one_of(scale_at, ("train", "test")):
            raise ValueError(f'scale_at must be "train" or "test", got {scale_at!r}')
        self._scale_at = scale_at

    def settings(self) -> dict[str, Any]:
        """Return the arguments by name."""
        return {
            "keep_prob": self._chosen_keep_prob(),
            "rows_per_mask": self._rows_per_mask,
            "exact_count": self._exact_count,
            "shared_axes": list(self._shared_axes),
            "scale_at": self._scale_at,
        }

    def layout(self, shape: Shape) -> Layout:
        """The `Layout` of masks for arrays of a shape."""
        layout = self._layout
        if layout is None or layout.shape != shape:
            if self._noise_shape is not None:
                noise_axes(self._noise_shape, shape)
            layout = self._layout = Layout(
                shape, self.shared_axes, self.rows_per_mask, self.keep_prob, self.exact_count
            )
        return layout

    def test_scale(self, shape: Shape) -> float:
        """The factor on everything at test time, a float."""
        return self.layout(shape).test_scale if self.scale_at == "test" else 1.0

    def draw(self, shape: Shape, rows: Rows | None = None) -> Signal:
        """Draw the next mask for an array of a shape (batch, ..., units).

        Parameters
        ----------
        shape : tuple of int
        rows : tuple of int, optional
            (first, total): the array's rows are rows ``first``, ``first + 1``, ... of a batch of
            ``total``, and get their part of that batch's mask.

        Returns
        -------
        Signal
            What the mask says of the array, which is still to come.
        """
        layout = self.layout(shape)
        signal = Signal(shape[:-1], shape[-1])
        if self._threshold == 1 << 64:
            take_position(self.stream)
        elif rows is not None and not (layout.unit and self._rows_per_mask == "batch"):
            self._draw_window(signal, shape, rows)
        elif layout.direct:
            self._draw_bits(signal, layout)
        else:
            drawn = self.stream.draw(shape, **self._options())
            signal.mask, signal.any_kept = row_and_any_kept(drawn, shape)
        if rows is not None and self._exact_count:  # what is counted may lie along the batch
            layout = self.layout((rows[1], *shape[1:]))
        signal.scale = layout.scale if self._scale_at == "train" or not layout.scale else 1.0
        return signal

    def _draw_window(self, signal: Signal, shape: Shape, rows: Rows) -> None:
        kept, mask, any_kept = draw_units(self.stream, shape, rows, self._options())
        if kept is not None:
            signal.kept_units, signal.kept = kept, bit_count(kept)
        signal.mask, signal.any_kept = mask, any_kept

    def _draw_bits(self, signal: Signal, layout: Layout) -> None:
        """Draw a mask whose bits are those of rows of a matrix."""
        bits = numpy.empty(layout.nbytes, numpy.uint8)
        own = layout.plan.shape
        if layout.kept is None:
            limit, starts = self._threshold, layout.starts
            draw_with(self.stream, kernels.draw_bernoulli, limit, own, starts, own, bits)
        else:
            lines = layout.plan.shape[: layout.row_axis + 1]
            starts = layout.starts[: len(lines)]
            draw_with(
                self.stream, kernels.draw_exact_count, layout.kept, lines, starts, lines, bits
            )
        if layout.unit:
            signal.kept_units = signal.any_kept = bits
            signal.kept = bit_count(bits) if layout.kept is None else layout.kept
            return
        batch = layout.shape[0]
        rows = 1 if self._rows_per_mask == "batch" else min(self._rows_per_mask, max(batch, 1))
        groups, width = math.prod(own[:-1]), signal.units
        signal.mask = RowMask(bits, rows, groups, width, layout.scale, self._keep_prob)
        signal.any_kept = any_kept_units(signal.mask)

    def _options(self) -> dict[str, Any]:
        """Arguments of `MaskStream.draw`."""
        return {
            "keep_prob": self.keep_prob,
            "shared_axes": self.shared_axes,
            "rows_per_mask": self.rows_per_mask,
            "exact_count": self.exact_count,
        }

    def _drop(self, x: Array, training: bool, out: Array) -> Any:
        if self._noise_shape is not None:
            noise_axes(self._noise_shape, x.shape)
        if training and self._rows is not None:  # a derived class with passes of its own
            mask = draw_rows(self.stream, x.shape, self._rows, **self._options())
            mask = trained(mask, self._scale_at)
            apply_mask(x, mask, out=out)
            return mask
        return dropout(
            x,
            keep_prob=self.keep_prob,
            rng=self.stream,
            shared_axes=self.shared_axes,
            rows_per_mask=self.rows_per_mask,
            exact_count=self.exact_count,
            training=training,
            scale_at=self.scale_at,
            out=out,
        )[1]

    def __repr__(self) -> str:
        shared = f", shared_axes={self.shared_axes}" if self.shared_axes else ""
        return (
            f"Dropout({self._chosen_rate()}, rows_per_mask={self.rows_per_mask!r}, "
            f"exact_count={self.exact_count}{shared}, scale_at={self.scale_at!r})"
        )
