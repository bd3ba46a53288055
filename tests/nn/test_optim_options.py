"""Clipping, groups, AMSGrad, dampening, going up, averages: from their formulas, masked and not."""

import math

import numpy
import pytest
from optim_cases import DTYPES, RATE, give_gradients, packed, parameters

import fastdrop
from fastdrop import nn
from fastdrop.optim import SGD, Adam, AdamW
from fastdrop.parameters import Parameter

OPTIONS = {
    "SGD": (SGD, {}),
    "decay": (SGD, {"weight_decay": 0.1}),
    "momentum": (SGD, {"momentum": 0.9}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "dampening": (SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    "up": (SGD, {"momentum": 0.9, "maximize": True, "weight_decay": 0.1}),
    "Adam": (Adam, {}),
    "Adam up": (Adam, {"maximize": True, "weight_decay": 0.1}),
    "amsgrad": (Adam, {"amsgrad": True, "beta2": 0.6}),
    "AdamW amsgrad": (AdamW, {"amsgrad": True, "beta2": 0.6, "weight_decay": 0.1}),
    "AdamW up": (AdamW, {"maximize": True, "weight_decay": 0.1}),
}


def make(kind, params, **more):
    cls, options = OPTIONS[kind]
    return cls(params, RATE, **options, **more)


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


@pytest.mark.parametrize("cls", [SGD, Adam, AdamW])
def test_groups_are_optimisers_of_their_own(cls):
    """No decay for biases, another rate: as two optimisers would do it, bound and average apart."""

    def schedule(step):
        return 0.3 / (1 + step)

    params, others = parameters(), parameters()
    opt = cls(
        [
            {"params": params[:1]},
            {"params": params[1:], "weight_decay": 0.0, "learning_rate": schedule},
        ],
        RATE, weight_decay=0.2, max_norm=1.0,
    )  # fmt: skip
    apart = [
        cls(others[:1], RATE, weight_decay=0.2, max_norm=1.0),
        cls(others[1:], schedule, weight_decay=0.0),
    ]
    for step in range(5):
        give_gradients(params, step)
        give_gradients(others, step)
        opt.step()
        for one in apart:
            one.step()
    for mine, other in zip(params, others, strict=True):
        numpy.testing.assert_array_equal(mine.value, other.value)
    assert opt.parameters == tuple(params)
    assert [group.weight_decay for group in opt.groups] == [0.2, 0.0]
    assert repr(opt).startswith(f"{cls.__name__}(2 parameters in 2 groups, learning_rate=0.05, ")


def test_settings_of_groups():
    params = parameters()
    opt = AdamW([{"params": params[:1]}, {"params": params[1:], "weight_decay": 0}], RATE)
    first, second = opt.groups
    opt.weight_decay = 0.5
    opt.learning_rate = 0.25
    assert (first.weight_decay, second.weight_decay) == (0.5, 0)
    assert (first.learning_rate, second.learning_rate) == (0.25, 0.25)
    second.learning_rate = 0.0
    give_gradients(params, 0)
    before = [parameter.value.copy() for parameter in params]
    opt.step()
    assert (params[0].value != before[0]).all()
    numpy.testing.assert_array_equal(params[1].value, before[1])
    for name, value, error, message in (
        ("learning_rate", -1, ValueError, r"learning_rate must be in \[0, inf\), got -1.0"),
        ("max_norm", 0, ValueError, r"max_norm must be in \(0, inf\), got 0.0"),
        ("weight_decay", "x", TypeError, "weight_decay must be a real number, got 'x'"),
        ("momentum", 0.5, AttributeError, "Group has no attribute 'momentum'"),
        ("parameters", [], AttributeError, "parameters of Group cannot be set"),
    ):
        with pytest.raises(error, match=message):
            setattr(second, name, value)
    assert second.max_norm is None


def test_one_parameter_group_for_biases_of_a_network():
    net = nn.Sequential([nn.Dense(3, 4), nn.ReLU(), nn.Dense(4, 2)], rng=0)
    biases = [parameter for parameter in net.parameters() if parameter.value.ndim == 1]
    weights = [parameter for parameter in net.parameters() if parameter.value.ndim == 2]
    opt = AdamW([{"params": weights}, {"params": biases, "weight_decay": 0}], weight_decay=0.5)
    for layer in (net.layers[0], net.layers[2]):
        layer.bias = numpy.ones(layer.units_out)
    net.forward(numpy.ones((1, 3)), training=True)
    net.backward(numpy.zeros((1, 2)))
    before = net.state_dict()
    opt.step()
    numpy.testing.assert_array_equal(net.layers[0].bias, 1)
    numpy.testing.assert_allclose(net.layers[0].weight, before["dense0.weight"] * 0.9995)
    whole = AdamW([{"params": net, "learning_rate": 1.0}])
    assert [group.learning_rate for group in whole.groups] == [1.0]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (lambda p: [{"weight_decay": 0}], ValueError, r"with the key 'params', got \['weight_dec"),
        (lambda p: [{"params": p, "lr": 1}], TypeError, "the keys params, learning_rate, .*'lr'"),
        (lambda p: [{"params": p, "momentum": 1}], TypeError, "'momentum'; .* another optimiser"),
        (lambda p: [{"params": p, "max_norm": 0}], ValueError, "max_norm must be in .* got 0"),
        (lambda p: [{"params": p}, {"params": p[:1]}], ValueError, "twice: dense0.weight"),
        (lambda p: [{"params": []}], ValueError, "params has no parameters"),
        (lambda p: [{"params": p}, p[0]], TypeError, "an iterable of Parameter, got dict"),
        (lambda p: "net", TypeError, "an iterable of Parameter, got str"),
        (lambda p: [p[0], Parameter("w", p[0].value), Parameter("w", p[1].value)], ValueError,
         "different names, got twice: w"),
    ],
)  # fmt: skip
def test_groups_that_cannot_be(params, error, message):
    with pytest.raises(error, match=message):
        SGD(params(parameters()), 0.1)


