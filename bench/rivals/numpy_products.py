"""NumPy's own BLAS: products of which a part was dropped, and whole training steps.

`gather` is what Graham et al. 2015 (arXiv 1502.02478) did on a GPU: gather the units that are kept,
multiply those, scatter.
"""

import functools
import itertools

import numpy

import fastdrop

from .. import verify
from ..cases import SEED, Contender
from ..work.estimators import RATE, SAMPLES, check_moments
from ..work.matmul import check_product
from ..work.step import LEARNING_RATE, MOMENTUM

__all__ = [
    "apply_mask_forward",
    "dense_forward",
    "dense_step",
    "float_mask_forward",
    "float_mask_step",
    "gather_step",
    "moments",
    "training_step",
]


# --- The forward product -----------------------------------------------------------------------


def dense_forward(work, out, name):
    """Multiply everything, of an input whose dropout cost nothing: the bound."""
    x, w = work.dropped_x, work.w
    return Contender(
        name,
        run=lambda: numpy.matmul(x, w, out=out),
        check=work.check_forward,
        calls="numpy.matmul",
        note="of an input with its dropout applied already",
    )


def apply_mask_forward(work, out, name):
    """Apply the mask with fastdrop, then multiply everything."""
    x, w, mask, dropped = work.x, work.w, work.mask_in, numpy.empty_like(work.x)

    def run():
        fastdrop.apply_mask(x, mask, out=dropped)
        return numpy.matmul(dropped, w, out=out)

    return Contender(name, run, work.check_forward, calls="numpy.matmul")


def float_mask_forward(work, out, name):
    """Multiply by the mask as floats, then multiply everything."""
    x, w, factors, dropped = work.x, work.w, work.factors_in, numpy.empty_like(work.x)

    def run():
        numpy.multiply(x, factors, out=dropped)
        return numpy.matmul(dropped, w, out=out)

    return Contender(name, run, work.check_forward, calls="numpy.matmul")


# --- Forward and backward ----------------------------------------------------------------------


def dense_step(work, name):
    """Multiply everything, without any dropout: what a step costs that drops nothing."""
    x, w, grad_y = work.dropped_x, work.w, work.dropped_grad
    y, grad_x, grad_w = numpy.empty_like(grad_y), numpy.empty_like(x), numpy.empty_like(w)

    def check(result):
        a, wide, g = (array.astype(float) for array in (x, w, grad_y))
        check_product(result[0], a, wide, 0)
        check_product(result[1], g, wide.T, 0)
        check_product(result[2], a.T, g, 0)

    def run():
        numpy.matmul(x, w, out=y)
        numpy.matmul(grad_y, w.T, out=grad_x)
        numpy.matmul(x.T, grad_y, out=grad_w)
        return y, grad_x, grad_w

    return Contender(
        name, run, check, calls="numpy.matmul", note="the three products alone, no dropout"
    )


def float_mask_step(work):
    """Multiply by masks as floats before and after multiplying everything."""
    x, w, grad_y = work.x, work.w, work.grad_y
    factors_in, factors_out = work.factors_in, work.factors_out

    def run():
        dropped = x * factors_in
        y = numpy.matmul(dropped, w) * factors_out
        grad = grad_y * factors_out
        return y, numpy.matmul(grad, w.T) * factors_in, numpy.matmul(dropped.T, grad)

    return Contender("np.matmul, float masks", run, work.check_step, calls="numpy.matmul")


def gather_step(work, name):
    """Gather active units with NumPy's indexing, multiply them, scatter; group by group."""
    x, w, grad_y = work.x, work.w, work.grad_y
    scale = numpy.float32(work.mask_in.scale * work.mask_out.scale)
    rows_per_mask = work.mask_in.rows_per_mask
    length = len(x) if rows_per_mask == "batch" else rows_per_mask
    groups = [
        (slice(length * number, length * (number + 1)), *map(numpy.flatnonzero, pair))
        for number, pair in enumerate(
            zip(work.mask_in.to_array(), work.mask_out.to_array(), strict=True)
        )
    ]

    def forward():
        y = numpy.zeros(grad_y.shape, numpy.float32)
        for rows, units, units_out in groups:
            product = numpy.matmul(x[rows][:, units], w[numpy.ix_(units, units_out)])
            product *= scale
            y[rows, units_out] = product
        return y

    def run():
        y = forward()
        grad_x = numpy.zeros(x.shape, numpy.float32)
        grad_w = numpy.zeros(w.shape, numpy.float32)
        for rows, units, units_out in groups:
            grad = grad_y[rows][:, units_out]
            grad *= scale
            both = numpy.ix_(units, units_out)
            grad_x[rows, units] = numpy.matmul(grad, w[both].T)
            product = numpy.matmul(x[rows][:, units].T, grad)
            if len(groups) == 1:
                grad_w[both] = product
            else:
                grad_w[both] += product
        return y, grad_x, grad_w

    return Contender(name, run, work.check_step, calls="numpy.matmul")


# --- Monte Carlo samples -----------------------------------------------------------------------


