"""How sure is the network? Monte Carlo dropout, with the noise that the fit finds in held-out data.

A curve is learnt from noisy points between -3 and 3, and asked for beyond them: the deviation grows
there and says where the network guesses. It does not say by how much it errs. Run it with

    python examples/uncertainty.py

With a file's name behind it, as in `... uncertainty.py curve.png`, it also draws the curve; that
needs matplotlib.
"""

import sys

import numpy as np

from fastdrop import MLPRegressor


def curve(x):
    """What is to be learnt."""
    return np.sin(2 * x) + x / 2


def draw(model, x, y, path):
    """Draw data, prediction and both deviations from -6 to 6."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    at = np.linspace(-6, 6, 241)
    mean, std = model.predict(at[:, None], return_std=True, n_samples=300, random_state=0)
    _, total = model.predict(at[:, None], return_std=True, n_samples=300, random_state=0, tau="fit")
    figure, axis = pyplot.subplots(figsize=(6.5, 3.6))
    for deviation, what in ((total, "an observation"), (std, "the model")):
        low, high = mean - 1.96 * deviation, mean + 1.96 * deviation
        axis.fill_between(at, low, high, alpha=0.25, label=f"95 % of {what}")
    axis.plot(at, mean, label="prediction")
    axis.plot(at, curve(at), "k:", label="the curve")
    axis.plot(x, y, "k.", markersize=2)
    axis.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main(path=None):
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (600, 1))
    y = curve(x[:, 0]) + 0.2 * rng.standard_normal(600)
    model = MLPRegressor(
        hidden_layer_sizes=(100, 100),
        dropout=0.05,
        alpha=1e-3,
        learning_rate_init=0.003,
        batch_size=50,
        max_iter=100,
        n_iter_no_change=100,
        tau="fit",  # the precision of the noise, by a third of the examples
        validation_fraction=0.33,
        random_state=1,
    ).fit(x, y)
    print(f"noise of standard deviation {model.tau_**-0.5:.2f} (it was made with 0.20)")

    x_new = rng.uniform(-3, 3, (2000, 1))
    y_new = curve(x_new[:, 0]) + 0.2 * rng.standard_normal(2000)
    for tau, what in ((None, "the model"), ("fit", "an observation")):
        mean, std = model.predict(x_new, return_std=True, random_state=0, tau=tau)
        share = np.mean(abs(y_new - mean) < 1.96 * std)
        print(f"mean +- 1.96 deviations of {what} hold {share:.0%} of new observations")
    likely = model.predictive_log_likelihood(x_new, y_new, "fit", random_state=0).mean()
    print(f"predictive log-likelihood of one: {likely:.2f}\n")

    at = np.array([[-6.0], [-2.0], [0.0], [1.0], [2.5], [4.0], [6.0]])
    mean, std = model.predict(at, return_std=True, n_samples=500, random_state=0)
    _, observed = model.predict(at, return_std=True, n_samples=500, random_state=0, tau="fit")
    print("     x    true   prediction   of the model   of an observation")
    for row in zip(at[:, 0], curve(at[:, 0]), mean, std, observed, strict=True):
        print("{:6.1f}  {:6.2f}   {:10.2f}      +- {:6.2f}           +- {:6.2f}".format(*row))
    if path is not None:
        draw(model, x, y, path)


if __name__ == "__main__":
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)  # 100 epochs are what is wanted
    main(*sys.argv[1:])