@pytest.mark.parametrize(
    ("kind", "name", "value", "error", "message"),
    [
        ("SGD", "learning_rate", math.nan, ValueError, r"learning_rate must be in \[0, inf\)"),
        ("SGD", "learning_rate", -1, ValueError, "learning_rate must be in .* got -1"),
        ("SGD", "learning_rate", None, TypeError, "learning_rate must be a real number, got None"),
        ("SGD", "weight_decay", -1, ValueError, "weight_decay must be in .* got -1"),
        ("SGD", "max_norm", 0, ValueError, "max_norm must be in .* got 0"),
        ("SGD", "clip_norm", 0, ValueError, r"clip_norm must be in \(0, inf\), got 0"),
        ("SGD", "clip_value", math.inf, ValueError, "clip_value must be in .* got inf"),
        ("SGD", "average", 1, ValueError, r"average must be in \[0, 1\), got 1.0"),
        ("SGD", "maximize", 1, TypeError, "maximize must be True or False, got 1"),
        ("SGD", "momentum", 1, ValueError, r"momentum must be in \[0, 1\), got 1"),
        ("SGD", "nesterov", True, ValueError, "nesterov needs a momentum greater than 0"),
        ("SGD", "dampening", 0.5, ValueError, "dampening needs a momentum greater than 0"),
        ("nesterov", "dampening", 0.5, ValueError, "nesterov needs a dampening of 0, got 0.5"),
        ("nesterov", "momentum", 0, ValueError, "nesterov needs a momentum greater than 0"),
        ("dampening", "momentum", 0, ValueError, "dampening needs a momentum greater than 0"),
        ("Adam", "beta1", 1, ValueError, r"beta1 must be in \[0, 1\), got 1"),
        ("Adam", "beta2", "x", TypeError, "beta2 must be a real number, got 'x'"),
        ("Adam", "epsilon", 0, ValueError, r"epsilon must be in \(0, inf\), got 0"),
        ("Adam", "amsgrad", 1, TypeError, "amsgrad must be True or False, got 1"),
        ("Adam", "steps", 0, AttributeError, "steps of Adam cannot be set: load_state_dict"),
        ("Adam", "parameters", [], AttributeError, "parameters of Adam cannot be set: make a new"),
        ("Adam", "groups", [], AttributeError, "groups of Adam cannot be set"),
        ("Adam", "lr", 0.1, AttributeError, "Adam has no attribute 'lr', nothing was set"),
        ("SGD", "beta1", 0.1, AttributeError, "SGD has no attribute 'beta1'"),
    ],
)  # fmt: skip
def test_attributes_that_cannot_be(kind, name, value, error, message):
    params = parameters()
    opt = make(kind, params)
    give_gradients(params, 0)
    opt.step()
    state, rate = opt.state_dict(), opt.learning_rate
    with pytest.raises(error, match=message):
        setattr(opt, name, value)
    numpy.testing.assert_equal(opt.state_dict(), state)
    assert opt.learning_rate == rate
    if error is ValueError and "needs" not in message and kind in ("SGD", "Adam"):
        with pytest.raises(error, match=message):
            OPTIONS[kind][0](params, **{"learning_rate": RATE, name: value})


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("SGD", {"momentum": 0.5}),
        ("momentum", {"momentum": 0.0}),
        ("momentum", {"nesterov": True}),
        ("momentum", {"dampening": 0.25, "momentum": 0.5}),
        ("momentum", {"maximize": True, "weight_decay": 0.3}),
        ("Adam", {"epsilon": 0.5, "weight_decay": 0.3}),
        ("Adam", {"amsgrad": True}),
        ("amsgrad", {"amsgrad": False}),
        ("AdamW", {"max_norm": 0.5}),
        ("SGD", {"clip_norm": 0.1}),
        ("SGD", {"average": 0.5}),
    ],
)
def test_attributes_take_effect(kind, changes):
    """Set before the first step, they are what would have been given; later, what is loaded."""
    OPTIONS.setdefault("AdamW", (AdamW, {}))
    cls, options = OPTIONS[kind]
    params, others = parameters(), parameters()
    opt = cls(params, RATE, **options)
    for name, value in changes.items():
        setattr(opt, name, value)
    other = cls(others, RATE, **(options | changes))
    for step in range(4):
        for each, its in ((params, opt), (others, other)):
            give_gradients(each, step)
            its.step()
    for mine, theirs in zip(params, others, strict=True):
        numpy.testing.assert_array_equal(mine.value, theirs.value)
    numpy.testing.assert_equal(opt.state_dict(), other.state_dict())
    for name, value in {**OPTIONS[kind][1], **changes}.items():  # again, on a live one
        setattr(opt, name, options.get(name, {"momentum": 0.0, "epsilon": 1e-8}.get(name, value)))
        setattr(opt, name, value)
    give_gradients(params, 5)
    opt.step()
    assert all(numpy.isfinite(parameter.value).all() for parameter in params)
    fresh = cls(params, RATE, **(options | changes))
    fresh.load_state_dict(opt.state_dict())


