"""torch on the CPU, eager and compiled: dropout, products, updates, steps, Monte Carlo passes.

``torch.compile`` compiles for the number of threads that it finds, and again when that changes.
"""

import functools
import itertools

import numpy

from .. import verify
from ..cases import Contender, needs
from ..environment import torch_generator
from ..work import update as update_work
from ..work.estimators import PASSES, RATE, SAMPLES, check_moments
from ..work.matmul import check_product
from ..work.step import LEARNING_RATE, MOMENTUM

__all__ = [
    "compiled_dropout",
    "dropout_backward",
    "feature_dropout",
    "forward",
    "functional_dropout",
    "moments",
    "native_dropout",
    "samples",
    "step",
    "training_step",
    "update",
]


# --- Dropout -----------------------------------------------------------------------------------


@needs("torch", "torch F.dropout")
def functional_dropout(x, rate):
    """The function that torch's layer calls."""
    import torch
    import torch.nn.functional as F

    tensor = torch.from_numpy(x)
    return Contender(
        "torch F.dropout",
        run=lambda: F.dropout(tensor, rate, training=True),
        check=lambda result: verify.check_rival(result.numpy(), x, 1 - rate),
        calls="torch.nn.functional.dropout",
        note=f"draws with {torch_generator()}",
    )


@needs("torch", "torch native_dropout")
def native_dropout(x, rate):
    """The operator that keeps the byte mask for backward."""
    import torch

    tensor = torch.from_numpy(x)
    return Contender(
        "torch native_dropout",
        run=lambda: torch.native_dropout(tensor, rate, True),
        check=lambda result: verify.check_rival(result[0].numpy(), x, 1 - rate),
        calls="torch.native_dropout",
        note=f"draws with {torch_generator()}",
    )


@needs("torch", "torch F.dropout, compiled")
def compiled_dropout(x, rate):
    """The same function through `torch.compile`, which draws with a generator of its own."""
    import torch

    tensor = torch.from_numpy(x)
    compiled = torch.compile(_dropped, dynamic=False)

    def check(result):
        verify.check_rival(result.numpy(), x, 1 - rate)

    return Contender(
        "torch F.dropout, compiled",
        lambda: compiled(tensor, rate),
        check,
        "bench.rivals.torch.compiled",
        compiles=True,
    )


def _dropped(x, rate):
    import torch

    return torch.nn.functional.dropout(x, rate, training=True)


@needs("torch", "torch F.dropout2d")
def feature_dropout(x, rate):
    """Drop whole channels of an N x C x H x W array."""
    import torch
    import torch.nn.functional as F

    tensor = torch.from_numpy(x)
    return Contender(
        "torch F.dropout2d",
        run=lambda: F.dropout2d(tensor, rate, training=True),
        check=lambda result: verify.check_rival(result.numpy(), x, 1 - rate, shared_axes=(2, 3)),
        calls="torch.nn.functional.dropout2d",
    )


@needs("torch", "torch native_dropout_backward")
def dropout_backward(x, kept, scale, check):
    """The operator for the gradient, with the byte mask that the other one kept."""
    import torch

    grad, mask, factor = torch.from_numpy(x), torch.from_numpy(kept), float(scale)
    return Contender(
        "torch native_dropout_backward",
        run=lambda: torch.ops.aten.native_dropout_backward(grad, mask, factor),
        check=lambda result: check(result.numpy()),
        calls="torch.ops.aten.native_dropout_backward",
    )


# --- Products ----------------------------------------------------------------------------------


@needs("torch", "torch F.linear(F.dropout(x))")
def forward(work, rate):
    """Draw a mask of its own, apply it, multiply everything."""
    import torch
    import torch.nn.functional as F

    x, w = torch.from_numpy(work.x), torch.from_numpy(work.w.T.copy())

    def run():
        dropped = F.dropout(x, rate, training=True)
        return F.linear(dropped, w), dropped

    def check(result):
        y, dropped = (tensor.numpy() for tensor in result)
        _check_torch_mask(dropped, work.x, rate)
        check_product(y, dropped.astype(float), work.w.astype(float), 0)

    return Contender(
        "torch F.linear(F.dropout(x))",
        run,
        check,
        calls="torch.nn.functional.linear",
        note=f"draws its mask, with {torch_generator()}",
    )


