"""Layers, losses, and networks whose training step leaves out dropped units.

>>> import numpy
>>> from fastdrop import nn
>>> net = nn.Sequential([nn.Dense(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Dense(8, 2)], rng=0)
>>> net.forward(numpy.ones((3, 4))).shape
(3, 2)

A `Sequential` chains layers; every layer also works by itself.
"""

from fastdrop.nn.activations import GELU, Identity, LeakyReLU, ReLU, Sigmoid, SiLU, Tanh
from fastdrop.nn.alpha import SELU, AlphaDropout, FeatureAlphaDropout
from fastdrop.nn.attention import SoftmaxDropout
from fastdrop.nn.channels import Dropout1d, Dropout2d, Dropout3d
from fastdrop.nn.concrete import ConcreteDropout
from fastdrop.nn.dense import Dense
from fastdrop.nn.depth import StochasticDepth
from fastdrop.nn.dropblock import DropBlock1d, DropBlock2d, DropBlock3d
from fastdrop.nn.dropout import Dropout
from fastdrop.nn.elementwise import Elementwise
from fastdrop.nn.embedding import Embedding
from fastdrop.nn.layer import Layer
from fastdrop.nn.losses import (
    Loss,
    MeanSquaredError,
    PoissonDeviance,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from fastdrop.nn.noise import GaussianDropout, GaussianNoise, UniformDropout
from fastdrop.nn.normalisation import BatchNorm1d, LayerNorm
from fastdrop.nn.residual import BiasDropoutResidual
from fastdrop.nn.sequential import Sequential
from fastdrop.nn.softmax import Softmax
from fastdrop.nn.standout import StandoutDropout
from fastdrop.nn.variational import VariationalDropout
from fastdrop.parameters import Parameter

__all__ = [
    "GELU",
    "SELU",
    "AlphaDropout",
    "BatchNorm1d",
    "BiasDropoutResidual",
    "ConcreteDropout",
    "Dense",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "Elementwise",
    "Embedding",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Loss",
    "MeanSquaredError",
    "Parameter",
    "PoissonDeviance",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SigmoidCrossEntropy",
    "Softmax",
    "SoftmaxCrossEntropy",
    "SoftmaxDropout",
    "StandoutDropout",
    "StochasticDepth",
    "Tanh",
    "UniformDropout",
    "VariationalDropout",
]
