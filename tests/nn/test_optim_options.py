"""Clipping, AMSGrad, dampening, going up, averages: from their formulas, masked and not."""

import math

import numpy
import pytest
from optim_cases import DTYPES, OPTIONS, RATE, give_gradients, make, packed, parameters

import fastdrop
from fastdrop import nn
from fastdrop.optim import SGD, Adam, AdamW, RMSprop
from fastdrop.parameters import Parameter


class Formula:
    """torch's documented algorithms, dense, in float64, for one array."""

    def __init__(self, kind, w):
        self.cls, self.options = OPTIONS[kind]
        self.w = w.astype(float)
        self.u = None
        self.m = self.v = self.largest = numpy.zeros_like(self.w)
        self.t = 0

    def step(self, g, rate=RATE):
        get = self.options.get
        self.t += 1
        g = -g if get("maximize") else g
        decay = get("weight_decay", 0.0)
        if self.cls is AdamW:
            self.w = self.w * (1 - rate * decay)
        else:
            g = g + decay * self.w
        if self.cls is SGD:
            momentum = get("momentum", 0.0)
            self.u = g if self.u is None else momentum * self.u + (1 - get("dampening", 0.0)) * g
            self.w = self.w - rate * (g + momentum * self.u if get("nesterov") else self.u)
            return
        if self.cls is RMSprop:
            self.v = 0.9 * self.v + 0.1 * g**2
            before = 0.0 if self.u is None else self.u
            self.u = get("momentum", 0.0) * before + g / (numpy.sqrt(self.v) + 1e-8)
            self.w = self.w - rate * self.u
            return
        beta2 = get("beta2", 0.999)
        self.m = 0.9 * self.m + 0.1 * g
        self.v = beta2 * self.v + (1 - beta2) * g**2
        self.largest = numpy.maximum(self.largest, self.v)
        v = self.largest if get("amsgrad") else self.v
        v = v / (1 - beta2**self.t)
        self.w = self.w - rate * self.m / (1 - 0.9**self.t) / (numpy.sqrt(v) + 1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", OPTIONS)
def test_formulas(each_backend, kind, dtype):
    params = parameters(dtype)
    books = [Formula(kind, parameter.value) for parameter in params]
    opt = make(kind, params)
    for step in range(30):
        give_gradients(params, step)
        opt.step()
        for book, parameter in zip(books, params, strict=True):
            book.step(parameter.grad.astype(float))
    bound = 600 * float(numpy.finfo(dtype).eps)  # see test_optim.py
    for book, parameter in zip(books, params, strict=True):
        numpy.testing.assert_allclose(parameter.value, book.w, rtol=0, atol=bound)


# What torch 2.13 makes of the weights of `small` in six steps.
TORCH = {
    "dampening": [0.8023619420242377, -0.18136512352393686, -0.1495175281769026],
    "up": [0.9962693404122838, -0.8116874089158748, 0.6730019143301863],
    "nesterov": [0.834437710665055, 0.0015578405191023856, -0.28949690261803035],
    "amsgrad": [0.9023726371085119, -0.3471110610671322, 0.016136392687163704],
    "AdamW amsgrad": [0.8751729611982801, -0.33435769508407814, 0.012025713429834665],
}


def small():
    return Parameter("w", numpy.array([1.0, -0.5, 0.25]))


def small_gradient(step):
    return numpy.array([math.cos(step), math.sin(2 * step) - 0.5, 1 / (1 + step)])


@pytest.mark.parametrize("kind", TORCH)
def test_torchs_numbers(each_backend, kind):
    weight = small()
    opt = make(kind, [weight])
    for step in range(6):
        weight.grad = small_gradient(step)
        opt.step()
    numpy.testing.assert_allclose(weight.value, TORCH[kind], rtol=1e-13)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("side", ["rows", "columns"])
def test_a_masked_side_follows_the_formula_of_its_own_updates(each_backend, kind, side, compact):
    """Each unit's weights, seen alone: their first update, largest moment and average, too."""
    params = parameters()
    n = params[0].value.shape[0 if side == "rows" else 1]
    opt = make(kind, params, average=0.8)
    weight = params[0].value
    books = [Formula(kind, unit) for unit in (weight if side == "rows" else weight.T)]
    averages = [book.w.copy() for book in books]
    generator = numpy.random.default_rng(1)
    for step in range(60):
        kept = generator.random(n) < 0.4
        kept[0] = step >= 40  # one that comes late
        give_gradients(params, step, **{side: kept}, compact=compact)
        full = params[0].full_grad()
        opt.step()
        for unit in numpy.flatnonzero(kept):
            books[unit].step((full if side == "rows" else full.T)[unit])
            averages[unit] = 0.8 * averages[unit] + 0.2 * books[unit].w
    found = opt.state_dict()["dense0.weight.average"]
    for number, book in enumerate(books):
        own = (weight if side == "rows" else weight.T)[number]
        numpy.testing.assert_allclose(own, book.w, rtol=0, atol=1e-10)
        own = (found if side == "rows" else found.T)[number]
        numpy.testing.assert_allclose(own, averages[number], rtol=0, atol=1e-10)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("kind", OPTIONS)
def test_nothing_dropped_moves(each_backend, kind, compact):
    params = parameters(numpy.float32)
    opt = make(kind, params, average=0.5, clip_norm=2.0, clip_value=1.5)
    generator = numpy.random.default_rng(0)
    for step in range(10):
        rows, columns = generator.random(7) < 0.5, generator.random(5) < 0.5
        give_gradients(params, step, rows, columns, compact)
        before = {"value": params[0].value.copy(), **opt.state_dict()}
        opt.step()
        after = {"value": params[0].value, **opt.state_dict()}
        dropped = numpy.ones((7, 5), bool)
        dropped[numpy.ix_(rows, columns)] = False
        names = [name for name in before if numpy.shape(before[name]) == (7, 5)]
        assert "dense0.weight.average" in names
        for name in names:
            numpy.testing.assert_array_equal(after[name][dropped], before[name][dropped], name)
            assert not numpy.isnan(after[name]).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masks", ["none", "rows", "both", "compact"])
@pytest.mark.parametrize("options", [
    {"clip_norm": 1.5}, {"clip_value": 0.3}, {"clip_value": 0.3, "clip_norm": 0.5},
    {"clip_norm": 1e6}, {"clip_norm": 1.5, "maximize": True},
])  # fmt: skip
def test_clipping(each_backend, options, masks, dtype):
    """The norm is that of all gradients in full, 0 where no unit was active."""
    params = parameters(dtype)
    generator = numpy.random.default_rng(2)
    for step in range(3):
        units = {}
        if masks != "none":
            units["rows"] = generator.random(7) < 0.6
        if masks in ("both", "compact"):
            units["columns"] = generator.random(5) < 0.6
        give_gradients(params, step, **units, compact=masks == "compact")
        given = [parameter.grad.copy() for parameter in params]
        full = [parameter.full_grad().astype(float) for parameter in params]
        if "clip_value" in options:
            full = [numpy.clip(grad, -0.3, 0.3) for grad in full]
        norm = math.sqrt(sum(float((grad**2).sum()) for grad in full))
        factor = min(1.0, options.get("clip_norm", math.inf) / norm)
        if options.get("maximize"):
            factor = -factor
        expected = [
            parameter.value - RATE * factor * grad
            for parameter, grad in zip(params, full, strict=True)
        ]
        SGD(params, RATE, **options).step()
        for parameter, wanted, grad in zip(params, expected, given, strict=True):
            eps = float(numpy.finfo(dtype).eps)
            numpy.testing.assert_allclose(parameter.value, wanted, rtol=0, atol=16 * eps)
            numpy.testing.assert_array_equal(parameter.grad, grad)  # stays as it was


def test_norms_of_any_size():
    """Squares that overflow or vanish do not stop the bound."""
    for scale in (1e-30, 1e-22, 1.0, 1e19, 1e30):
        weight = Parameter("w", numpy.zeros(20000, numpy.float32))
        weight.grad = numpy.full(20000, scale, numpy.float32)
        SGD([weight], 1.0, clip_norm=scale).step()
        numpy.testing.assert_allclose(weight.value, -scale / math.sqrt(20000), rtol=2e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_changes_nothing(bad):
    params = parameters()
    opt = Adam(params, clip_norm=1.0, average=0.5)
    give_gradients(params, 0)
    params[1].grad[2] = bad
    before, state = [parameter.value.copy() for parameter in params], opt.state_dict()
    with pytest.raises(FloatingPointError, match=f"the norm of the gradients is {bad}, which clip"):
        opt.step()
    for parameter, old in zip(params, before, strict=True):
        numpy.testing.assert_array_equal(parameter.value, old)
    numpy.testing.assert_equal(opt.state_dict(), state)
    # Where it belongs to no active unit it is not looked at.
    params[1].columns = packed(numpy.arange(5) != 2)
    opt.step()
    assert numpy.isfinite(params[1].value).all()


def test_averages_for_evaluation():
    net = nn.Sequential([nn.Dense(3, 2), nn.Dropout(0.5)], rng=0, dtype=numpy.float64)
    opt = SGD(net, 0.5, average=0.75)
    mean = net.layers[0].weight.copy()
    weight = net.layers[0].weight
    for _ in range(5):
        net.forward(numpy.ones((2, 3)), training=True)
        net.backward(numpy.ones((2, 2)))
        opt.step()
        kept = net.layers[0].parameters()[0].columns
        kept = numpy.ones(2) if kept is None else numpy.unpackbits(kept[0], bitorder="little")[:2]
        mean = numpy.where(kept, 0.75 * mean + 0.25 * weight, mean)
    x = numpy.eye(3)
    trained = net.forward(x)
    bias = opt.state_dict()["dense0.bias.average"]
    with opt.averaged():
        numpy.testing.assert_allclose(net.layers[0].weight, mean, rtol=1e-14)
        numpy.testing.assert_allclose(net.forward(x), mean + bias, rtol=1e-14)
        exported = net.state_dict()
        for call in (opt.step, opt.state_dict, lambda: opt.load_state_dict({})):
            with pytest.raises(RuntimeError, match=r"not within averaged\(\)"):
                call()
        with pytest.raises(RuntimeError, match=r"averaged\(\) is already in use"), opt.averaged():
            pass
        with pytest.raises(RuntimeError, match="average cannot be set"):
            opt.average = None
    assert net.layers[0].weight is weight
    numpy.testing.assert_array_equal(net.forward(x), trained)
    numpy.testing.assert_allclose(exported["dense0.weight"], mean, rtol=1e-14)
    with pytest.raises(KeyboardInterrupt), opt.averaged():
        raise KeyboardInterrupt
    assert net.layers[0].weight is weight
    opt.average = None
    with pytest.raises(RuntimeError, match=r"averaged\(\) needs an optimiser with average"):
        opt.averaged().__enter__()
    opt.average = 0.5  # begins anew, at the weights
    with opt.averaged():
        numpy.testing.assert_array_equal(net.forward(x), trained)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_resumed_run_continues_bit_for_bit(tmp_path, kind):
    def network(seed):
        dropout = nn.Dropout(0.5, rows_per_mask="batch")
        return nn.Sequential([nn.Dense(6, 9), nn.ReLU(), dropout, nn.Dense(9, 3)], rng=seed)

    def optimiser(net):
        biases = [parameter for parameter in net.parameters() if parameter.value.ndim == 1]
        weights = [parameter for parameter in net.parameters() if parameter.value.ndim == 2]
        groups = [{"params": weights, "max_norm": 2.0}, {"params": biases, "weight_decay": 0}]
        return make(kind, groups, average=0.9, clip_norm=1.0, clip_value=0.5)

    def train(net, opt, first):
        for step in range(first, first + 5):
            x = numpy.random.default_rng(step).standard_normal((4, 6))
            net.backward(net.forward(x, training=True))
            opt.step()

    net = network(0)
    opt = optimiser(net)
    train(net, opt, 0)
    fastdrop.save(tmp_path / "run.npz", net, opt)
    train(net, opt, 5)
    other = network(9)
    resumed = optimiser(other)
    fastdrop.load(tmp_path / "run.npz", other, resumed)
    train(other, resumed, 5)
    numpy.testing.assert_equal(resumed.state_dict(), opt.state_dict())
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        numpy.testing.assert_array_equal(mine.value, theirs.value)
    different = make(kind, other, average=0.9, clip_norm=1.0, clip_value=0.5)
    with pytest.raises(ValueError, match="state has what the optimiser does not: groups"):
        different.load_state_dict(opt.state_dict())
    resumed.groups[0].max_norm = 3.0
    with pytest.raises(ValueError, match=r"groups is .* in the state and .* here"):
        resumed.load_state_dict(opt.state_dict())
    resumed.groups[0].max_norm = 2.0
    resumed.clip_norm = 2.0
    with pytest.raises(ValueError, match=r"clip_norm is 1.0 in the state and 2.0 here"):
        resumed.load_state_dict(opt.state_dict())
