"""Optimisers: schedules, arguments, states that do not fit, gradients in full."""

import math

import numpy
import pytest
from optim_cases import give_gradients, parameters
from rounding import assert_same_bits

from fastdrop.optim import SGD, Adam, AdamW
from fastdrop.parameters import Parameter


def test_a_schedule_is_asked_for_every_step(each_backend):
    asked = []

    def schedule(step):
        asked.append(step)
        return [0.5, 0.25, 0][step]

    bias = Parameter("bias", numpy.zeros(1))
    bias.grad = numpy.ones(1)
    opt = SGD([bias], schedule)
    seen = []
    for _ in range(3):
        opt.step()
        seen.append(float(bias.value[0]))
    assert asked == [0, 1, 2]
    assert seen == [-0.5, -0.75, -0.75]
    opt.learning_rate = lambda step: math.nan
    with pytest.raises(ValueError, match=r"learning_rate\(3\) must be in \[0, inf\), got nan"):
        opt.step()
    opt.learning_rate = lambda step: "fast"
    with pytest.raises(TypeError, match=r"learning_rate\(3\) must be a real number, got 'fast'"):
        opt.step()
    assert opt.steps == 3


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: SGD(p, -0.1), ValueError, r"learning_rate must be in \[0, inf\), got -0.1"),
        (lambda p: SGD(p, "fast"), TypeError, "learning_rate must be a real number, got 'fast'"),
        (lambda p: SGD(p, math.inf), ValueError, r"learning_rate must be in \[0, inf\), got inf"),
        (lambda p: SGD(p, 0.1, 1.0), ValueError, r"momentum must be in \[0, 1\), got 1.0"),
        (lambda p: SGD(p, 0.1, nesterov=True), ValueError, "nesterov needs a momentum"),
        (lambda p: SGD(p, 0.1, 0.9, nesterov=1), TypeError, "nesterov must be True or False"),
        (lambda p: SGD(p, 0.1, weight_decay=-1), ValueError, "weight_decay must be in"),
        (lambda p: SGD(p, 0.1, max_norm=0), ValueError, r"max_norm must be in \(0, inf\), got 0"),
        (lambda p: SGD(p, 0.1, mometum=0.9), TypeError, "unexpected keyword argument 'mometum'"),
        (lambda p: SGD(p), TypeError, "missing 1 required positional argument: 'learning_rate'"),
        (lambda p: Adam(p, beta1=1), ValueError, r"beta1 must be in \[0, 1\), got 1.0"),
        (lambda p: Adam(p, beta2=-0.1), ValueError, r"beta2 must be in \[0, 1\), got -0.1"),
        (lambda p: AdamW(p, epsilon=0), ValueError, r"epsilon must be in \(0, inf\), got 0"),
        (lambda p: Adam(p, momentum=0.9), TypeError, "unexpected keyword argument 'momentum'"),
        (lambda p: SGD(p[0], 0.1), TypeError, "an iterable of Parameter, got Parameter"),
        (lambda p: SGD([1], 0.1), TypeError, "an iterable of Parameter, got int"),
        (lambda p: SGD([], 0.1), ValueError, "params has no parameters"),
        (lambda p: SGD(p + p[:1], 0.1), ValueError, "got twice: dense0.weight"),
        (
            lambda p: SGD([Parameter("w", numpy.zeros(3, int))], 0.1),
            TypeError,
            "w must be float32 or float64, got int64",
        ),
        (
            lambda p: SGD([Parameter("w", numpy.zeros((4, 4))[:, ::2])], 0.1),
            ValueError,
            r"w must be a writable C-contiguous array of 1 or 2 dimensions, got shape \(4, 2\)",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make(parameters())


def test_steps_without_fitting_gradients(each_backend):
    params = parameters()
    opt = Adam(params)
    with pytest.raises(RuntimeError, match="no parameter has a gradient"):
        opt.step()
    before = params[1].value.copy()
    params[0].grad = numpy.ones((7, 5))
    opt.step()  # the bias has none
    assert_same_bits(params[1].value, before)
    params[0].grad = numpy.ones((7, 5), numpy.float32)
    with pytest.raises(TypeError, match=r"dense0.weight must have 2 dimensions and dtype float64"):
        opt.step()
    params[0].grad = numpy.ones((7, 4))
    with pytest.raises(ValueError, match=r"gradient must have shape \(7, 5\), got \(7, 4\)"):
        opt.step()
    params[0].grad = numpy.ones((7, 5))
    params[0].columns = (numpy.array([1], numpy.uint8), 4)
    with pytest.raises(ValueError, match=r"dense0.weight: columns has too few bits for 5 units"):
        opt.step()
    assert opt.steps == 1


def test_states_that_do_not_fit(each_backend):
    params = parameters()
    opt = Adam(params)
    state = opt.state_dict()
    for other, message in (
        (SGD(params, 0.1), "the state is of Adam, this optimiser is SGD"),
        (AdamW(params), "the state is of Adam, this optimiser is AdamW"),
        (Adam(params[:1]), "has what the optimiser does not: dense0.bias.column_counts, "),
        (Adam(params, beta2=0.99), "beta2 is 0.999 in the state and 0.99 here"),
        (Adam(params, max_norm=2), "max_norm is None in the state and 2.0 here"),
        (
            Adam(parameters(shape=(6, 5))),
            r"weight.first_moment: expected shape \(6, 5\) and dtype float64, got \(7, 5\)",
        ),
        (Adam(parameters(numpy.float32)), "expected dtype float32, got float64"),
    ):
        before = other.state_dict()
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
        numpy.testing.assert_equal(other.state_dict(), before)
    del state["dense0.bias.updates"]
    with pytest.raises(ValueError, match=r"the state lacks: dense0.bias.updates"):
        opt.load_state_dict(state)
    with pytest.raises(ValueError, match="the state is of None, this optimiser is Adam"):
        opt.load_state_dict({})


def test_optimisers_take_what_has_parameters():
    class Net:
        def parameters(self):
            return parameters()

    assert [parameter.name for parameter in SGD(Net(), 0.1).parameters] == [
        "dense0.weight",
        "dense0.bias",
    ]
    assert len(SGD(iter(parameters()), 0.1).parameters) == 2
    text = repr(Adam(Net(), 0.1))
    assert text.startswith("Adam(2 parameters, learning_rate=0.1, beta1=0.9, beta2=0.999, ")


def test_full_grad():
    params = parameters(shape=(3, 4))
    with pytest.raises(RuntimeError, match=r"dense0.weight has no gradient"):
        params[0].full_grad()
    rows, columns = numpy.array([1, 0, 1], bool), numpy.array([0, 1, 1, 0], bool)
    results = []
    for compact in (False, True):
        give_gradients(params, 0, rows, columns, compact)
        results.append([parameter.full_grad() for parameter in params])
    for full, from_compact, parameter in zip(*results, params, strict=True):
        assert full.shape == parameter.value.shape
        assert_same_bits(full, from_compact)
    weight, bias = results[0]
    assert (weight[~rows] == 0).all()
    assert (weight[:, ~columns] == 0).all()
    assert (weight[numpy.ix_(rows, columns)] != 0).all()
    assert (bias[~columns] == 0).all()
    give_gradients(params, 0)
    assert_same_bits(params[0].full_grad(), params[0].grad)
