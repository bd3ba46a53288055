"""The layer of dropout over time."""

from typing import Any

from fastdrop.arguments import integer
from fastdrop.dropouts import variational_dropout
from fastdrop.nn.random import FunctionLayer, one_of
from fastdrop.nn.types import Rate
from fastdrop.stream import RandomSource
from fastdrop.types import ScaleAt, Shape

__all__ = ["VariationalDropout"]


class VariationalDropout(FunctionLayer):
    """Drop units of sequences, the same ones at all steps; see `fastdrop.variational_dropout`.

    Parameters
    ----------
    rate, keep_prob : float
        Probability that a unit is dropped, or kept; exactly one of the two. Can be set later.
    time_axis, exact_count, scale_at : optional
        As for `fastdrop.variational_dropout`.
    rng : optional
        As for `fastdrop.dropout`. By default the network decides.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.VariationalDropout(0.5, rng=0)
    >>> layer.forward(numpy.ones((1, 2, 4)), training=True)
    array([[[2., 2., 0., 0.],
            [2., 2., 0., 0.]]])
    """

    _sealed = True
    _function = staticmethod(variational_dropout)

    def __init__(
        self,
        rate: Rate | None = None,
        *,
        keep_prob: float | None = None,
        time_axis: int = 1,
        exact_count: bool = False,
        scale_at: ScaleAt = "train",
        rng: RandomSource = None,
    ) -> None:
        super().__init__(rate, keep_prob, rng)
        self._options = {
            "time_axis": integer(time_axis, "time_axis"),
            "exact_count": bool(exact_count),
            "scale_at": one_of(scale_at, ("train", "test"), "scale_at"),
        }

    def _sharing(self, shape: Shape) -> dict[str, Any]:
        return {
            "shared_axes": self._options["time_axis"],
            "exact_count": self._options["exact_count"],
        }
