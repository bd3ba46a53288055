"""Optimisers: the textbook where everything is active, and what is dropped stays as it is."""

import math

import numpy
import pytest
from optim_cases import DTYPES, MAKERS, RATE, give_gradients, packed, parameters
from rounding import assert_same_bits

from fastdrop.optim import Adam
from fastdrop.parameters import Parameter


class Textbook:
    """The formulas as the papers have them, dense, in float64, for one array."""

    def __init__(self, kind, w, weight_decay=0.0):
        self.kind, self.w, self.decay = kind, w.astype(float), weight_decay
        self.u = self.m = self.v = numpy.zeros_like(self.w)
        self.t = 0

    def step(self, g, rate=RATE):
        self.t += 1
        if self.kind == "AdamW":
            self.w = self.w - rate * self.decay * self.w
        else:
            g = g + self.decay * self.w
        if self.kind.startswith("Adam"):
            self.m = 0.9 * self.m + 0.1 * g
            self.v = 0.999 * self.v + 0.001 * g**2
            m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
            self.w = self.w - rate * m / (numpy.sqrt(v) + 1e-8)
            return
        if self.kind.startswith("RMSprop"):
            self.v = 0.9 * self.v + 0.1 * g**2
            momentum = 0.8 if "momentum" in self.kind else 0.0
            self.u = momentum * self.u + g / (numpy.sqrt(self.v) + 1e-8)
            self.w = self.w - rate * self.u
            return
        # Velocities with the learning rate in them, as in Sutskever et al. 2013, equation 3: for a
        # constant rate the same.
        if self.kind == "SGD":
            self.w = self.w - rate * g
        elif self.kind == "momentum":
            self.u = 0.9 * self.u - rate * g
            self.w = self.w + self.u
        else:
            self.u = 0.9 * self.u - rate * g
            self.w = self.w + 0.9 * self.u - rate * g


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", MAKERS)
def test_everything_active_is_the_textbook(each_backend, kind, decay, dtype):
    params = parameters(dtype)
    books = [Textbook(kind, parameter.value, decay) for parameter in params]
    opt = MAKERS[kind](params, weight_decay=decay)
    for step in range(30):
        give_gradients(params, step)
        opt.step()
        for book, parameter in zip(books, params, strict=True):
            book.step(parameter.grad.astype(float))
    # Each step rounds the weight, the step and what made it a few times; 30 steps of numbers
    # around 1 and the differences they cause add up to less than 30 * 20 roundings.
    bound = 600 * float(numpy.finfo(dtype).eps)
    for book, parameter in zip(books, params, strict=True):
        numpy.testing.assert_allclose(parameter.value, book.w, rtol=0, atol=bound)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_dropped_moves(each_backend, kind, compact):
    """No momentum, no moments, no decay; and what is active moves as if there were nothing else."""
    params = parameters(numpy.float32)
    opt = MAKERS[kind](params, weight_decay=0.1)
    generator = numpy.random.default_rng(0)
    for step in range(20):
        rows, columns = generator.random(7) < 0.5, generator.random(5) < 0.5
        give_gradients(params, step, rows, columns, compact)
        before = [parameter.value.copy() for parameter in params]
        memory = opt.state_dict()
        opt.step()
        active = numpy.ix_(rows, columns)
        for parameter, old, kept in zip(params, before, (active, columns), strict=True):
            after = {"value": parameter.value, **opt.state_dict()}
            for name, array in {"value": old, **memory}.items():
                if name != "value" and not name.startswith(parameter.name + "."):
                    continue
                if not isinstance(array, numpy.ndarray) or array.shape != old.shape:
                    continue
                dropped = numpy.ones(old.shape, bool)
                dropped[kept] = False
                assert_same_bits(after[name][dropped], array[dropped], name)
                assert (after[name][~dropped] != array[~dropped]).all()
                assert not numpy.isnan(after[name]).any()


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("side", ["rows", "columns"])
def test_a_masked_side_is_the_textbook_of_its_own_updates(each_backend, kind, side):
    """Each unit's weights, seen alone, have only the steps in which the unit was active."""
    params = parameters()
    n = params[0].value.shape[0 if side == "rows" else 1]
    decay = 0.1
    opt = MAKERS[kind](params, weight_decay=decay)
    weight = params[0].value
    units = weight if side == "rows" else weight.T
    books = [Textbook(kind, unit, decay) for unit in units]
    generator = numpy.random.default_rng(1)
    for step in range(200):
        kept = generator.random(n) < 0.3
        kept[0] = step >= 150  # one that comes late
        give_gradients(params, step, **{side: kept})
        opt.step()
        gradients = params[0].grad if side == "rows" else params[0].grad.T
        for unit in numpy.flatnonzero(kept):
            books[unit].step(gradients[unit])
    for book, unit in zip(books, units, strict=True):
        numpy.testing.assert_allclose(unit, book.w, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_a_late_first_update_has_the_size_of_the_first(each_backend, kind):
    """Not 3.2 times that size, which the number of the step would make of it."""
    params = parameters(shape=(40, 50))
    opt = MAKERS[kind](params, weight_decay=0.0)
    generator = numpy.random.default_rng(0)
    for step in range(1000):
        rows, columns = generator.random(40) < 0.5, generator.random(50) < 0.5
        rows[3] = columns[4] = False
        give_gradients(params, step, rows, columns)
        opt.step()
    before = params[0].value.copy()
    give_gradients(params, 1000, numpy.arange(40) == 3, numpy.arange(50) == 7)
    opt.step()
    moved = params[0].value - before
    assert abs(moved[3, 7]) == pytest.approx(RATE, rel=1e-6)
    assert numpy.count_nonzero(moved) == 1
    give_gradients(params, 1001, numpy.arange(40) == 5, numpy.arange(50) == 4)
    opt.step()
    moved = params[0].value - before
    assert abs(moved[5, 4]) == pytest.approx(RATE, rel=1e-6)
    # What the step's number would have made of the same moments.
    m, v = (1 - 0.9) / (1 - 0.9**1001), (1 - 0.999) / (1 - 0.999**1001)
    assert m / math.sqrt(v) == pytest.approx(2.5, abs=0.05)
    assert (1 - 0.9) / math.sqrt(1 - 0.999) == pytest.approx(3.16, abs=0.01)


@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_weights_between_two_masked_units_have_nearly_their_own_correction(each_backend, keep):
    """The gradient is 1 every time: a step has then the learning rate's size, if corrected rightly.

    By the number of the step, it would be up to 1 / keep too large.
    """
    weight = Parameter("weight", numpy.zeros((60, 60)))
    opt = Adam([weight], 1.0)
    generator = numpy.random.default_rng(0)
    own = numpy.zeros((60, 60))
    for step in range(1, 601):
        rows, columns = generator.random((2, 60)) < keep
        weight.rows, weight.columns = packed(rows), packed(columns)
        weight.grad = numpy.ones((60, 60))
        before = weight.value.copy()
        opt.step()
        active = numpy.ix_(rows, columns)
        own[active] += 1
        if step in (100, 200, 600):
            moved = (before - weight.value)[active]
            assert abs(numpy.median(moved) - 1) < 0.05
            assert abs(moved - 1).mean() < 0.2
            counts = own[active]
            by_step = (1 - 0.9**counts) / (1 - 0.9**step)
            by_step *= numpy.sqrt((1 - 0.999**step) / (1 - 0.999**counts))
            assert abs(by_step - 1).mean() > 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MAKERS)
