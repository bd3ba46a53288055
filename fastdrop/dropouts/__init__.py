"""The family of dropouts: one file per kind, each with its forward and backward pass as functions.

Every kind takes ``rate`` or ``keep_prob`` and ``rng`` as `fastdrop.dropout` does, takes one draw of
the stream in training and none outside, and returns ``(y, mask)``. With ``mask=`` it uses that mask
and draws none. Where the gradient is the output's under the mask, times ``mask.scale``,
`fastdrop.dropout_backward` computes it, that of noise `noise_backward`; other kinds have a backward
function of their own beside them. The names are those of `fastdrop`; layers are in `fastdrop.nn`.
"""

from fastdrop.dropouts.channels import dropout1d, dropout2d, dropout3d
from fastdrop.dropouts.learned import (
    concrete_dropout,
    concrete_dropout_backward,
    standout,
    standout_backward,
)
from fastdrop.dropouts.noise import (
    apply_noise,
    gaussian_dropout,
    gaussian_noise,
    noise_backward,
    uniform_dropout,
)

__all__ = [
    "apply_noise",
    "concrete_dropout",
    "concrete_dropout_backward",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "gaussian_dropout",
    "gaussian_noise",
    "noise_backward",
    "standout",
    "standout_backward",
    "uniform_dropout",
]