def _check_torch_mask(dropped, x, rate):
    """Require that an array is another with dropout, which may have had zeros of its own."""
    present = x != 0
    verify.require(not dropped[~present].any(), "a zero did not stay zero")
    verify.check_rival(dropped[present], x[present], 1 - rate)


@needs("torch", "torch F.linear(F.dropout(x)), autograd")
def step(work, rate):
    """Draw a mask of its own, multiply everything, and let autograd go back."""
    import torch
    import torch.nn.functional as F

    x, w = torch.from_numpy(work.x.copy()), torch.from_numpy(work.w.T.copy())
    grad_y = torch.from_numpy(work.dropped_grad)
    x.requires_grad_()
    w.requires_grad_()

    def run():
        dropped = F.dropout(x, rate, training=True)
        y = F.linear(dropped, w)
        return y.detach(), *torch.autograd.grad(y, (x, w), grad_y), dropped.detach()

    def check(result):
        y, grad_x, grad_w, dropped = (tensor.numpy() for tensor in result)
        _check_torch_mask(dropped, work.x, rate)
        a, wide, g = (array.astype(float) for array in (dropped, work.w, work.dropped_grad))
        check_product(y, a, wide, 0)
        check_product(grad_w.T, a.T, g, 0)
        kept = (dropped != 0) & (work.x != 0)
        found = numpy.where(kept, grad_x, numpy.float32(0))
        check_product(found, g, wide.T / (1 - rate), 2, kept)

    return Contender(
        "torch F.linear(F.dropout(x)), autograd",
        run,
        check,
        calls="torch.nn.functional.linear",
        note=f"drops x alone, and draws that mask, with {torch_generator()}",
    )


# --- Updates ------------------------------------------------------------------------------------


@needs("torch", "torch, fused")
def update(size, rule):
    """One step of torch's fused optimiser, which updates everything."""
    import torch

    w, g = (torch.from_numpy(array) for array in update_work.arrays(size))
    w.requires_grad_(True)
    w.grad = g
    if rule == "adam":
        opt = torch.optim.Adam(
            [w],
            update_work.RATE,
            (update_work.BETA1, update_work.BETA2),
            update_work.EPSILON,
            fused=True,
        )
    else:
        opt = torch.optim.SGD([w], update_work.RATE, momentum=update_work.MOMENTUM, fused=True)
    steps = 0

    def run():
        nonlocal steps
        steps += 1
        opt.step()
        return w.detach()

    def check(result):
        now = w.detach().numpy()
        verify.require(numpy.array_equal(result.numpy(), now), "the result is not the weights")
        before = now.copy()
        state = opt.state[w]
        names = ("exp_avg", "exp_avg_sq") if rule == "adam" else ("momentum_buffer",)
        moments = [state[name].numpy().astype(float) for name in names]
        run()
        expected = before - update_work.step(rule, g.numpy().astype(float), moments, steps)
        close = numpy.allclose(now, expected, rtol=1e-5, atol=1e-6)
        verify.require(close, "the weights did not make the step")

    calls = f"torch.optim.{update_work.OPTIMISERS[rule]}.step"
    return Contender("torch, fused", run, check, calls, note="everything is updated")


# --- A whole training step ---------------------------------------------------------------------


def training_step(work, optimiser, rate, implementation="fused", compiled=False, name=None):
    """Return torch's step: eager, or with the network and the loss compiled.

    Parameters
    ----------
    work : work.step.Work
    optimiser : {"SGD", "Adam"}
    rate : float
        0 leaves the dropout layers out.
    implementation : {"foreach", "fused"}
        Of the optimiser.
    compiled : bool
    name : str, optional
        Made of the others if not given.
    """
    if name is None:
        name = "torch" if rate else "torch without dropout"
        name += f", {'compiled' if compiled else implementation}"
    return needs("torch", name)(_training_step)(
        work, optimiser, rate, implementation, compiled, name
    )


