"""The optimisers of one fit: scikit-learn's L2 term, learning rates and their schedules.

Weights and biases have an optimiser each, since the penalty is on the weights alone.
"""

import math

from fastdrop import optim

__all__ = ["Solver"]

# `adaptive` stops for good when its learning rate has come down to this.
SMALLEST_RATE = 1e-6

# The parameters of the estimators that are a solver's business.
SETTINGS = (
    "solver", "learning_rate", "learning_rate_init", "power_t", "momentum", "nesterovs_momentum",
    "beta_1", "beta_2", "epsilon", "max_norm",
)  # fmt: skip


class Solver:
    """Steps of a network's parameters.

    Parameters
    ----------
    network : nn.Sequential
    settings : dict
        The estimator's parameters, by their names; those of `SETTINGS` are used.

    Attributes
    ----------
    settings : dict
    learning_rate : float
        Of the next step.
    """

    def __init__(self, network, settings):
        self.settings = {name: settings[name] for name in SETTINGS}
        self.learning_rate = float(settings["learning_rate_init"])
        parameters = network.parameters()
        self._weights = self._optimiser([p for p in parameters if p.value.ndim == 2], True)
        self._biases = self._optimiser([p for p in parameters if p.value.ndim == 1], False)

    @property
    def optimisers(self):
        """list: the two optimisers, of the weights and of the biases."""
        return [self._weights, self._biases]

    def _optimiser(self, parameters, bounded):
        settings = self.settings
        max_norm = settings["max_norm"] if bounded else None
        if settings["solver"] == "adam":
            return optim.Adam(
                parameters,
                self.learning_rate,
                beta1=settings["beta_1"],
                beta2=settings["beta_2"],
                epsilon=settings["epsilon"],
                max_norm=max_norm,
            )
        momentum = settings["momentum"]
        return optim.SGD(
            parameters,
            self.learning_rate,
            momentum=min(momentum, math.nextafter(1.0, 0.0)),
            nesterov=bool(settings["nesterovs_momentum"] and momentum > 0),
            max_norm=max_norm,
        )

    @property
    def steps(self):
        """int: steps made."""
        return self._weights.steps

    def step(self, penalty):
        """Move the parameters by the gradients they have.

        Parameters
        ----------
        penalty : float
            Factor on the weights that is added to their gradient.
        """
        weights, biases = self._weights, self._biases
        weights.weight_decay = penalty
        if self.settings["solver"] == "adam":
            # The published algorithm adds epsilon to the root of the corrected second moment,
            # scikit-learn, as the paper's remark at the end of section 2, to that of the other.
            correction = math.sqrt(1 - self.settings["beta_2"] ** (weights.steps + 1))
            weights.epsilon = biases.epsilon = self.settings["epsilon"] / correction
        weights.step()
        biases.step()

    def epoch_ends(self, samples):
        """Let the schedule set the learning rate.

        Parameters
        ----------
        samples : int
            Examples seen since the network was made.
        """
        settings = self.settings
        if settings["solver"] == "sgd" and settings["learning_rate"] == "invscaling":
            self._set_rate(settings["learning_rate_init"] / (samples + 1) ** settings["power_t"])

    def slow_down(self):
        """Divide the learning rate by 5 if it is adaptive; False where training should stop."""
        adaptive = self.settings["solver"] == "sgd" and self.settings["learning_rate"] == "adaptive"
        if not adaptive or self.learning_rate <= SMALLEST_RATE:
            return False
        self._set_rate(self.learning_rate / 5)
        return True

    def _set_rate(self, rate):
        """Change the rate of the steps to come; a step under way keeps its speed.

        Scikit-learn's velocities hold the rate they were made with, those of `optim.SGD` get the
        present one: they are divided by what the rate is multiplied by.
        """
        factor = self.learning_rate / rate
        for optimiser in (self._weights, self._biases):
            optimiser.learning_rate = rate
            state = optimiser.state_dict()
            for name, value in state.items():
                if name.endswith(".velocity"):
                    value *= factor
            optimiser.load_state_dict(state)
        self.learning_rate = rate

    def state(self):
        """Return all that going on with it needs, beside the network."""
        return {
            "settings": self.settings,
            "learning_rate": self.learning_rate,
            "weights": self._weights.state_dict(),
            "biases": self._biases.state_dict(),
        }

    @classmethod
    def from_state(cls, network, state, settings=None):
        """Return a solver that goes on where another one's `state` was taken.

        Parameters
        ----------
        network : nn.Sequential
            With the parameters, or parameters of the same shapes.
        state : dict
        settings : dict, optional
            Others than those in the state. Moments and velocities are kept where the algorithm
            and the dtype stay the same; another `learning_rate_init` holds at once.

        Returns
        -------
        Solver
        """
        before = state["settings"]
        solver = cls(network, settings or before)
        if solver.settings["solver"] != before["solver"]:
            return solver
        wanted = solver.learning_rate
        same = all(solver.settings[k] == before[k] for k in ("learning_rate", "learning_rate_init"))
        for name in ("weights", "biases"):
            optimiser = getattr(solver, f"_{name}")
            mine, given = optimiser.state_dict(), state[name]
            memory = {k: given[k] for k in mine if "." in k and k in given}
            if any(getattr(mine[k], "dtype", None) != getattr(v, "dtype", None)
                   for k, v in memory.items()):  # fmt: skip
                return cls(network, settings or before)
            optimiser.load_state_dict(mine | memory | {"steps": given["steps"]})
            optimiser.learning_rate = state["learning_rate"]
        solver.learning_rate = state["learning_rate"]
        if not same:
            solver._set_rate(wanted)
        return solver
