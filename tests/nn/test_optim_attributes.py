"""Groups of parameters, and what is set on an optimiser later: checked, and in effect."""

import math

import numpy
import pytest
from optim_cases import OPTIONS, RATE, give_gradients, make, packed, parameters

from fastdrop import nn
from fastdrop.optim import SGD, Adam, AdamW
from fastdrop.parameters import Parameter


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
    cls, options = OPTIONS.get(kind, (AdamW, {}))
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
    for name, value in {**options, **changes}.items():  # again, on a live one
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
