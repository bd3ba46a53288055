"""What dropout does, on real data: ``python -m fastdrop demo``.

A multilayer perceptron learns to read handwritten digits from few examples, once with dropout and
once without, from the same initial weights, on the same examples in the same order. The masks,
their application and the backward pass are fastdrop's; the matrix products are NumPy's.

The network, ReLU units and dropout of the inputs and of both hidden layers, follows Srivastava et
al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014), section
4 and appendix B.1 (a network for MNIST). The training settings below were chosen by runs over
several seeds, and are the same for both rows of the table.
"""

import argparse
import importlib
import itertools
import math
import os
import sys
import time
from dataclasses import dataclass, field

import numpy

from fastdrop.functional import dropout, dropout_backward
from fastdrop.stream import MaskStream

TRAINING_EXAMPLES = 300
BATCH = 30
LEARNING_RATE = 0.03
MOMENTUM = 0.9
# Pixels are less redundant than hidden units: they bear a smaller rate.
INPUT_SHARE = 0.2


@dataclass
class Run:
    """One trained network: its settings and what came of it."""

    rate: float
    seed: int
    training: float = math.nan
    test: float = math.nan
    seconds: float = 0.0
    curve: list = field(default_factory=list)  # test accuracy after each epoch, when asked for


class Network:
    """Dense - ReLU - dropout, twice, then Dense; trained by SGD with momentum.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input, of each hidden layer and of the output.
    rate : float
        Dropout rate of the hidden layers; 0 leaves dropout out.
    seed : int
        Seed of the masks.
    rng : numpy.random.Generator
        Draws the initial weights (He et al. 2015, arXiv 1502.01852, section 2.2).
    """

    def __init__(self, sizes, rate, seed, rng):
        shapes = list(itertools.pairwise(sizes))
        self.weights = [
            rng.normal(0.0, math.sqrt(2 / shape[0]), shape).astype(numpy.float32)
            for shape in shapes
        ]
        self.biases = [numpy.zeros(shape[1], numpy.float32) for shape in shapes]
        self.velocities = [numpy.zeros_like(p) for p in (*self.weights, *self.biases)]
        self.rates = [rate * INPUT_SHARE] + [rate] * (len(shapes) - 1)
        # One stream per dropout layer: what one layer draws never shifts another's masks.
        self.streams = MaskStream(seed).spawn(len(shapes))

    def predict(self, x):
        """Scores of the classes, shape (batch, classes); every unit takes part."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = numpy.maximum(x @ weight + bias, 0)
        return x @ self.weights[-1] + self.biases[-1]

    def train_step(self, x, labels, learning_rate):
        """Update the parameters by the gradient of the mean cross-entropy of one batch."""
        inputs, masks = [], []  # of each Dense layer, after dropout
        for rate, stream, weight, bias in zip(
            self.rates, self.streams, self.weights, self.biases, strict=True
        ):
            if inputs:
                x = numpy.maximum(x, 0, out=x)
            mask = None
            if rate > 0:
                x, mask = dropout(x, rate, rng=stream)
            inputs.append(x)
            masks.append(mask)
            x = x @ weight + bias

        x -= x.max(axis=1, keepdims=True)
        gradient = numpy.exp(x)
        gradient /= gradient.sum(axis=1, keepdims=True)
        gradient[numpy.arange(len(labels)), labels] -= 1
        gradient /= len(labels)

        weight_gradients, bias_gradients = [], []
        for layer in reversed(range(len(self.weights))):
            weight_gradients.insert(0, inputs[layer].T @ gradient)
            bias_gradients.insert(0, gradient.sum(axis=0))
            if layer > 0:
                gradient = gradient @ self.weights[layer].T
                if masks[layer] is not None:
                    gradient = dropout_backward(gradient, masks[layer])
                # Where the layer's input is 0, either the ReLU or the mask stopped it.
                gradient *= inputs[layer] > 0
        self._update([*weight_gradients, *bias_gradients], learning_rate)

    def _update(self, gradients, learning_rate):
        parameters = (*self.weights, *self.biases)
        for parameter, velocity, gradient in zip(
            parameters, self.velocities, gradients, strict=True
        ):
            velocity *= MOMENTUM
            velocity -= learning_rate * gradient
            parameter += velocity


def accuracy(network, x, labels):
    """Share of the examples that the network puts into their class, in [0, 1]."""
    return float(numpy.mean(network.predict(x).argmax(axis=1) == labels))


def train(images, labels, *, rate, seed, hidden, epochs, curve, after_epoch):
    """Train one network and measure it.

    Parameters
    ----------
    images : numpy.ndarray of float32, shape (examples, pixels)
    labels : numpy.ndarray of int, shape (examples,)
    rate : float
        Dropout rate of the hidden layers.
    seed : int
        Decides which examples are for training, the initial weights, their order, the masks.
    hidden, epochs : int
        Units of each hidden layer; passes over the training examples.
    curve : bool
        Whether to measure the test accuracy after every epoch.
    after_epoch : callable
        Called without arguments after every epoch.

    Returns
    -------
    Run
    """
    rng = numpy.random.default_rng(seed)
    order = rng.permutation(len(labels))
    training, test = order[:TRAINING_EXAMPLES], order[TRAINING_EXAMPLES:]
    sizes = (images.shape[1], hidden, hidden, int(labels.max()) + 1)
    network = Network(sizes, rate, seed, rng)
    run = Run(rate, seed)
    for epoch in range(epochs):
        start = time.perf_counter()
        learning_rate = LEARNING_RATE * (1 - epoch / epochs)
        shuffled = training[rng.permutation(TRAINING_EXAMPLES)]
        for first in range(0, TRAINING_EXAMPLES, BATCH):
            batch = shuffled[first : first + BATCH]
            network.train_step(images[batch], labels[batch], learning_rate)
        run.seconds += time.perf_counter() - start
        if curve:
            run.curve.append(accuracy(network, images[test], labels[test]))
        after_epoch()
    run.training = accuracy(network, images[training], labels[training])
    run.test = accuracy(network, images[test], labels[test])
    return run


def table(runs):
    """The table, one row per rate: means over the seeds and the spread of the test accuracy."""
    lines = [
        f"{'':14}{'training':>11}{'test accuracy':>20}{'gap':>9}{'seconds':>10}{'runs':>6}",
        f"{'':14}{'accuracy':>11}{'(+- std. dev.)':>20}{'':>9}{'per run':>10}",
    ]
    for rate in sorted({run.rate for run in runs}):
        rows = [run for run in runs if run.rate == rate]
        training = 100 * numpy.mean([run.training for run in rows])
        tests = [100 * run.test for run in rows]
        spread = f" +- {numpy.std(tests, ddof=1):.1f}" if len(rows) > 1 else ""
        lines.append(
            f"{f'dropout {rate:g}' if rate else 'no dropout':14}{training:>9.1f} %"
            f"{f'{numpy.mean(tests):.1f} %{spread}':>20}"
            f"{training - numpy.mean(tests):>9.1f}"
            f"{numpy.mean([run.seconds for run in rows]):>10.2f}{len(rows):>6}"
        )
    return "\n".join(lines)


def conclusion(runs, test_examples):
    """Two sentences on what the table shows, from the seeds that have both rows."""
    plain = {run.seed: run for run in runs if run.rate == 0}
    dropped = {run.seed: run for run in runs if run.rate > 0}
    seeds = sorted(plain.keys() & dropped.keys())
    if not seeds:
        return "Nothing can be compared yet. Let at least one network of each kind finish."
    means = [
        100 * float(numpy.mean([getattr(group[seed], part) for seed in seeds]))
        for group in (plain, dropped)
        for part in ("training", "test")
    ]
    first = (
        f"Without dropout the network knows {means[0]:.1f} % of its {TRAINING_EXAMPLES} training "
        f"digits but only {means[1]:.1f} % of the {test_examples} it never saw; with dropout, "
        f"{means[2]:.1f} % and {means[3]:.1f} %."
    )
    better = sum(dropped[seed].test > plain[seed].test for seed in seeds)
    if means[3] > means[1]:
        fewer = 100 * (means[3] - means[1]) / (100 - means[1])
        second = (
            f"So dropout took away {fewer:.0f} % of the mistakes on new digits (it was the better "
            f"one in {better} of {len(seeds)} runs): no unit could rely on the others being there."
        )
    else:
        second = (
            "So here dropout did not help on new digits: with these settings there is too little "
            "to overfit, or too little time; try more --hidden, more --epochs or a lower --rate."
        )
    return f"{first}\n{second}"


def draw_curves(runs, path):
    """Write a picture of the learning curves: test accuracy against epochs, mean and runs."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for rate, colour in zip(sorted({run.rate for run in runs}), ("C1", "C0"), strict=False):
        curves = 100 * numpy.array([run.curve for run in runs if run.rate == rate])
        epochs = numpy.arange(1, curves.shape[1] + 1)
        for curve in curves:
            axes.plot(epochs, curve, color=colour, alpha=0.25, linewidth=0.8)
        name = f"dropout {rate:g}" if rate else "no dropout"
        axes.plot(epochs, curves.mean(axis=0), color=colour, label=f"{name}, mean")
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"Handwritten digits, {TRAINING_EXAMPLES} training examples")
    # The first epochs are far below: the picture is about where the curves end.
    final = 100 * numpy.array([run.curve[-1] for run in runs])
    axes.set_ylim(max(0.0, final.min() - 8), min(100.0, final.max() + 2))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _number(convert, low, below=math.inf):
    """An argparse type: a number in [low, below)."""

    def parse(text):
        value = convert(text)
        if not low <= value < below:
            wanted = f"at least {low}" if below == math.inf else f"in [{low}, {below})"
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
        return value

    parse.__name__ = convert.__name__  # argparse names it where `convert` fails
    return parse


