"""fastdrop.torch against torch: single passes, attention, transformer blocks, perceptrons.

All contenders are torch programs that differ in their dropout only; without torch there are no
cases. The sizes of models are (samples, heads, tokens, features of a head) for attention, (samples,
tokens, width) for blocks and layers, and (samples, units of every layer) for perceptrons.
"""

import contextlib
import functools
import importlib.util
import itertools
import math

from . import verify
from .cases import Bar, Case, Contender, Skipped

__all__ = ["CASES"]

OWN, TORCH, NONE = "fastdrop", "torch", "torch, no dropout"
DIGITS = {"float32": 1e-6, "bfloat16": 0.01}


def _tensors(size, dtype):
    import torch

    torch.manual_seed(0)
    return [torch.randn(size, dtype=getattr(torch, dtype)) for _ in range(2)]


def _passes(size, dtype, p):
    """Forward and backward of one tensor."""
    import torch

    import fastdrop.torch

    x, grad = _tensors(size, dtype)
    x.requires_grad_()

    def contender(name, module, calls):
        def run():
            x.grad = None
            module.dropout(x, p).backward(grad)
            return x.grad

        def check(result):
            dropped = (result == 0).double().mean().item()
            near = abs(dropped - p) < 5 * (p * (1 - p) / size) ** 0.5
            verify.require(near, f"{dropped} of the gradient is 0")
            kept = result != 0
            close = torch.allclose(
                result[kept].double(), grad[kept].double() / (1 - p), rtol=DIGITS[dtype]
            )
            verify.require(close, "kept values are not scaled")

        return Contender(name, run, check, calls)

    return [
        contender(OWN, fastdrop.torch, "fastdrop.torch.dropout"),
        contender(TORCH, torch.nn.functional, "torch.nn.functional.dropout"),
    ]


def _saved(size):
    """Bytes kept for the backward pass."""
    import torch

    import fastdrop.torch

    x = _tensors(size, "float32")[0].requires_grad_()

    def contender(name, module, calls):
        def run():
            sizes = []
            with torch.autograd.graph.saved_tensors_hooks(
                lambda saved: sizes.append(saved.nbytes), lambda _: None
            ):
                module.dropout(x, 0.5)
            return sum(sizes)

        return Contender(name, run, lambda result: verify.require(result > 0, "nothing"), calls)

    return [
        contender(OWN, fastdrop.torch, "fastdrop.torch.dropout"),
        contender(TORCH, torch.nn.functional, "torch.nn.functional.dropout"),
    ]


def _attention(size, p=0.1):
    """Forward and backward of scaled_dot_product_attention alone."""
    import torch

    import fastdrop.torch

    torch.manual_seed(0)
    q, k, v = (torch.randn(size).requires_grad_() for _ in range(3))
    grad = torch.randn(size)
    with torch.no_grad():
        undropped = torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def contender(name, p, calls):
        def run():
            q.grad = k.grad = v.grad = None
            with fastdrop.torch.patched() if name == OWN else contextlib.nullcontext():
                y = torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p)
                y.backward(grad)
            return y, q.grad, k.grad, v.grad

        def check(result):
            y, *grads = result
            finite = all(one.isfinite().all() for one in (y, *grads))
            verify.require(finite, "the output or a gradient is not finite")
            # Each output is a mean of `length` values; what dropout adds has mean 0.
            added = y.detach() - undropped
            size = (added.square().mean() / undropped.square().mean()).sqrt().item()
            expected = (p / (1 - p)) ** 0.5
            verify.require(abs(size - expected) < 0.05, f"dropout adds {size}, not {expected}")
            mean = added.mean().item() / max(added.std().item(), 1e-30)
            verify.require(abs(mean) < 0.05 or p == 0, f"dropout adds a mean of {mean}")

        return Contender(name, run, check, calls)

    theirs = "torch.nn.functional.scaled_dot_product_attention"
    return [
        contender(OWN, p, "fastdrop.torch.patched"),
        contender(TORCH, p, theirs),
        contender(NONE, 0.0, theirs),
    ]


@functools.cache
def _no_compiler():
    """Why torch.compile does not work here, as without a C++ compiler; None if it does."""
    import torch

    try:
        torch.compile(torch.sin)(torch.ones(8))
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line]
        return f"torch.compile fails: {lines[0] if lines else type(error).__name__}"
    return None


