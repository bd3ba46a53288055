"""The kinds of dropout in torch: what it offers, or what its users write."""

import numpy

from .. import verify
from ..cases import Contender, needs

__all__ = ["alpha", "dropblock", "dropconnect", "residual", "softmax"]


@needs("torch", "torch F.alpha_dropout")
def alpha(x, rate):
    """The function that torch's layer calls."""
    import torch
    import torch.nn.functional as F

    tensor = torch.from_numpy(x)
    return Contender(
        "torch F.alpha_dropout",
        run=lambda: F.alpha_dropout(tensor, rate, training=True),
        check=lambda y: _same_moments(y.numpy(), x),
        calls="torch.nn.functional.alpha_dropout",
    )


@needs("torch", "torch, as torchvision's drop_block2d")
def dropblock(x, rate, block):
    """The steps of torchvision's function, in torch's own."""
    import torch

    tensor = torch.from_numpy(x)
    n, c, h, w = x.shape
    gamma = rate * h * w / (block**2 * (h - block + 1) * (w - block + 1))

    def run():
        seeds = torch.empty(n, c, h - block + 1, w - block + 1).bernoulli_(gamma)
        padded = torch.nn.functional.pad(seeds, [block // 2] * 4)
        kept = 1 - torch.nn.functional.max_pool2d(padded, block, 1, block // 2)
        return tensor * kept * (kept.numel() / (kept.sum() + 1e-6))

    def check(y):
        verify.require(abs(y.numpy().mean() - x.mean()) < 20 / x.size**0.5, "the mean has changed")

    return Contender(
        "torch, as torchvision's drop_block2d", run, check, "torch.nn.functional.max_pool2d"
    )


@needs("torch", "torch residual + F.dropout(x + bias)")
def residual(x, bias, other, grad, rate):
    """What a transformer's layer does, with its gradients by the operators that autograd calls."""
    import torch

    x, bias, other, grad = map(torch.from_numpy, (x, bias, other, grad))

    def run():
        dropped, mask = torch.native_dropout(x + bias, rate, True)
        y = other + dropped
        grad_x = torch.ops.aten.native_dropout_backward(grad, mask, 1 / (1 - rate))
        return y, grad_x, grad_x.sum(0)

    def check(result):
        y, grad_x, sums = (one.numpy() for one in result)
        _is_share((y == other.numpy()).mean(), rate, y)
        verify.require(numpy.allclose(sums, grad_x.sum(0), rtol=1e-3, atol=1e-2), "wrong sums")

    return Contender("torch residual + F.dropout(x + bias)", run, check, "torch.native_dropout")


@needs("torch", "torch softmax, dropout")
def softmax(x, grad, rate):
    """The two operators and their gradients, as autograd calls them."""
    import torch

    x, grad = map(torch.from_numpy, (x, grad))

    def run():
        p = torch.softmax(x, -1)
        y, mask = torch.native_dropout(p, rate, True)
        inner = torch.ops.aten.native_dropout_backward(grad, mask, 1 / (1 - rate))
        return y, torch.ops.aten._softmax_backward_data(inner, p, -1, torch.float32)

    def check(result):
        y = result[0].numpy()
        _is_share((y == 0).mean(), rate, y)
        verify.require(
            float(result[1].sum(-1).abs().max()) < 1e-2, "a row of gradients is not 0 in sum"
        )

    return Contender("torch softmax, dropout", run, check, "torch.native_dropout")


@needs("torch", "torch F.linear(x, F.dropout(w))")
def dropconnect(x, w, rate):
    """What its users write, with weights as torch stores them."""
    import torch
    import torch.nn.functional as F

    exact = x.astype(float) @ w
    x, w = torch.from_numpy(x), torch.from_numpy(w).T.contiguous()

    def check(y):
        verify.require(abs(y.numpy() - exact).std() > 0.1 * exact.std(), "nothing was dropped")
        slope = (y.numpy() * exact).mean() / (exact * exact).mean()
        verify.require(abs(slope - 1) < 0.1, "the mean has changed")

    return Contender(
        "torch F.linear(x, F.dropout(w))",
        lambda: F.linear(x, F.dropout(w, rate, training=True)),
        check,
        "torch.nn.functional.linear",
    )


def _is_share(dropped, rate, y):
    verify.require(numpy.isfinite(y).all(), "not all is finite")
    verify.require(abs(dropped - rate) < 3 / y.size**0.5, "another share is dropped")


def _same_moments(y, x):
    """Within 8 sigma of either, which are those of normal numbers."""
    limit = 8 / x.size**0.5
    verify.require(abs(y.mean() - x.mean()) < limit, "the mean has changed")
    verify.require(abs(y.var() - x.var()) < 2 * limit, "the variance has changed")
