"""JAX on the CPU, everything under `jit`: dropout, training steps, Monte Carlo passes.

XLA makes one thread for each processor when it starts, and has no way to use fewer later, so these
contenders are bound to as many processors as the others have threads.
"""

import functools
import itertools

import numpy

from .. import verify
from ..cases import SEED, Contender, needs
from ..work.estimators import PASSES, RATE
from ..work.step import LEARNING_RATE, MOMENTUM

__all__ = ["dropout", "samples", "training_step"]


@needs("jax", "JAX, jit")
def dropout(x, rate):
    """Dropout as Flax does it: a mask from `jax.random.bernoulli`, then a choice."""
    import jax
    import jax.numpy as jnp

    keep_prob = 1 - rate
    array = jax.device_put(x)

    @jax.jit
    def compiled(key, x):
        key, now = jax.random.split(key)
        kept = jax.random.bernoulli(now, keep_prob, x.shape)
        return key, jnp.where(kept, x / keep_prob, 0)

    state = [jax.random.key(SEED)]

    def run():
        state[0], y = compiled(state[0], array)
        return y.block_until_ready()

    return Contender(
        "JAX, jit",
        run,
        check=lambda y: verify.check_rival(numpy.asarray(y), x, keep_prob),
        calls="bench.rivals.jax.compiled",
        bound=True,
    )


def _forward(weights, x, key, rate, shared=False):
    """Return the scores of a network of ReLUs with dropout behind each."""
    import jax
    import jax.numpy as jnp

    *hidden, (w, b) = weights
    for number, (u, c) in enumerate(hidden):
        x = jax.nn.relu(x @ u + c)
        if rate:
            now = jax.random.fold_in(key, number)
            shape = (1, x.shape[1]) if shared else x.shape
            x = jnp.where(jax.random.bernoulli(now, 1 - rate, shape), x / (1 - rate), 0)
    return x @ w + b


def training_step(work, optimiser, rate):
    """A step of SGD with momentum, or Adam: one compiled function, its state given back to it."""
    name = "JAX, jit" if rate else "JAX without dropout, jit"
    return needs("jax", name)(_training_step)(work, optimiser, rate, name)


def _training_step(work, optimiser, rate, name):
    import jax
    import jax.numpy as jnp

    generator = numpy.random.default_rng(SEED)
    weights = []
    for units in itertools.pairwise(work.units):
        w = generator.standard_normal(units, dtype=numpy.float32)
        w *= numpy.float32((2 / units[0]) ** 0.5)
        weights.append((jax.device_put(w), jnp.zeros(units[1])))
    x, labels = jax.device_put(work.x), jax.device_put(work.labels)
    moments = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2)]

    def loss(weights, key):
        scores = jax.nn.log_softmax(_forward(weights, x, key, rate))
        return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()

    def sgd(w, g, first, second, number):
        first = MOMENTUM * first + g
        return w - LEARNING_RATE * first, first, second

    def adam(w, g, first, second, number):
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        root = jnp.sqrt(second / (1 - 0.999**number)) + 1e-8
        return w - LEARNING_RATE * first / (1 - 0.9**number) / root, first, second

    update = adam if optimiser == "Adam" else sgd

    @functools.partial(jax.jit, donate_argnums=0)
    def compiled(state):
        weights, first, second, number, key = state
        number, key = number + 1, jax.random.fold_in(key, number)
        value, gradient = jax.value_and_grad(loss)(weights, key)
        made = jax.tree.map(lambda *all_: update(*all_, number), weights, gradient, first, second)
        parts = jax.tree.transpose(jax.tree.structure(weights), jax.tree.structure((0, 0, 0)), made)
        return value, (*parts, number, key)

    state = [(weights, *moments, jnp.int32(0), jax.random.key(SEED))]

    def run():
        value, state[0] = compiled(state[0])
        jax.block_until_ready(state[0])
        return float(value)

    def check(value):
        work.check_value(value)
        before = numpy.asarray(state[0][0][0][0])
        run()
        moved = not numpy.array_equal(before, numpy.asarray(state[0][0][0][0]))
        verify.require(moved, "the weights did not move")

    return Contender(name, run, check, "bench.rivals.jax.compiled", bound=True)


@needs("jax", "JAX, jit")
def samples(work):
    """Monte Carlo passes: one compiled loop over them, behind a first layer computed once."""
    import jax
    import jax.numpy as jnp

    model = work.trained
    weights = [
        (jax.device_put(w), jax.device_put(b))
        for w, b in zip(model.coefs_, model.intercepts_, strict=True)
    ]
    x = jax.device_put(work.x)

    @jax.jit
    def compiled(key, weights, x):
        (w, b), *later = weights
        first = jax.nn.relu(x @ w + b)

        def one(key):
            units = jax.random.bernoulli(key, 1 - RATE, (1, first.shape[1]))
            seen = jnp.where(units, first / (1 - RATE), 0)
            scores = _forward(later, seen, jax.random.fold_in(key, 1), RATE, shared=True)
            return jax.nn.softmax(scores)

        return jax.lax.map(one, jax.random.split(key, PASSES))

    keys = map(jax.random.key, itertools.count())

    def run():
        return compiled(next(keys), weights, x).block_until_ready()

    return Contender(
        "JAX, jit",
        run,
        check=lambda found: work.check_samples(numpy.asarray(found)),
        calls="bench.rivals.jax.compiled",
        note=f"{PASSES} passes, a mask for all rows",
        bound=True,
    )