def moments(work):
    """Mean and deviation of a prediction, samples stacked as rows by hand."""
    model = work.regressor
    (first, bias), *others = zip(model.coefs_, model.intercepts_, strict=True)
    generator = numpy.random.default_rng(SEED)

    def run():
        h = numpy.maximum(work.x @ first + bias, 0)[None]
        for number, (weight, shift) in enumerate(others):
            units = generator.random((SAMPLES, 1, h.shape[2]), dtype=numpy.float32) >= RATE
            h = h * (units * numpy.float32(1 / (1 - RATE)))
            h = h.reshape(-1, h.shape[2]) @ weight + shift
            h = h.reshape(SAMPLES, work.examples, -1)
            if number + 1 < len(others):
                numpy.maximum(h, 0, out=h)
        return numpy.mean(h, axis=0), numpy.std(h, axis=0)

    check = functools.partial(check_moments, work)
    return Contender("NumPy", run, check, calls="numpy.std", note="samples stacked by hand")


# --- A whole training step ---------------------------------------------------------------------


def training_step(work, rate, gathered):
    """SGD with momentum on a network with ReLUs, written out in NumPy, arrays used again.

    Parameters
    ----------
    work : work.step.Work
    rate : float
    gathered : bool
        One set of units for the whole batch, gathered; otherwise a float32 mask for each example.
    """
    net = _Network(work, rate)
    forward = net.gathered if gathered else net.masked

    def run():
        caches, scores = forward()
        scores -= scores.max(axis=1, keepdims=True)
        numpy.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        value = -numpy.log(scores[net.examples, work.labels]).mean()
        scores[net.examples, work.labels] -= 1
        scores /= work.batch
        net.update(caches, scores)
        return float(value)

    def check(value):
        work.check_value(value)
        before = [w.copy() for w in net.weights]
        run()
        moved = [not numpy.array_equal(a, b) for a, b in zip(before, net.weights, strict=True)]
        verify.require(all(moved), "a layer's weights did not move")

    name = "NumPy gather" if gathered else "NumPy"
    return Contender(name, run, check, calls="numpy.log")


class _Network:
    """Weights, their momentum, and the two ways through them."""

    def __init__(self, work, rate):
        self.x, self.rate = work.x, rate
        self.generator = numpy.random.default_rng(SEED)
        self.examples = numpy.arange(work.batch)
        self.weights, self.biases = [], []
        for units in itertools.pairwise(work.units):
            w = self.generator.standard_normal(units, dtype=numpy.float32)
            w *= numpy.float32((2 / units[0]) ** 0.5)
            self.weights.append(w)
            self.biases.append(numpy.zeros(units[1], numpy.float32))
        self.velocities = [numpy.zeros_like(w) for w in [*self.weights, *self.biases]]
        self.gradients = [numpy.empty_like(w) for w in self.weights]

    def masked(self):
        """Return what each layer saw and what has to be multiplied on the way back; and scores."""
        x, caches = self.x, []
        last = len(self.weights) - 1
        for number, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            y = numpy.matmul(x, w)
            y += b
            caches.append((x, w, slice(None), None))
            if number == last:
                return caches, y
            factors = (y > 0).astype(numpy.float32)
            if self.rate:
                factors *= self.generator.random(y.shape, dtype=numpy.float32) >= self.rate
                factors *= numpy.float32(1 / (1 - self.rate))
            y *= factors
            caches[-1] = (x, w, slice(None), factors)
            x = y

    def gathered(self):
        """Return the same, of the kept units only."""
        x, caches, rows = self.x, [], slice(None)
        last = len(self.weights) - 1
        for number, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            if number == last:
                part = w[rows]
                caches.append((x, part, (rows, slice(None)), None))
                return caches, numpy.matmul(x, part) + b
            kept = numpy.flatnonzero(self.generator.random(w.shape[1]) >= self.rate)
            index = (rows, kept) if isinstance(rows, slice) else numpy.ix_(rows, kept)
            part = w[index]
            y = numpy.matmul(x, part)
            y += b[kept]
            factors = (y > 0) * numpy.float32(1 / (1 - self.rate))
            y *= factors
            caches.append((x, part, index, factors))
            x, rows = y, kept

    def update(self, caches, grad):
        """Go back through the layers and move the weights that took part."""
        layers = len(caches)
        for number in reversed(range(layers)):
            x, w, index, factors = caches[number]
            if factors is not None:
                grad *= factors
            whole = isinstance(index, slice)
            into = self.gradients[number] if whole else None
            gradient = numpy.matmul(x.T, grad, out=into)
            of_bias = grad.sum(axis=0)
            columns = index if whole else index[1].ravel() if factors is not None else slice(None)
            if number:
                grad = numpy.matmul(grad, w.T)
            self._move(self.weights[number], self.velocities[number], index, gradient)
            velocity = self.velocities[layers + number]
            self._move(self.biases[number], velocity, columns, of_bias)

    @staticmethod
    def _move(values, velocity, index, gradient):
        if isinstance(index, slice):
            velocity *= numpy.float32(MOMENTUM)
            velocity += gradient
            numpy.multiply(velocity, numpy.float32(LEARNING_RATE), out=gradient)
            values -= gradient
            return
        step = velocity[index]
        step *= numpy.float32(MOMENTUM)
        step += gradient
        velocity[index] = step
        step *= numpy.float32(LEARNING_RATE)
        values[index] -= step