def _blocks(width, p):
    """Two pre-norm transformer blocks with four dropouts each."""
    import torch
    from torch import nn

    heads = math.gcd(width, 8)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.drops = nn.ModuleList(nn.Dropout(p) for _ in range(3))

        def forward(self, x):
            batch, length, _ = x.shape
            qkv = self.qkv(self.norms[0](x)).reshape(batch, length, 3, heads, width // heads)
            y = torch.nn.functional.scaled_dot_product_attention(
                *qkv.permute(2, 0, 3, 1, 4).unbind(0), dropout_p=p
            )
            x = x + self.drops[0](self.out(y.transpose(1, 2).reshape(x.shape)))
            y = self.drops[1](torch.nn.functional.gelu(self.wide(self.norms[1](x))))
            return x + self.drops[2](self.narrow(y))

    return nn.Sequential(Block(), Block())


def _layer(width, p):
    from torch import nn

    return nn.TransformerEncoderLayer(width, math.gcd(width, 8), 4 * width, p, batch_first=True)


def _steps(size, make, compiled=False):
    """A step, forward and backward, of a model."""
    import torch

    import fastdrop.torch

    if compiled:
        if reason := _no_compiler():
            return [Skipped(name, reason) for name in (OWN, TORCH, NONE)]
        torch.compiler.reset()  # drops graphs made for another number of threads
    x, grad = torch.randn(size), torch.randn(size)

    def contender(name, p, calls):
        torch.manual_seed(0)
        model = make(size[-1], p)
        if name == OWN:
            fastdrop.torch.replace_dropout(model)
        function = torch.compile(model) if compiled else model

        def step():
            model.zero_grad()
            function(x).backward(grad)
            return [parameter.grad for parameter in model.parameters()]

        def run():
            if name != OWN:
                return step()
            with fastdrop.torch.patched():
                return step()

        def check(gradients):
            finite = all(gradient.isfinite().all() for gradient in gradients)
            verify.require(finite, "a gradient is not finite")
            moving = not torch.equal(run()[0], gradients[0])
            verify.require(moving or p == 0, "the masks stay the same")

        return Contender(name, run, check, calls)

    # What a compiled model calls is in its graph, where no test can count it.
    theirs = "scaled_dot_product_attention"
    theirs = "torch.Tensor.backward" if compiled else f"torch.nn.functional.{theirs}"
    return [
        contender(OWN, 0.1, "fastdrop.torch.patched"),
        contender(TORCH, 0.1, theirs),
        contender(NONE, 0.0, theirs),
    ]


def _perceptron(size, rows_per_mask):
    """A whole step of SGD."""
    import torch
    from torch import nn

    import fastdrop.torch

    batch, *units, classes = size
    x, target = torch.randn(batch, units[0]), torch.randint(0, classes, (batch,))

    def contender(name, hidden, calls):
        torch.manual_seed(0)
        layers = [layer for pair in itertools.pairwise(units) for layer in hidden(*pair)]
        model = nn.Sequential(*layers, nn.Linear(units[-1], classes))
        optimiser = torch.optim.SGD(model.parameters(), 0.01)

        def run():
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), target)
            loss.backward()
            optimiser.step()
            return loss.item()

        def check(loss):
            verify.require(0 < loss < 10, f"the loss is {loss}")
            verify.require(min(run() for _ in range(40)) < loss, "the loss does not fall")

        return Contender(name, run, check, calls)

    def own(*size):
        return [fastdrop.torch.LinearDropout(*size, 0.5, rows_per_mask=rows_per_mask)]

    def linear(*size):
        return [nn.Linear(*size), nn.ReLU(), nn.Dropout(0.5)]

    def plain(*size):
        return [nn.Linear(*size), nn.ReLU()]

    return [
        contender(OWN, own, "fastdrop.torch.LinearDropout.forward"),
        contender(TORCH, linear, "torch.nn.functional.dropout"),
        contender(NONE, plain, "torch.nn.functional.cross_entropy"),
    ]


def _dropout_case(size, dtype, p, times):
    return Case(
        f"{dtype}/{p}",
        size,
        lambda size: _passes(size, dtype, p),
        "fastdrop.torch.dropout",
        [Bar(TORCH, times_faster=times)],
        usual_threads=(1,),
        extended=size <= 1024,
    )


def _model_case(work, size, build, calls, bars, **more):
    return Case(work, size, build, calls, bars, reducible=False, **more)


def _cases():
    patched, layer = "fastdrop.torch.patched", "fastdrop.torch.LinearDropout.forward"
    million, tokens, units = 1 << 20, (16, 128, 512), (128, 784, 1024, 1024, 10)
    return [
        *(_dropout_case(million, "float32", p, 8) for p in (0.1, 0.5)),
        *(_dropout_case(million, "bfloat16", p, 6) for p in (0.1, 0.5)),
        *(_dropout_case(1024, dtype, 0.1, 1) for dtype in DIGITS),
        Case(
            "saved",
            million,
            _saved,
            "fastdrop.torch.dropout",
            [Bar(TORCH, at_most=1 / 8)],
            unit="bytes",
        ),
        _model_case(
            "attention", (16, 8, 128, 64), _attention, patched, [Bar(TORCH, times_faster=1)]
        ),
        _model_case(
            "blocks",
            tokens,
            lambda size: _steps(size, _blocks),
            patched,
            [Bar(TORCH, times_faster=1.2), Bar(NONE, at_most=1.04)],
            slow=True,
        ),
        _model_case(
            "encoder-layer",
            tokens,
            lambda size: _steps(size, _layer),
            patched,
            [Bar(TORCH, times_faster=1.25)],
            extended=True,
        ),
        _model_case(
            "encoder-layer-compiled",
            tokens,
            lambda size: _steps(size, _layer, compiled=True),
            patched,
            [Bar(TORCH, times_faster=1)],
            extended=True,
        ),
        _model_case(
            "perceptron/batch",
            units,
            lambda size: _perceptron(size, "batch"),
            layer,
            [Bar(TORCH, times_faster=2)],
        ),
        _model_case(
            "perceptron/32",
            units,
            lambda size: _perceptron(size, 32),
            layer,
            [Bar(TORCH, times_faster=1.4)],
        ),
    ]


CASES = _cases() if importlib.util.find_spec("torch") else []
