"""Stop a training run and go on later, as if nothing had happened: weights, moments, masks.

Run it with

    python examples/checkpoint_and_resume.py
"""

import tempfile
from pathlib import Path

import numpy as np

import fastdrop
from fastdrop import nn, optim

EPOCHS = 12
CHECKPOINT_EVERY = 4


def make():
    """A network and its optimiser, as they are at the beginning of every run."""
    layers = [nn.Dense(30, 128), nn.Tanh(), nn.Dropout(0.3), nn.Dense(128, 1)]
    net = nn.Sequential(layers, rng=7)
    return net, optim.AdamW(net, learning_rate=2e-3)


def batches(epoch):
    """The batches of an epoch, a function of its number: a resumed run sees what it would have."""
    rng = np.random.default_rng([5, epoch])
    truth = np.random.default_rng(5).standard_normal((30, 1))
    for _ in range(20):
        x = rng.standard_normal((32, 30))
        yield x, np.tanh(x @ truth / 3)


def train(path, stop_after=EPOCHS):
    """Train from the checkpoint, if there is one, until an epoch; returns the network."""
    net, opt = make()
    first = 0
    if path.exists():
        fastdrop.load(path, net, opt)
        first = opt.steps // 20
        print(f"  resumed at epoch {first}")
    loss = nn.MeanSquaredError()
    for epoch in range(first, stop_after):
        for x, y in batches(epoch):
            value, grad = loss(net.forward(x, training=True), y)
            net.backward(grad)
            opt.step()
        if (epoch + 1) % CHECKPOINT_EVERY == 0:
            fastdrop.save(path, net, opt)  # a crash meanwhile would leave the file before it
            print(f"  epoch {epoch + 1}: loss {value:.4f}, saved")
    return net


def main():
    with tempfile.TemporaryDirectory() as folder:
        print("without a break:")
        whole = train(Path(folder) / "whole.npz")
        print("stopped after epoch 6, two epochs after the last checkpoint:")
        train(Path(folder) / "broken.npz", stop_after=6)
        print("started again:")
        resumed = train(Path(folder) / "broken.npz")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        same = np.array_equal(one.value, other.value)
        print(f"{one.name}: {'the same, bit for bit' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