def _training_step(work, optimiser, rate, implementation, compiled, name):
    import torch

    layers = []
    for units_in, units_out in itertools.pairwise(work.units[:-1]):
        layers += [torch.nn.Linear(units_in, units_out), torch.nn.ReLU()]
        if rate:
            layers.append(torch.nn.Dropout(rate))
    net = torch.nn.Sequential(*layers, torch.nn.Linear(*work.units[-2:]))
    options = {"momentum": MOMENTUM} if optimiser == "SGD" else {}
    make = getattr(torch.optim, optimiser)
    opt = make(net.parameters(), lr=LEARNING_RATE, **options, **{implementation: True})
    loss = torch.nn.CrossEntropyLoss()
    x, labels = torch.from_numpy(work.x), torch.from_numpy(work.labels)

    def evaluate(x, labels):
        return loss(net(x), labels)

    if compiled:
        evaluate = torch.compile(evaluate, dynamic=False)

    def run():
        opt.zero_grad()
        value = evaluate(x, labels)
        value.backward()
        opt.step()
        return value.item()

    note = f"draws with {torch_generator()}" if rate and not compiled else ""
    calls = f"torch.optim.{optimiser}.step"
    return Contender(name, run, work.check_value, calls, note=note, compiles=compiled)


# --- Monte Carlo passes ------------------------------------------------------------------------

SAMPLED = ("torch", "torch, first layer once", "torch, unit masks", "torch, compiled")


def samples(work):
    """Return torch's contenders: in train mode, and with what a careful user may do beyond it.

    The layer in front of all dropout can be computed once, and a mask be drawn for all rows.
    """
    return [needs("torch", name)(_samples)(work, name) for name in SAMPLED]


def _samples(work, name):
    import torch

    class UnitDropout(torch.nn.Module):
        def forward(self, x):
            units = torch.nn.functional.dropout(x.new_ones(1, x.shape[1]), RATE)
            return x * units

    model = work.trained
    dropout = functools.partial(torch.nn.Dropout, RATE)
    if name in ("torch, unit masks", "torch, compiled"):
        dropout = UnitDropout
    layers = []
    for weight, bias in zip(model.coefs_, model.intercepts_, strict=True):
        linear = torch.nn.Linear(*weight.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight.T))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.ReLU(), dropout()]
    whole = torch.nn.Sequential(*layers[:-2]).train()
    x = torch.from_numpy(work.x)
    # With inputs that are computed once, what is called for each pass begins with their dropout.
    later = whole if name == "torch" else whole[2:]
    guard = torch.inference_mode

    def evaluate(inputs):
        return torch.nn.Sequential.forward(later, inputs)

    if name == "torch, compiled":
        evaluate, guard = torch.compile(later, dynamic=False), torch.no_grad

    def run():
        found = torch.empty(PASSES, work.examples, work.classes)
        with guard():
            inputs = x if name == "torch" else torch.nn.Sequential.forward(whole[:2], x)
            for number in range(PASSES):
                found[number] = evaluate(inputs).softmax(dim=1)
        return found

    return Contender(
        name,
        run,
        lambda found: work.check_samples(found.numpy()),
        calls="torch.nn.Sequential.forward",
        note=f"{PASSES} passes; draws with {torch_generator()}",
        compiles=name == "torch, compiled",
    )


@needs("torch", "torch")
def moments(work):
    """Mean and deviation of a prediction, samples stacked as rows by hand."""
    import torch

    model = work.regressor
    (first, bias), *others = (
        (torch.from_numpy(weight.T.copy()), torch.from_numpy(shift))
        for weight, shift in zip(model.coefs_, model.intercepts_, strict=True)
    )
    x = torch.from_numpy(work.x)
    functional = torch.nn.functional

    def run():
        with torch.inference_mode():
            h = functional.relu(functional.linear(x, first, bias))[None]
            for number, (weight, shift) in enumerate(others):
                h = h * functional.dropout(h.new_ones(SAMPLES, 1, h.shape[2]), RATE)
                h = functional.linear(h, weight, shift)
                if number + 1 < len(others):
                    h = functional.relu(h)
            return h.mean(dim=0), h.std(dim=0)

    return Contender(
        "torch",
        run,
        lambda moments: check_moments(work, [one.numpy() for one in moments]),
        calls="torch.nn.functional.linear",
        note=f"samples stacked by hand; draws with {torch_generator()}",
    )