def test_resumed_bit_for_bit(each_backend, kind, dtype):
    def run(params, opt, steps):
        for step in steps:
            generator = numpy.random.default_rng(step)
            masks = [generator.random(n) < 0.6 for n in (7, 5)]
            give_gradients(params, step, *masks, compact=True)
            opt.step()

    def schedule(step):
        return 0.1 / (1 + step)

    def make(params):
        opt = MAKERS[kind](params, max_norm=2.0)
        opt.learning_rate = schedule
        return opt

    params = parameters(dtype)
    opt = make(params)
    run(params, opt, range(10))
    state, arrays = opt.state_dict(), [parameter.value.copy() for parameter in params]
    run(params, opt, range(10, 20))
    again = parameters(dtype, seed=5)
    other = make(again)
    run(again, other, range(2))  # whatever was there before
    for parameter, array in zip(again, arrays, strict=True):
        parameter.value[...] = array
    other.load_state_dict(state)
    run(again, other, range(10, 20))
    for mine, theirs in zip(params, again, strict=True):
        assert_same_bits(mine.value, theirs.value)
    for name, value in opt.state_dict().items():
        numpy.testing.assert_array_equal(other.state_dict()[name], value, err_msg=name)
    # A state is a copy.
    assert state["steps"] == 10


def test_the_table_of_corrections_grows_and_ends(each_backend):
    """Steps beyond the first table, and beyond the last line that differs from 1."""
    for beta2 in (0.5, 0.9999):
        params = [Parameter("bias", numpy.zeros(2))]
        book = numpy.zeros(1)
        opt = Adam(params, RATE, beta1=0.5, beta2=beta2)
        m = v = 0.0
        for step in range(1, 2500):
            g = math.sin(step)
            params[0].grad = numpy.array([g, g])
            params[0].columns = packed(numpy.array([True, step > 1500]))
            opt.step()
            m, v = 0.5 * m + 0.5 * g, beta2 * v + (1 - beta2) * g * g
            c1, c2 = 1 - 0.5**step, 1 - beta2**step
            book -= RATE * m / c1 / (math.sqrt(v / c2) + 1e-8)
        assert params[0].value[0] == pytest.approx(book[0], rel=1e-9)


# --- max_norm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_max_norm(each_backend, kind, dtype):
    """All rows count and are scaled, in active columns; others, and biases, are not."""
    limit = 2.0
    params, free = parameters(dtype, shape=(50, 9)), parameters(dtype, shape=(50, 9))
    params[0].value[:, 2] *= 0.01
    free[0].value[:, 2] *= 0.01
    rows = numpy.arange(50) % 3 > 0
    columns = numpy.array([1, 0, 1, 1, 0, 1, 1, 0, 1], bool)
    for chosen, norm in ((params, limit), (free, None)):
        give_gradients(chosen, 0, rows, columns, compact=True)
        MAKERS[kind](chosen, max_norm=norm).step()
    unbounded = free[0].value.astype(float)
    norms = numpy.sqrt((unbounded**2).sum(axis=0))
    far = columns & (norms > limit)
    assert far.sum() >= 4
    assert not far[2]
    eps = float(numpy.finfo(dtype).eps)
    expected = numpy.where(far, unbounded * limit / norms, unbounded)
    numpy.testing.assert_allclose(params[0].value, expected, rtol=4 * eps)
    assert_same_bits(params[0].value[:, ~far], free[0].value[:, ~far])
    assert_same_bits(params[1].value, free[1].value)
    new = numpy.sqrt((params[0].value.astype(float) ** 2).sum(axis=0))[columns]
    assert (new <= limit * (1 + 2 * eps)).all()
