"""kill -9 at any moment: the checkpoint on the disk is whole, and training goes on bit for bit.

`--exhaustive` kills 200 times instead of 15.
"""

import os
import random
import signal
import time

import numpy
import pytest

import fastdrop
from fastdrop import nn, optim

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class Run:
    """A training run that saves itself after every step."""

    def __init__(self):
        layers = [nn.Dense(50, 200), nn.ReLU(), nn.Dropout(0.5, rows_per_mask="batch")]
        self.net = nn.Sequential([*layers, nn.Dense(200, 10)], rng=0)
        self.opt = optim.Adam(self.net)
        self.loss = nn.SoftmaxCrossEntropy()

    def step(self):
        """Step number n uses batch number n."""
        generator = numpy.random.default_rng(self.opt.steps)
        x = generator.standard_normal((32, 50)).astype(numpy.float32)
        _, grad = self.loss(self.net.forward(x, training=True), generator.integers(0, 10, 32))
        self.net.backward(grad)
        self.opt.step()

    def load(self, path):
        fastdrop.load(path, self.net, self.opt)
        return self

    def assert_equals(self, other):
        for mine, theirs in ((self.net, other.net), (self.opt, other.opt)):
            numpy.testing.assert_equal(mine.state_dict(), theirs.state_dict())


def train_until_killed(path, ready):
    """The child: go on from the file, for ever."""
    run = Run().load(path)
    os.write(ready, b".")
    while True:
        run.step()
        fastdrop.save(path, run.net, run.opt)


def kill_after(path, seconds):
    """Train in a child process, and kill it so long after its start."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            train_until_killed(path, writing)
        finally:
            os._exit(1)
    os.close(writing)
    started = os.read(reading, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert started == b"."
    assert os.WIFSIGNALED(status), "the child ended by itself"
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_killed_at_random_moments(tmp_path, exhaustive):
    path = tmp_path / "run.npz"
    generator = random.Random(0)
    expected = Run()  # is never killed
    fastdrop.save(path, expected.net, expected.opt)
    steps, half_written = [0], 0
    for _ in range(200 if exhaustive else 15):
        kill_after(path, generator.uniform(0, 0.05))
        found = Run().load(path)
        while expected.opt.steps < found.opt.steps:
            expected.step()
        found.assert_equals(expected)
        steps.append(found.opt.steps)
        leftover = [name for name in os.listdir(tmp_path) if name != "run.npz"]
        assert all(name.startswith(".run.npz.") and name.endswith(".tmp") for name in leftover)
        half_written += len(leftover)
        for name in leftover:
            os.unlink(tmp_path / name)
    assert steps == sorted(steps)
    assert steps[-1] > 0
    print(f"{len(steps) - 1} kills, {steps[-1]} steps, {half_written} during a save")
    if exhaustive:
        assert half_written > 0  # else the moments were not random enough to show anything