def add_arguments(parser):
    """Declare the options of the command on an argparse parser."""
    parser.add_argument("--plot", metavar="FILE", help="draw the two learning curves (png, svg, …)")
    parser.add_argument("--seed", type=_number(int, 0), default=0, help="first seed (default 0)")
    parser.add_argument(
        "--seeds", type=_number(int, 1), default=5, help="how many seeds (default 5)"
    )
    parser.add_argument(
        "--rate",
        type=_number(float, 0, 1),
        default=0.5,
        help=f"dropout rate of the hidden layers (default 0.5); inputs get {INPUT_SHARE:g} of it",
    )
    parser.add_argument(
        "--epochs", type=_number(int, 1), default=100, help="passes over the data (default 100)"
    )
    parser.add_argument(
        "--hidden", type=_number(int, 1), default=512, help="units per hidden layer (default 512)"
    )


def _require(modules):
    """Import the optional packages, or end with the line that installs them."""
    loaded, missing = [], []
    for module, distribution in modules.items():
        try:
            loaded.append(importlib.import_module(module))
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != module.split(".")[0]:
                raise  # it is there, but broken
            missing.append(distribution)
    if missing:
        sys.exit(
            f"The demo needs {' and '.join(missing)}. Install with\n"
            "    python -m pip install 'fastdrop-numpy[demo]'\n"
            "or, in a source checkout,\n"
            "    python -m pip install -e '.[demo]'"
        )
    return loaded


