"""Part 4: `MLPRegressor` with Monte Carlo dropout on UCI sets, by Gal and Ghahramani's protocol.

One ReLU layer, dropout of the same rate on its input and its output, Adam, batches of 128, weight
decay by their formula; standardised inputs and targets; the mean of T passes is the prediction, and
a mixture of T Gaussians of precision tau the predictive density. Rate and tau are picked on a fifth
of each split's training part, and the network is trained again on all of it. The network never sees
a test row, nor does anything that is computed before it is done.

References
----------
.. [1] Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty
   in deep learning", ICML 2016, section 5.2 and appendix.
.. [2] J. Mukhoti, P. Stenetorp, Y. Gal, "On the importance of strong baselines in Bayesian deep
   learning", 2018, table 1.
"""

import dataclasses
import functools
import math
import pathlib
import warnings

import numpy

__all__ = ["PUBLISHED", "SETS", "Protocol", "RegressionSet", "Regressor", "load_set", "part"]

SETS = ("concrete", "yacht")
# Mean and standard error over the 20 splits of RMSE, then of the log-likelihood.
PUBLISHED = {
    "concrete": {"2016": (5.23, 0.12, -3.04, 0.02), "2018": (4.82, 0.16, -2.93, 0.02)},
    "yacht": {"2016": (1.11, 0.09, -1.55, 0.03), "2018": (0.67, 0.05, -1.25, 0.01)},
}
BATCH = 128
LENGTH_SCALE = 1e-2


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How part 4 trains and predicts.

    Parameters
    ----------
    factors : tuple of int
        Multiples of the set's own number of epochs (40). The published tables are of 100: 4000
        epochs; 10 shows what a training that is too short does. Each picks its own rate and tau.
    splits : int
    passes, validation_passes : int
        Monte Carlo passes for the test and for the choice of rate and tau.
    """

    factors: tuple[int, ...] = (10, 100)
    splits: int = 20
    passes: int = 10_000
    validation_passes: int = 1000

    @classmethod
    def quick(cls):
        """Return a protocol of a second or two, to see that everything works."""
        return cls(factors=(1, 2), splits=2, passes=50, validation_passes=20)


@dataclasses.dataclass(frozen=True, eq=False)
class RegressionSet:
    """Inputs, targets, test splits and what the protocol fixes for them.

    Parameters
    ----------
    inputs : numpy.ndarray, shape (rows, features)
    targets : numpy.ndarray, shape (rows,)
    tests : numpy.ndarray of bool, shape (splits, rows)
        Which rows are tested in each split.
    epochs, units : int
    rates, precisions : tuple of float
        Candidates of the dropout rate and of tau.
    """

    inputs: numpy.ndarray
    targets: numpy.ndarray
    tests: numpy.ndarray
    epochs: int
    units: int
    rates: tuple[float, ...]
    precisions: tuple[float, ...]


def load_set(folder, name):
    """Read a set from ``folder/name.npz``.

    Parameters
    ----------
    folder : str or pathlib.Path
    name : str

    Returns
    -------
    RegressionSet

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it does not hold what it should.
    """
    path = pathlib.Path(folder) / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: part 4 needs a folder with "
            f"{' and '.join(f'{one}.npz' for one in SETS)} (--uci FOLDER)"
        )
    with numpy.load(path, allow_pickle=False) as file:
        missing = {"X", "y", "test", "n_epochs", "n_hidden", "rates", "taus"} - set(file.files)
        if missing:
            raise ValueError(f"{path} has no {', '.join(sorted(missing))}")
        found = RegressionSet(
            file["X"],
            file["y"],
            file["test"],
            int(file["n_epochs"]),
            int(file["n_hidden"]),
            tuple(file["rates"].tolist()),
            tuple(file["taus"].tolist()),
        )
    if found.tests.shape[1:] != found.targets.shape or len(found.inputs) != len(found.targets):
        raise ValueError(f"{path}: the numbers of rows of X, y and test differ")
    return found


class Regressor:
    """A trained `fastdrop.MLPRegressor` of standardised data, asked in the data's own units.

    Parameters
    ----------
    inputs, targets : numpy.ndarray, shapes (rows, features) and (rows,)
    units, epochs : int
    rate, precision : float
        Dropout rate; tau, for the weight decay.
    seed : int
    """

    def __init__(self, inputs, targets, units, epochs, rate, precision, seed):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.preprocessing import StandardScaler

        import fastdrop

        self._seed = seed
        self._inputs = StandardScaler().fit(inputs)
        self._mean, self._deviation = targets.mean(), targets.std()
        batch = min(BATCH, len(inputs))
        self._model = fastdrop.MLPRegressor(
            hidden_layer_sizes=(units,),
            dropout=rate,
            input_dropout=rate,
            # Their decay is a factor on the squared weights in the mean squared error; alpha is one
            # in half the sum of a batch.
            alpha=batch * LENGTH_SCALE**2 * (1 - rate) / (2 * len(inputs) * precision),
            batch_size=batch,
            max_iter=epochs,
            tol=0.0,
            n_iter_no_change=epochs + 1,
            random_state=seed,
            dtype="float32",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are the protocol's
            self._model.fit(
                self._inputs.transform(inputs), (targets - self._mean) / self._deviation
            )

    def mean(self, inputs, passes):
        """Return the mean of Monte Carlo passes, shape (rows,)."""
        mean, _ = self._model.predict(
            self._inputs.transform(inputs),
            return_std=True,
            n_samples=passes,
            random_state=self._seed,
        )
        return mean.astype(numpy.float64) * self._deviation + self._mean

    def whole(self, inputs):
        """Return the prediction of all units together, shape (rows,)."""
        prediction = self._model.predict(self._inputs.transform(inputs))
        return prediction.astype(numpy.float64) * self._deviation + self._mean

    def log_likelihood(self, inputs, targets, precision, passes):
        """Return the mean predictive log-likelihood of targets with noise of precision tau."""
        each = self._model.predictive_log_likelihood(
            self._inputs.transform(inputs),
            (targets - self._mean) / self._deviation,
            tau=precision * self._deviation**2,
            n_samples=passes,
            random_state=self._seed,
        )
        return float(each.mean()) - math.log(self._deviation)


def root_mean_square(errors):
    """Return the root of the mean square."""
    return float(numpy.sqrt(numpy.mean(numpy.square(errors))))


_load = functools.cache(load_set)


def pick(data, rates, epochs, training, validation, seed, passes):
    """Return which of the rates and the taus have the best log-likelihood of the validation rows.

    tau reaches the training only as a weight decay of some 1e-6; its candidates share a network,
    trained with the middle one.
    """
    middle = data.precisions[len(data.precisions) // 2]
    scores = {}
    for rate in rates:
        network = Regressor(
            data.inputs[training], data.targets[training], data.units, epochs, rate, middle, seed
        )
        for precision in data.precisions:
            scores[rate, precision] = network.log_likelihood(
                data.inputs[validation], data.targets[validation], precision, passes
            )
    return max(scores, key=scores.get)


def one_split(folder, name, split, epochs, rates, protocol):
    """Pick, train and test on one split.

    Returns
    -------
    dict
        Rate, tau, RMSE and log-likelihood of the Monte Carlo prediction, RMSE without dropout at
        test time.
    """
    data = _load(folder, name)
    test = data.tests[split]
    random = numpy.random.default_rng(split)
    training = random.permutation(numpy.flatnonzero(~test))
    cut = len(training) // 5
    rate, precision = pick(
        data, rates, epochs, training[cut:], training[:cut], split, protocol.validation_passes
    )
    network = Regressor(
        data.inputs[training], data.targets[training], data.units, epochs, rate, precision, split
    )
    inputs, targets = data.inputs[test], data.targets[test]
    return {
        "rate": rate,
        "tau": precision,
        "rmse": root_mean_square(targets - network.mean(inputs, protocol.passes)),
        "log_likelihood": network.log_likelihood(inputs, targets, precision, protocol.passes),
        "rmse_whole_network": root_mean_square(targets - network.whole(inputs)),
    }


def part(runner, protocol, folder):
    """Run part 4.

    Parameters
    ----------
    runner : Runner
    protocol : Protocol
    folder : str
        With the sets.

    Returns
    -------
    dict
        By set, then by number of epochs: lists over the splits of what `one_split` returns.
    """
    found = {}
    for name in SETS:
        data = _load(folder, name)
        found[name] = {}
        for factor in protocol.factors:
            epochs = data.epochs * factor
            runs = _runs(runner, protocol, folder, name, epochs, data.rates)
            found[name][str(epochs)] = {key: [run[key] for run in runs] for key in runs[0]}
    return found


def _runs(runner, protocol, folder, name, epochs, rates):
    """What `one_split` returns for each split."""
    tasks = []
    for split in range(protocol.splits):
        spec = {
            "set": name,
            "split": split,
            "epochs": epochs,
            "passes": protocol.passes,
            "validation_passes": protocol.validation_passes,
        }
        arguments = (folder, name, split, epochs, rates, protocol)
        tasks.append((spec, one_split, arguments))
    return runner.done(tasks, f"part 4, {name}, {epochs} epochs")
