"""Dropout on real data: ``python -m fastdrop demo``.

A multilayer perceptron learns to read handwritten digits from few examples: without dropout, and
with masks of every kind: one for each example, one for each group of examples, one for each batch.
All begin with the same weights and see the same examples in the same order. In the end a
scikit-learn estimator with dropout shows its least sure prediction.

The network, ReLU units and dropout of the inputs and of both hidden layers, follows Srivastava et
al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014), section
4 and appendix B.1 (a network for MNIST). The training settings below were chosen by runs over
several seeds, and are the same for all rows of the table, except that masks for a whole batch,
which leave more noise in the gradient, get half the learning rate.
"""

import argparse
import contextlib
import importlib
import itertools
import math
import os
import sys
import time
from dataclasses import dataclass, field

import numpy

from fastdrop import get_num_threads, nn, optim, set_num_threads

from . import uncertainty
from .report import by_kind, conclusion, legend, table, wrapped

TRAINING_EXAMPLES = 300
BATCH = 30
LEARNING_RATE = 0.03
MOMENTUM = 0.9
# Pixels are less redundant than hidden units and need a smaller rate.
INPUT_SHARE = 0.2
GROUP = 10
# Kind of mask: rows per mask, factor on the learning rate.
KINDS = {
    "no dropout": (None, 1.0),
    "per-sample": (1, 1.0),
    "grouped": (GROUP, 1.0),
    "batchwise": ("batch", 0.5),
}


@dataclass
class Run:
    """One trained network: its settings and results."""

    kind: str
    rate: float
    seed: int
    training: float = math.nan
    test: float = math.nan
    seconds: float = 0.0
    curve: list = field(default_factory=list)  # test accuracy after each epoch, when asked for

    @property
    def label(self):
        """Its name in the table."""
        return self.kind if self.kind == "no dropout" else f"{self.kind} {self.rate:g}"


def build(sizes, kind, rate, seed):
    """Return a network: Dense - ReLU - dropout, twice, then Dense.

    Parameters
    ----------
    sizes : sequence of int
        Units of the input, of each hidden layer and of the output.
    kind : str
        One of `KINDS`.
    rate : float
        Dropout rate of the hidden layers.
    seed : int
        Of the initial weights, which do not depend on the kind, and of the masks.

    Returns
    -------
    nn.Sequential
    """
    rows_per_mask, _ = KINDS[kind]

    def dropout(share):
        if rows_per_mask is None:
            return []
        return [nn.Dropout(rate * share, rows_per_mask=rows_per_mask)]

    layers = dropout(INPUT_SHARE)
    for units_in, units_out in itertools.pairwise(sizes[:-1]):
        layers += [nn.Dense(units_in, units_out), nn.ReLU(), *dropout(1)]
    return nn.Sequential([*layers, nn.Dense(*sizes[-2:])], rng=seed)


def accuracy(network, x, labels):
    """Share of the examples that the network puts into their class, in [0, 1]."""
    return float(numpy.mean(network.forward(x).argmax(axis=1) == labels))


def train(images, labels, *, kind, rate, seed, hidden, epochs, curve, after_epoch):
    """Train one network and measure it.

    Parameters
    ----------
    images : numpy.ndarray of float32, shape (examples, pixels)
    labels : numpy.ndarray of int, shape (examples,)
    kind : str
        One of `KINDS`.
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
    network = build(sizes, kind, rate, seed)
    batches = range(0, TRAINING_EXAMPLES, BATCH)

    def learning_rate(step):
        return LEARNING_RATE * KINDS[kind][1] * (1 - step // len(batches) / epochs)

    optimiser = optim.SGD(network, learning_rate, momentum=MOMENTUM)
    loss = nn.SoftmaxCrossEntropy()
    run = Run(kind, rate, seed)
    for _ in range(epochs):
        start = time.perf_counter()
        shuffled = training[rng.permutation(TRAINING_EXAMPLES)]
        for first in batches:
            batch = shuffled[first : first + BATCH]
            _, gradient = loss(network.forward(images[batch], training=True), labels[batch])
            network.backward(gradient)
            optimiser.step()
        run.seconds += time.perf_counter() - start
        if curve:
            run.curve.append(accuracy(network, images[test], labels[test]))
        after_epoch()
    run.training = accuracy(network, images[training], labels[training])
    run.test = accuracy(network, images[test], labels[test])
    return run


def draw_curves(runs, path):
    """Write a picture of the learning curves: test accuracy against epochs, mean and runs."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for rows, colour in zip(by_kind(runs, KINDS).values(), ("C1", "C0", "C2", "C3"), strict=False):
        curves = 100 * numpy.array([run.curve for run in rows])
        epochs = numpy.arange(1, curves.shape[1] + 1)
        for curve in curves:
            axes.plot(epochs, curve, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(epochs, curves.mean(axis=0), color=colour, label=f"{rows[0].label}, mean")
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
    parser.add_argument("--plot", metavar="FILE", help="draw the learning curves (png, svg, …)")
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


@contextlib.contextmanager
def one_thread(threadpoolctl):
    """Compute on one thread meanwhile.

    These products are too small for several threads to gain much, and on a busy machine threads
    that wait for each other at every product take ten times as long.
    """
    threads = get_num_threads()
    set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            yield
    finally:
        set_num_threads(threads)


def uncertain_prediction(images, labels, options):
    """Fit an estimator with a mask for each example, as in the table; return its text."""
    order = numpy.random.default_rng(options.seed).permutation(len(labels))
    training, test = order[:TRAINING_EXAMPLES], order[TRAINING_EXAMPLES:]
    model = uncertainty.fit(
        images[training],
        labels[training],
        hidden_layer_sizes=(options.hidden, options.hidden),
        dropout=options.rate,
        input_dropout=options.rate * INPUT_SHARE,
        solver="sgd",
        learning_rate_init=LEARNING_RATE,
        momentum=MOMENTUM,
        batch_size=BATCH,
        max_iter=options.epochs,
        random_state=options.seed,
    )
    return uncertainty.report(model, images[test], labels[test], options.seed)


def run_demo(options):
    """Train all networks, print the table, its conclusion and an uncertain prediction.

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
    kinds = KINDS if options.rate else ["no dropout"]
    plan = [(seed, kind) for seed in seeds for kind in kinds]
    runs, interrupted = [], False
    bar = tqdm.tqdm(total=len(plan) * options.epochs, unit="epoch", leave=False)
    with one_thread(threadpoolctl), bar:
        try:
            for seed, kind in plan:
                bar.set_description(f"seed {seed}, {kind}")
                runs.append(
                    train(
                        images,
                        labels,
                        kind=kind,
                        rate=options.rate,
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
        groups = by_kind(runs, KINDS)
        rows_per_mask = {kind: rows for kind, (rows, _) in KINDS.items()}
        print(table(groups))
        print("\n" + wrapped(legend(groups, rows_per_mask, BATCH)))
        said = conclusion(runs, TRAINING_EXAMPLES, len(labels) - TRAINING_EXAMPLES)
        print("\n" + wrapped(said))
        if options.plot:
            draw_curves(runs, options.plot)
            print(f"\nLearning curves: {options.plot}")
    if options.rate and not interrupted:
        with one_thread(threadpoolctl):
            print("\n" + uncertain_prediction(images, labels, options))
    return 130 if interrupted else 0
