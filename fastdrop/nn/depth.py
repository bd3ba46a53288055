"""The layer of stochastic depth."""

from typing import Any, Literal

from fastdrop.dropouts import stochastic_depth
from fastdrop.dropouts.depth import MODES
from fastdrop.nn.random import FunctionLayer, one_of
from fastdrop.nn.types import Rate
from fastdrop.stream import RandomSource
from fastdrop.types import ScaleAt, Shape

__all__ = ["StochasticDepth"]


class StochasticDepth(FunctionLayer):
    """Keep or drop whole examples of a branch's output; see `fastdrop.stochastic_depth`.

    Parameters
    ----------
    rate, keep_prob : float
        Probability that a branch is dropped, or kept; exactly one of the two. Can be set later.
    mode : "row" or "batch", optional
        Whether every example has a bit of its own, or the batch has one.
    scale_at : "train" or "test", optional
        As for `fastdrop.stochastic_depth`.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.StochasticDepth(0.5, rng=0)
    >>> layer.forward(numpy.ones((4, 2)), training=True)[:, 0]
    array([2., 2., 0., 0.])
    """

    _sealed = True
    _function = staticmethod(stochastic_depth)

    def __init__(
        self,
        rate: Rate | None = None,
        mode: Literal["row", "batch"] = "row",
        *,
        keep_prob: float | None = None,
        scale_at: ScaleAt = "train",
        rng: RandomSource = None,
    ) -> None:
        super().__init__(rate, keep_prob, rng)
        self._options = {
            "mode": one_of(mode, MODES, "mode"),
            "scale_at": one_of(scale_at, ("train", "test"), "scale_at"),
        }

    def _sharing(self, shape: Shape) -> dict[str, Any]:
        first = 0 if self._options["mode"] == "batch" else 1
        return {"shared_axes": tuple(range(first, len(shape)))}
