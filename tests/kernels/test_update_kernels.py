"""Updates of weights against their references, bit for bit, on every instruction set.

Everything that a step must not touch holds NaN of various bits, compared as integers.
"""

import numpy
import pytest
from conftest import values
from matrices import DENSITIES, DTYPES, random_bits
from rounding import as_integers, assert_same_bits

from fastdrop import _kernels, reference

SIZES = (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 97, 129, 200, 257)
SHAPES = [(SIZES[(5 * i + 2) % len(SIZES)], n) for i, n in enumerate(SIZES)]
SHAPES += [(0, 5), (5, 0), (1, 1000), (70, 300)]
OFFSETS = (0, 1, 7, 8, 13, 63, 64, 65)
BETAS = (0.9, 0.999)
TABLE = reference.correction_table(*BETAS, 200)
SGD_RULES = (
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.3, "momentum": 0.5},
    {},
    {"weight_decay": 0.3, "momentum": 0.5, "nesterov": True, "max_norm": 1.5},
    {"max_norm": 0.5},
)
ADAM_RULES = (
    {},
    {"amsgrad": True},
    {"amsgrad": True, "weight_decay": 0.3, "max_norm": 1.5},
    {"weight_decay": 0.3},
    {"weight_decay": 0.3, "decoupled": True},
    {"max_norm": 1.5},
    {"weight_decay": 0.1, "decoupled": True, "max_norm": 0.5},
)


def strange(shape, dtype, seed=0):
    """NaN of many signs and payloads, quiet and signalling."""
    bits = numpy.random.default_rng(seed).integers(1, 2**20, shape).astype(f"u{dtype().itemsize}")
    exponent = 0x7F8 if dtype is numpy.float32 else 0x7FF
    shift = 20 if dtype is numpy.float32 else 52
    return (bits | (bits.dtype.type(exponent) << bits.dtype.type(shift))).view(dtype)


class Units:
    """Packed bits of an axis with their offset, and the same as booleans."""

    def __init__(self, n, number):
        offset = OFFSETS[number % len(OFFSETS)]
        self.pair = None
        self.kept = numpy.ones(n, bool)
        if number % 5 != 4:
            bits = random_bits(n, DENSITIES[number % len(DENSITIES)], number, offset)
            unpacked = numpy.unpackbits(bits, bitorder="little")
            self.kept = unpacked[offset : offset + n].astype(bool)
            self.pair = (bits, offset)


class Guarded:
    """An array in the middle of another one, that shows when something is written beside it."""

    def __init__(self, content):
        self._around = numpy.full(content.size + 64, 7, content.dtype)
        self.array = self._around[32:-32].reshape(content.shape)
        self.array[...] = content

    def check(self, expected, label):
        assert_same_bits(self.array, expected, label)
        assert (self._around[:32] == 7).all(), label
        assert (self._around[-32:] == 7).all(), label


