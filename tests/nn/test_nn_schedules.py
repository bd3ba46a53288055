"""Schedules, of learning rates and of the rates of dropout layers and estimators."""

import pickle
import warnings

import numpy
import pytest
from nn_cases import values

import fastdrop
from fastdrop import MaskStream, nn, optim, schedules
from fastdrop.schedules import (
    Cosine,
    Curriculum,
    Early,
    Exponential,
    Late,
    Linear,
    Piecewise,
    Warmup,
)

MADE = [
    Linear(0.1, 0.5, 8),
    Cosine(0.5, 0.1, 8),
    Exponential(0.5, 0.5, 8),
    Piecewise([0.1, 0.2, 0.3], [2, 4]),
    Warmup(4, 0.5),
    Warmup(2, Linear(0.5, 0.1, 6)),
    Curriculum(0.5, 8),
    Early(0.4, 4),
    Early(0.4, 4, decreasing=False),
    Late(0.4, 4),
]
LAYERS = {
    "Dropout": nn.Dropout,
    "Dropout, batchwise": lambda rate: nn.Dropout(rate, rows_per_mask="batch"),
    "Dropout, exact": lambda rate: nn.Dropout(rate, exact_count=True, rows_per_mask=2),
    "GaussianDropout": nn.GaussianDropout,
    "UniformDropout": nn.UniformDropout,
}