@pytest.mark.parametrize("name", ["beta1", "beta2"])
@pytest.mark.parametrize("masked", ["none", "columns", "both"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_beta_that_is_set_keeps_steps_as_long(each_backend, name, masked, amsgrad):
    """Of equal gradients every step has the learning rate's length, whatever the betas are."""
    weight = Parameter("w", numpy.zeros((20, 30)))
    opt = Adam([weight], 1.0, amsgrad=amsgrad)
    generator = numpy.random.default_rng(0)
    for value in (getattr(opt, name), 0.5, 0.99, 0.0, 0.3):
        setattr(opt, name, value)
        for _ in range(40):
            rows, columns = generator.random(20) < 0.7, generator.random(30) < 0.5
            weight.rows = packed(rows) if masked == "both" else None
            weight.columns = packed(columns) if masked != "none" else None
            weight.grad = numpy.ones((20, 30))
            before = weight.value.copy()
            opt.step()
            moved = (before - weight.value)[before != weight.value]
            if masked != "both":
                numpy.testing.assert_allclose(moved, 1, rtol=1e-6)
            else:  # counts of rows and columns say about how many updates a weight had
                assert abs(numpy.median(moved) - 1) < 0.05
                assert abs(moved - 1).mean() < 0.1


def test_a_beta_that_is_set_before_the_first_step():
    weight = Parameter("w", numpy.zeros(3))
    opt = Adam([weight], 0.1)
    opt.beta1 = 0.5
    weight.grad = numpy.full(3, 7.0)
    opt.step()
    numpy.testing.assert_allclose(weight.value, -0.1, rtol=1e-6)


def test_a_beta_after_many_steps():
    """The tables of corrections are of different lengths, which counts must not exceed."""
    weight = Parameter("w", numpy.zeros((3, 4)))
    opt = Adam([weight], 1.0, beta2=0.9)
    generator = numpy.random.default_rng(0)
    for beta1, beta2 in ((0.9, 0.9), (0.5, 0.5), (0.0, 0.0), (0.9, 0.999), (0.1, 0.1)):
        opt.beta1, opt.beta2 = beta1, beta2
        for _ in range(400):
            weight.columns = packed(generator.random(4) < 0.5)
            weight.grad = numpy.ones((3, 4))
            before = weight.value.copy()
            opt.step()
            moved = before - weight.value
            numpy.testing.assert_allclose(moved[moved != 0], 1, rtol=1e-6)
        other = Adam([Parameter("w", numpy.zeros((3, 4)))], 1.0, beta1=beta1, beta2=beta2)
        other.load_state_dict(opt.state_dict())


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