class Call:
    """An update of one shape, dtype, choice of units and rule, and what its reference makes."""

    def __init__(self, shape, dtype, number, *, adam, rule, compact):
        self.rows, self.columns = Units(shape[0], number), Units(shape[1], number // 2 + 3)
        self.adam, self.compact = adam, compact
        active = numpy.ix_(self.rows.kept, self.columns.kept)
        # A norm counts all rows, which have to be numbers then.
        bounded = "max_norm" in rule
        self.start = []
        for array in range(4 if adam else 2):
            content = strange(shape, dtype, number + array)
            if bounded and array == 0:
                content = values(shape, dtype, number)
            content[active] = values(content[active].shape, dtype, number + 10 + array)
            self.start.append(content)
        if adam:
            self.start[2][active] **= 2
            self.start[3][active] **= 2
            if not rule.get("amsgrad"):
                self.start[3] = None
        gradient = strange(shape, dtype, number + 5)
        gradient[active] = values(gradient[active].shape, dtype, number + 6)
        self.gradient = gradient[active].copy() if compact else gradient
        if not adam and not rule.get("momentum"):
            self.start[1] = None
        generator = numpy.random.default_rng(number)
        self.steps = int(generator.integers(1, len(TABLE)))
        self.counts = [generator.integers(0, self.steps, n) for n in shape]
        for counts, units in zip(self.counts, (self.rows, self.columns), strict=True):
            if units.pair is None:
                counts[...] = self.steps - 1
        self.rule = rule
        self.expected = [None if content is None else content.copy() for content in self.start]
        self.expected += [counts.copy() for counts in self.counts]
        self._update(reference, self.expected, self.gradient)

    def _update(self, module, arrays, gradient):
        value, first, *more, row_counts, column_counts = arrays
        rule = {name: value for name, value in self.rule.items() if name != "amsgrad"}
        if self.adam:
            rule |= {"beta1": BETAS[0], "beta2": BETAS[1], "epsilon": 1e-8}
            rule |= {"second": more[0], "top": more[1], "steps": self.steps, "table": TABLE}
            rule |= {"row_counts": row_counts, "column_counts": column_counts}
        units = {"rows": self.rows.pair, "columns": self.columns.pair, "compact": self.compact}
        module.update(
            module.Update(value, gradient, first=first, learning_rate=0.01, **units, **rule)
        )

    def check(self, label):
        arrays = [None if a is None else Guarded(a) for a in (*self.start, *self.counts)]
        gradient = Guarded(self.gradient)
        self._update(_kernels, [a and a.array for a in arrays], gradient.array)
        gradient.check(self.gradient, label)
        for number, (array, expected) in enumerate(zip(arrays, self.expected, strict=True)):
            if array is not None:
                array.check(expected, f"{label}, array {number}")
        self.check_untouched([None if a is None else a.array for a in arrays], label)

    def check_untouched(self, arrays, label):
        dropped = numpy.ones(self.start[0].shape, bool)
        dropped[numpy.ix_(self.rows.kept, self.columns.kept)] = False
        for number, (array, start) in enumerate(zip(arrays, self.start, strict=False)):
            if array is None:
                continue
            if number == 0 and "max_norm" in self.rule:
                dropped_here = dropped & ~self.columns.kept
            else:
                dropped_here = dropped
            assert_same_bits(array[dropped_here], start[dropped_here], f"{label}, {number}")


@pytest.fixture(scope="module")
def calls():
    """Calls by their parameters: every instruction set and thread count is given the same."""
    made = {}

    def call(shape, dtype, number, *, adam, rule, compact):
        key = (shape, dtype, number, adam, *sorted(rule.items()), compact)
        if key not in made:
            made[key] = Call(shape, dtype, number, adam=adam, rule=rule, compact=compact)
        return made[key]

    return call


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("adam", [False, True])
def test_updates(each_isa, each_thread_count, calls, dtype, compact, adam):
    rules = ADAM_RULES if adam else SGD_RULES
    for number, shape in enumerate(SHAPES):
        rule = rules[number % len(rules)]
        call = calls(shape, dtype, number, adam=adam, rule=rule, compact=compact)
        call.check(f"{shape} {rule}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adam", [False, True])
def test_every_rule_with_every_density(each_isa, calls, dtype, adam):
    for rule in ADAM_RULES if adam else SGD_RULES:
        for number in range(20):
            call = calls((33, 83), dtype, number, adam=adam, rule=rule, compact=number % 3 > 0)
            call.check(f"{number} {rule}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
def test_updates_split_over_threads(each_isa, each_thread_count, calls, dtype, adam, bounded):
    """Large enough for several threads, in tasks of rows or of columns."""
    rule = {"momentum": 0.9, "max_norm": 20.0} if bounded else {"momentum": 0.9}
    if adam:
        rule.pop("momentum")
    for number in (0, 4, 5):
        call = calls((571, 901), dtype, number, adam=adam, rule=rule, compact=True)
        call.check(f"{number}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_that_are_not_finite_are_left_alone(each_isa, dtype):
    w, expected = numpy.empty((2, 3, 2), dtype)
    w[...] = [[1, 3], [numpy.inf, 4], [2, 0]]
    expected[...] = [[1, 0.6], [numpy.inf, 0.8], [2, 0]]
    gradient = numpy.zeros((3, 2), dtype)
    _kernels.update(_kernels.Update(w, gradient, learning_rate=0.1, max_norm=1.0))
    numpy.testing.assert_allclose(w, expected, rtol=4 * numpy.finfo(dtype).eps)


@pytest.mark.parametrize("module", [_kernels, reference], ids=["c", "numpy"])
@pytest.mark.parametrize("compact", [False, True])
def test_a_gradient_of_another_shape(module, compact):
    w, bits = numpy.zeros((4, 6), numpy.float32), numpy.array([0b101], numpy.uint8)
    expected = r"\(2, 6\)" if compact else r"\(4, 6\)"
    gradient = numpy.zeros((3, 6), numpy.float32)
    with pytest.raises(ValueError, match=rf"gradient must have shape {expected}, got \(3, 6\)"):
        module.Update(w, gradient, compact=compact, rows=(bits, 0), learning_rate=0.1)


def test_both_have_the_update_kernels():
    for name in ("Update", "update"):
        assert callable(getattr(_kernels, name))
        assert callable(getattr(reference, name))


def test_strange_numbers_are_nan_of_many_bits():
    for dtype in DTYPES:
        array = strange(1000, dtype)
        assert numpy.isnan(array).all()
        assert numpy.unique(as_integers(array)).size > 900


def test_a_touched_weight_is_noticed(calls):
    call = calls((33, 83), numpy.float32, 0, adam=False, rule=SGD_RULES[0], compact=True)
    arrays = [array.copy() for array in call.start]
    call.check_untouched(arrays, "")
    row = int(numpy.flatnonzero(~call.rows.kept)[0])
    arrays[1].view(numpy.uint32)[row, 3] ^= 1
    with pytest.raises(AssertionError):
        call.check_untouched(arrays, "")
