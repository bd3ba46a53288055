"""How sure is the network? Monte Carlo dropout, with the noise estimated on held-out data.

A curve is learnt from noisy points between -3 and 3, and asked for beyond them: the deviation grows
there and says where the network guesses. It does not say by how much it errs. Run it with

    python examples/uncertainty.py
"""

import numpy as np

from fastdrop import MLPRegressor


def curve(x):
    """What is to be learnt."""
    return np.sin(2 * x) + x / 2


def main():
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (600, 1))
    y = curve(x[:, 0]) + 0.2 * rng.standard_normal(600)
    x, x_held_out, y, y_held_out = x[:400], x[400:], y[:400], y[400:]

    model = MLPRegressor(
        hidden_layer_sizes=(100, 100),
        dropout=0.05,
        alpha=1e-3,
        learning_rate_init=0.003,
        batch_size=50,
        max_iter=100,
        n_iter_no_change=100,
        random_state=0,
    ).fit(x, y)

    # The precision of the noise is the one under which held-out data are likeliest.
    precisions = np.geomspace(4, 100, 8)
    likely = [
        model.predictive_log_likelihood(x_held_out, y_held_out, tau, random_state=0).mean()
        for tau in precisions
    ]
    tau = precisions[np.argmax(likely)]
    print(f"noise of standard deviation {tau**-0.5:.2f} (it was made with 0.20)")
    print(f"predictive log-likelihood of a held-out point: {max(likely):.2f}\n")

    at = np.array([[-6.0], [-2.0], [0.0], [1.0], [2.5], [4.0], [6.0]])
    mean, std = model.predict(at, return_std=True, n_samples=500, random_state=0)
    _, observed = model.predict(at, return_std=True, n_samples=500, random_state=0, tau=tau)
    print("     x    true   prediction   of the model   of an observation")
    for row in zip(at[:, 0], curve(at[:, 0]), mean, std, observed, strict=True):
        print("{:6.1f}  {:6.2f}   {:10.2f}      +- {:6.2f}           +- {:6.2f}".format(*row))


if __name__ == "__main__":
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)  # 100 epochs are what is wanted
    main()
