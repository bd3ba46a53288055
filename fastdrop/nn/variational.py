"""The layer of dropout over time."""

from fastdrop.arguments import integer
from fastdrop.dropouts import variational_dropout
from fastdrop.nn.random import FunctionLayer, one_of

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
        rate=None,
        *,
        keep_prob=None,
        time_axis=1,
        exact_count=False,
        scale_at="train",
        rng=None,
    ):
        super().__init__(rate, keep_prob, rng)
        self._options = {
            "time_axis": integer(time_axis, "time_axis"),
            "exact_count": bool(exact_count),
            "scale_at": one_of(scale_at, ("train", "test"), "scale_at"),
        }

    def _sharing(self, shape):
        return {
            "shared_axes": self._options["time_axis"],
            "exact_count": self._options["exact_count"],
        }
