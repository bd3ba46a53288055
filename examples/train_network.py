"""Train a network without dropout and with one mask for every 16 examples; compare on new examples.

The examples are noisy signals of 40 values. Each belongs to one of five classes, and each class has
four patterns; 250 of them are for learning. Run it with

    python examples/train_network.py
"""

import numpy as np

from fastdrop import nn, optim

CLASSES, PATTERNS, VALUES = 5, 20, 40
UNITS = 256
BATCH = 50
EPOCHS = 60


def signals(number, patterns, rng):
    """Signals (number, VALUES), float32, and their classes (number,)."""
    pattern = rng.integers(0, PATTERNS, number)
    noise = 1.1 * rng.standard_normal((number, VALUES))
    return (patterns[pattern] + noise).astype(np.float32), pattern % CLASSES


def network(rate):
    """Two hidden layers; seeded, so that weights and masks are the same in every run."""
    layers = []
    for units_in in (VALUES, UNITS):
        layers += [nn.Dense(units_in, UNITS), nn.ReLU(), nn.Dropout(rate, rows_per_mask=16)]
    return nn.Sequential([*layers, nn.Dense(UNITS, CLASSES)], rng=0)


def train(net, x, labels, rng):
    """Train with Adam, its learning rate coming down to 0 in the end."""
    steps = EPOCHS * -(-len(x) // BATCH)
    opt = optim.Adam(net, learning_rate=lambda step: 2e-3 * (1 - step / steps))
    loss = nn.SoftmaxCrossEntropy()
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for first in range(0, len(x), BATCH):
            batch = order[first : first + BATCH]
            _, grad = loss(net.forward(x[batch], training=True), labels[batch])
            net.backward(grad)
            opt.step()


def accuracy(net, x, labels):
    """Share of right answers; without `training=True` every unit takes part."""
    return np.mean(net.forward(x).argmax(axis=1) == labels)


def main():
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((PATTERNS, VALUES))
    x, labels = signals(250, patterns, rng)
    x_new, labels_new = signals(5000, patterns, rng)
    for rate in (0.0, 0.3):
        net = network(rate)
        train(net, x, labels, np.random.default_rng(1))
        seen, new = accuracy(net, x, labels), accuracy(net, x_new, labels_new)
        print(
            f"rate {rate}: accuracy {seen:.1%} on the 250 signals seen, {new:.1%} on 5000 new ones"
        )


if __name__ == "__main__":
    main()