def _check_plot(path):
    """End before the training, not after it, where the picture could not be written."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        sys.exit(f"--plot: there is no directory {directory!r}")
    figure = importlib.import_module("matplotlib.figure").Figure()
    kinds = figure.canvas.get_supported_filetypes()
    ending = os.path.splitext(path)[1].lstrip(".").lower()
    if ending and ending not in kinds:
        sys.exit(f"--plot: cannot write {ending!r} files; known are {', '.join(sorted(kinds))}")


def run_demo(options):
    """Train all networks, print the table and what it says.

    Parameters
    ----------
    options : argparse.Namespace
        As made by the arguments of `add_arguments`.

    Returns
    -------
    int
        The exit code: 0, or 130 after Ctrl-C.
    """
    needed = {
        "sklearn.datasets": "scikit-learn",
        "threadpoolctl": "threadpoolctl",
        "tqdm": "tqdm",
    }
    if options.plot:
        needed["matplotlib.figure"] = "matplotlib"
    datasets, threadpoolctl, tqdm, *_ = _require(needed)
    if options.plot:
        _check_plot(options.plot)
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(numpy.float32)

    seeds = range(options.seed, options.seed + options.seeds)
    rates = [0.0, options.rate] if options.rate else [0.0]
    plan = [(seed, rate) for seed in seeds for rate in rates]
    runs, interrupted = [], False
    # These products are too small for several threads to gain much, and on a busy machine threads
    # that wait for each other at every product take ten times as long.
    one_thread = threadpoolctl.threadpool_limits(1, user_api="blas")
    bar = tqdm.tqdm(total=len(plan) * options.epochs, unit="epoch", leave=False)
    with one_thread, bar:
        try:
            for seed, rate in plan:
                bar.set_description(f"seed {seed}, {f'dropout {rate:g}' if rate else 'no dropout'}")
                runs.append(
                    train(
                        images,
                        labels,
                        rate=rate,
                        seed=seed,
                        hidden=options.hidden,
                        epochs=options.epochs,
                        curve=bool(options.plot),
                        after_epoch=bar.update,
                    )
                )
        except KeyboardInterrupt:
            interrupted = True

    if interrupted:
        print(f"Interrupted after {len(runs)} of {len(plan)} networks; so far:\n")
    if runs:
        print(table(runs))
        print("\n" + conclusion(runs, len(labels) - TRAINING_EXAMPLES))
        if options.plot:
            draw_curves(runs, options.plot)
            print(f"\nLearning curves: {options.plot}")
    return 130 if interrupted else 0
