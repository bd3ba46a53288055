"""A Dense whose weights are dropped: their rate, their stream, their last mask."""

from typing import Any

from fastdrop.arguments import mask_plan
from fastdrop.attributes import read_only
from fastdrop.dropouts import dropconnect
from fastdrop.mask import Mask
from fastdrop.nn.layer import Layer
from fastdrop.nn.random import RateLayer
from fastdrop.nn.types import Rate, Rows
from fastdrop.nn.windows import draw_rows
from fastdrop.stream import MaskStream, RandomSource
from fastdrop.types import Array, RowsPerMask

__all__ = ["DropConnect", "DroppingWeights"]


class DropConnect(RateLayer):
    """The masks of a layer's weights.

    Parameters
    ----------
    rate : float or callable
        As for `RateLayer`.
    rows_per_mask : "batch" or int
        As for `fastdrop.dropconnect`.
    rng : optional
        As for `fastdrop.dropout`.

    Attributes
    ----------
    mask : Mask or None
        Of the last training forward.
    """

    _argument = "drop_connect"

    def __init__(self, rate: Rate, rows_per_mask: RowsPerMask, rng: RandomSource) -> None:
        super().__init__(rate, rng=rng)
        self.rows_per_mask = mask_plan((1, 1), (), rows_per_mask).rows_per_mask
        self.mask: Mask | None = None
        self._in_parts = False

    def product(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """The product of a training forward."""
        self.follow_schedule()
        every = self.rows_per_mask
        drawn: dict[str, Any]
        # Elsewhere all parts of a batch draw the same mask.
        rows = None if every == "batch" else self._rows
        self._in_parts = rows is not None
        if rows is not None:
            shape = (x.shape[0], *weight.shape)
            options = {"keep_prob": self.keep_prob, "rows_per_mask": every}
            drawn = {"mask": draw_rows(self.stream, shape, rows, **options)}
        else:
            drawn = {"keep_prob": self.keep_prob, "rng": self.stream, "rows_per_mask": every}
        y, self.mask = dropconnect(x, weight, bias=bias, **drawn)
        return y

    def any_kept(self) -> Mask | None:
        """The mask of the weights that any row has kept; None: all, or nobody knows."""
        mask = self.mask
        if mask is None or self._in_parts:
            return None
        if mask.ndim == 3:
            mask = Mask.from_array(mask.to_array().any(axis=0))
        return None if mask.count() == mask.size else mask

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, by name."""
        return {"drop_connect": self.chosen(), "rows_per_mask": self.rows_per_mask}

    def chosen(self) -> Any:
        """The rate, or a schedule in words."""
        return self.rate if self.schedule is None else self._chosen_keep_prob()

    def __repr__(self) -> str:
        every = "" if self.rows_per_mask == "batch" else f", rows_per_mask={self.rows_per_mask}"
        return f", drop_connect={self._chosen_rate()}{every}"


class DroppingWeights(Layer):
    """Base of a layer that may have a `DropConnect`: what that shows to users and networks."""

    _connect: DropConnect | None = None

    @property
    def draws_masks(self) -> bool:  # type: ignore[override]
        """bool: whether weights are dropped."""
        return self._connect is not None

    @property
    def drop_connect(self) -> Any:
        """float or None: rate at which weights are dropped; of a schedule, in the last draw."""
        return None if self._connect is None else self._connect.rate

    @drop_connect.setter
    def drop_connect(self, rate: Rate) -> None:
        if self._connect is None or rate is None:
            raise AttributeError(
                f"drop_connect of {self.name} is {self.drop_connect} and cannot be set to "
                f"{rate!r}: make a new layer, and assign its weight and bias"
            )
        self._connect.rate = rate

    @read_only("make a new layer")
    def rows_per_mask(self) -> RowsPerMask | None:
        """int, "batch" or None: rows that share a mask of the weights."""
        return None if self._connect is None else self._connect.rows_per_mask

    @property
    def stream(self) -> MaskStream:
        """MaskStream: where the masks of weights come from."""
        return self._drawing().stream

    @stream.setter
    def stream(self, stream: MaskStream) -> None:
        self._drawing().stream = stream

    def _drawing(self) -> DropConnect:
        if self._connect is None:
            raise AttributeError(f"{self.name} draws no masks: its drop_connect is None")
        return self._connect

    def offer_stream(self, stream: MaskStream) -> None:
        """Take a stream, unless the layer has been given one before."""
        self._drawing().offer_stream(stream)

    def take_rows(self, rows: Rows | None) -> None:
        """Hear which rows of a larger batch come next; see `Sequential.forward`."""
        self._drawing().take_rows(rows)

    def follow_schedule(self, drawn: bool = False) -> None:
        """Take the rate of the draw to come, of a schedule."""
        self._drawing().follow_schedule(drawn)

    def settings(self) -> dict[str, Any]:
        """Return the rate of `drop_connect` and its rows per mask, if there is one."""
        return {} if self._connect is None else self._connect.settings()
