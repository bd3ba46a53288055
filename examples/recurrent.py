"""Dropout in a recurrent network in plain NumPy: one mask for all steps, and zoneout.

The network reads 30 numbers, one a step, and has to say at the end whether the sum of the two that
a second input marks is positive: it has to remember. 300 examples are so few that it can learn them
by heart. It is trained without dropout, with a mask of the state for each step, with one mask for
all steps (Gal and Ghahramani 2016), and with zoneout, units that keep their state for a step
(Krueger et al. 2017). Which of them is best depends on the task; what matters here is how each is
done, forward and backward through time. Run it with

    python examples/recurrent.py
"""

import numpy as np

import fastdrop
from fastdrop import optim
from fastdrop.parameters import Parameter

TIME = 30
UNITS = 48
EXAMPLES = 300
BATCH = 50
EPOCHS = 60
RATE = 0.25
LEAK = 0.2  # how much of a new state a step takes


def examples(number, rng):
    """Sequences (time, number, 2) of numbers and marks, and whether the marked ones sum above 0."""
    x = np.zeros((TIME, number, 2), np.float32)
    x[..., 0] = rng.uniform(-1, 1, (TIME, number))
    rows = np.arange(number)
    x[rng.integers(0, TIME // 2, number), rows, 1] = 1
    x[rng.integers(TIME // 2, TIME, number), rows, 1] = 1
    return x, ((x[..., 0] * x[..., 1]).sum(axis=0) > 0).astype(np.float32)


def parameters(rng):
    """Weights of input, state and output, and biases."""
    w_in = rng.normal(0, 0.5, (2, UNITS))
    w_state = rng.normal(0, 1 / np.sqrt(UNITS), (UNITS, UNITS))
    w_out = rng.normal(0, 1 / np.sqrt(UNITS), (UNITS, 1))
    made = {"w_in": w_in, "w_state": w_state, "bias": np.zeros(UNITS), "w_out": w_out}
    made["bias_out"] = np.zeros(1)
    return {name: Parameter(name, value.astype(np.float32)) for name, value in made.items()}


def forward(p, x, way, stream, training):
    """Scores of a batch, and what the backward pass needs of every step."""
    h = np.zeros((x.shape[1], UNITS), np.float32)
    steps, mask = [], None
    for number, step in enumerate(x):
        dropped = h
        if training and way in ("each step", "all steps"):
            if way == "each step" or number == 0:
                mask = stream.draw(h.shape, rate=RATE)
            dropped = fastdrop.apply_mask(h, mask)
        active = np.tanh(step @ p["w_in"].value + dropped @ p["w_state"].value + p["bias"].value)
        new = h + LEAK * (active - h)
        zoned = None
        previous, h = h, new
        if way == "zoneout":
            h, zoned = fastdrop.zoneout(new, previous, RATE, rng=stream, training=training)
        steps.append((step, dropped, active, mask, zoned))
    return (h @ p["w_out"].value + p["bias_out"].value)[:, 0], h, steps


def backward(p, grad, h, steps):
    """Set the gradients, step by step from the last one."""
    for name in ("w_in", "w_state", "bias"):
        p[name].grad = np.zeros_like(p[name].value)
    p["w_out"].grad = h.T @ grad[:, None]
    p["bias_out"].grad = grad.sum(keepdims=True)
    grad_h = grad[:, None] @ p["w_out"].value.T
    for step, dropped, active, mask, zoned in reversed(steps):
        kept = 0
        if zoned is not None:
            grad_h, kept = fastdrop.zoneout_backward(grad_h, zoned)
        inner = LEAK * grad_h * (1 - active * active)
        p["w_in"].grad += step.T @ inner
        p["w_state"].grad += dropped.T @ inner
        p["bias"].grad += inner.sum(axis=0)
        through = inner @ p["w_state"].value.T
        if mask is not None:
            through = fastdrop.dropout_backward(through, mask)
        grad_h = (1 - LEAK) * grad_h + through + kept


def errors(p, way, x, y):
    """Share of wrong answers at test time."""
    scores, _, _ = forward(p, x, way, None, training=False)
    return float(((scores > 0) != (y > 0)).mean())


def train(way):
    """Share of wrong answers to the examples and to new ones, after training."""
    rng = np.random.default_rng(0)
    stream = fastdrop.MaskStream(seed=1)
    p = parameters(rng)
    opt = optim.Adam(p.values(), 0.003, clip_norm=1.0)
    x, y = examples(EXAMPLES, rng)
    new = examples(2000, rng)
    for _ in range(EPOCHS):
        order = rng.permutation(EXAMPLES)
        for first in range(0, EXAMPLES, BATCH):
            rows = order[first : first + BATCH]
            scores, h, steps = forward(p, x[:, rows], way, stream, training=True)
            grad = (1 / (1 + np.exp(-scores)) - y[rows]) / len(rows)
            backward(p, grad.astype(np.float32), h, steps)
            opt.step()
    return errors(p, way, x, y), errors(p, way, *new)


def main():
    print("wrong answers       trained on   new")
    for way in ("no dropout", "each step", "all steps", "zoneout"):
        learnt, new = train(way)
        print(f"{way:18} {100 * learnt:8.1f} % {100 * new:7.1f} %")


if __name__ == "__main__":
    main()
