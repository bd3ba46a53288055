"""The family of dropouts: one file per kind, each with its forward and backward pass as functions.

Every kind takes ``rate`` or ``keep_prob`` and ``rng`` as `fastdrop.dropout` does, takes one draw of
the stream in training and none outside, and returns ``(y, mask)``. With ``mask=`` it uses that mask
and draws none. Where the gradient is the output's under the mask, times ``mask.scale``,
`fastdrop.dropout_backward` computes it, that of noise `noise_backward`; other kinds have a backward
function of their own beside them. The names are those of `fastdrop`; layers are in `fastdrop.nn`.
"""

from fastdrop.dropouts.alpha import alpha_dropout, feature_alpha_dropout
from fastdrop.dropouts.attention import softmax_dropout, softmax_dropout_backward
from fastdrop.dropouts.blocks import dropblock1d, dropblock2d, dropblock3d, dropblock_backward
from fastdrop.dropouts.channels import dropout1d, dropout2d, dropout3d
from fastdrop.dropouts.depth import stochastic_depth
from fastdrop.dropouts.dropconnect import (
    dropconnect,
    dropconnect_backward,
    dropconnect_inference,
    dropconnect_moments,
)
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
from fastdrop.dropouts.residual import bias_dropout_residual, bias_dropout_residual_backward
from fastdrop.dropouts.variational import variational_dropout
from fastdrop.dropouts.zoneout import zoneout, zoneout_backward

__all__ = [
    "alpha_dropout",
    "apply_noise",
    "bias_dropout_residual",
    "bias_dropout_residual_backward",
    "concrete_dropout",
    "concrete_dropout_backward",
    "dropblock1d",
    "dropblock2d",
    "dropblock3d",
    "dropblock_backward",
    "dropconnect",
    "dropconnect_backward",
    "dropconnect_inference",
    "dropconnect_moments",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "gaussian_dropout",
    "gaussian_noise",
    "noise_backward",
    "softmax_dropout",
    "softmax_dropout_backward",
    "standout",
    "standout_backward",
    "stochastic_depth",
    "uniform_dropout",
    "variational_dropout",
    "zoneout",
    "zoneout_backward",
]