@pytest.mark.parametrize("schedule", MADE, ids=repr)
def test_every_schedule_is_a_value(schedule):
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert eval(repr(schedule), vars(schedules)) == schedule
    rates = [schedule(step) for step in range(20)]
    assert all(isinstance(rate, float) and 0 <= rate <= 0.5 for rate in rates)
    assert rates[-1] == pytest.approx(schedule(10**9), abs=0.1)
    with pytest.raises(AttributeError):
        schedule.steps = 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0, 1, 0), "steps must be at least 1"),
        (lambda: Linear("a", 1, 3), "start must be a real number"),
        (lambda: Linear(0, float("nan"), 3), "end must be finite"),
        (lambda: Cosine(0, 1, 2.5), "steps must be an int"),
        (lambda: Exponential(1, 0, 3), "factor must be greater than 0"),
        (lambda: Piecewise([1], [2]), "one more than boundaries"),
        (lambda: Piecewise([1, 2, 3], [4, 4]), "must ascend"),
        (lambda: Curriculum(2, 10), r"rate must be in \[0, 1\], got 2.0"),
        (lambda: Early(1.5, 10), r"rate must be in \[0, 1\], got 1.5"),
        (lambda: Late(-0.1, 10), r"rate must be in \[0, 1\], got -0.1"),
        (lambda: Warmup(3, "x"), "then must be a real number"),
    ],
)
def test_what_is_no_schedule(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def network(layer, seed=0):
    return nn.Sequential([nn.Dense(6, 8), nn.ReLU(), layer, nn.Dense(8, 3)], rng=seed)


def step(net, opt):
    y = net.forward(values((4, 6), dtype=numpy.float32), training=True)
    net.backward(numpy.ones_like(y))
    opt.step()
    return y


@pytest.mark.parametrize("name", LAYERS)
def test_a_schedule_is_the_rate_of_each_draw_set_by_hand(name):
    """In a fused block, and alone."""
    schedule = Linear(0.1, 0.6, 5)
    moved, set_by_hand = LAYERS[name](schedule), LAYERS[name](0.5)
    nets = [network(layer) for layer in (moved, set_by_hand)]
    opts = [optim.SGD(net, 0.1) for net in nets]
    alone = LAYERS[name](schedule)
    alone.stream = MaskStream(0).spawn(1)[0]
    by_hand = LAYERS[name](0.5)
    by_hand.stream = MaskStream(0).spawn(1)[0]
    assert moved.rate == pytest.approx(0.1)
    for number in range(8):
        for layer in (set_by_hand, by_hand):
            layer.rate = schedule(number)
        numpy.testing.assert_array_equal(step(nets[0], opts[0]), step(nets[1], opts[1]))
        assert moved.rate == set_by_hand.rate == pytest.approx(schedule(number))
        x = values((4, 8), number)
        y = alone.forward(x, training=True)
        numpy.testing.assert_array_equal(y, by_hand.forward(x, training=True))
        numpy.testing.assert_array_equal(alone.backward(x), by_hand.backward(x))
        assert (alone.forward(x) == by_hand.forward(x)).all()  # which draws nothing
    assert alone.stream.position == 8
    assert moved.schedule == schedule
    moved.rate = 0.25
    assert moved.schedule is None
    step(nets[0], opts[0])
    assert moved.rate == 0.25


def test_a_resumed_network_goes_on_where_its_schedule_was(tmp_path):
    schedule = Linear(0.0, 0.8, 10)
    net = network(nn.Dropout(schedule, scale_at="test"))
    opt = optim.Adam(net, Warmup(3, 0.01))
    for _ in range(4):
        step(net, opt)
    fastdrop.save(tmp_path / "net", net, opt)
    other = network(nn.Dropout(schedule, scale_at="test"), seed=5)
    its = optim.Adam(other, Warmup(3, 0.01))
    fastdrop.load(tmp_path / "net", other, its, strict=True)
    assert other.layers[2].rate == net.layers[2].rate == pytest.approx(schedule(3))
    x = values((2, 6))
    numpy.testing.assert_array_equal(other.forward(x), net.forward(x))
    for _ in range(3):
        numpy.testing.assert_array_equal(step(other, its), step(net, opt))
    copy, its = pickle.loads(pickle.dumps((net, opt)))
    numpy.testing.assert_array_equal(step(copy, its), step(net, opt))
    wrong = network(nn.Dropout(Late(0.5, 3), scale_at="test"))
    its = optim.Adam(wrong, 0.01)
    with pytest.raises(ValueError, match=r"of Linear.*' in the state and 'of Late"):
        fastdrop.load(tmp_path / "net", wrong, its, strict=True)


def test_a_schedule_that_gives_no_rate_changes_nothing():
    for wrong, message in (
        (lambda number: 1.5, r"rate\(0\) must be in \[0, 1\], got 1.5"),
        (lambda number: "x", r"rate\(0\) must be a real number"),
    ):
        error = TypeError if "real" in message else ValueError
        with pytest.raises(error, match=message):
            nn.Dropout(wrong)
        layer = nn.Dropout(0.5)
        with pytest.raises(error, match=message):
            layer.rate = wrong
        assert (layer.rate, layer.schedule) == (0.5, None)
    net = network(nn.Dropout(lambda number: 0.5 if number < 2 else 2.0))
    opt = optim.SGD(net, 0.1)
    for _ in range(2):
        step(net, opt)
    with pytest.raises(ValueError, match=r"rate\(2\) must be in"):
        step(net, opt)
    assert net.layers[2].stream.position == 2
    with pytest.raises(TypeError, match="got both"):
        nn.Dropout(Late(0.5, 3), keep_prob=0.5)
    with pytest.raises(AttributeError, match="assign a function of the draw to rate"):
        nn.Dropout(0.5).schedule = Late(0.5, 3)


def test_failed_steps_do_not_move_a_schedule():
    net = network(nn.Dropout(Linear(0.1, 0.9, 10)))
    with pytest.raises(ValueError, match="shape"):
        net.forward(values((4, 5)), training=True)
    step(net, optim.SGD(net, 0.1))
    assert net.layers[2].rate == pytest.approx(0.1)


def test_estimators_take_schedules():
    pytest.importorskip("sklearn")
    from sklearn.base import clone

    x = values((60, 5), dtype=numpy.float32)
    y = (x[:, 0] > 0).astype(int)
    options = {"batch_size": 20, "max_iter": 3, "random_state": 0, "tol": 0.0}
    model = fastdrop.MLPClassifier(
        (8, 8), dropout=[Late(0.5, 4), 0.2], input_dropout=Early(0.3, 6), **options
    )
    model = clone(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three epochs do not converge
        model.fit(x, y)
        constant = fastdrop.MLPClassifier(
            (8, 8), dropout=[lambda n: 0.5, 0.2], input_dropout=lambda n: 0.1, **options
        ).fit(x, y)
        plain = fastdrop.MLPClassifier((8, 8), dropout=[0.5, 0.2], input_dropout=0.1, **options)
        plain.fit(x, y)
    rates = [layer.rate for layer in model._network.layers if isinstance(layer, nn.Dropout)]
    assert rates == pytest.approx([0.0, 0.5, 0.2])  # of the last of nine batches
    numpy.testing.assert_array_equal(constant.coefs_[0], plain.coefs_[0])
    again = pickle.loads(pickle.dumps(model))
    numpy.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert again.predict_samples(x, n_samples=3).shape[0] == 3
    with pytest.raises(ValueError, match="dropout must"):
        fastdrop.MLPClassifier(dropout=["x"]).fit(x, y)
