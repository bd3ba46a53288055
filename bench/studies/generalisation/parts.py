"""Parts 1 to 3 of the study: what is run, and a summary of it that the tables are made from."""

import dataclasses
import itertools

from .runner import Request
from .training import Settings
from .tuning import Grid, tune

__all__ = [
    "TUNED_ARMS",
    "Plan",
    "comparison",
    "depth",
    "rate",
    "rivals",
    "shorter",
    "size",
    "tuned_arms",
    "wider",
]

TUNED_ARMS = ("none", "per-sample", "32 rows", "batchwise", "exact count")
GRID = Grid((0.01, 0.02, 0.05, 0.1, 0.2, 0.5), (None,), (2.0,), seeds=(100,))
DEPTH_GRID = Grid((0.006, 0.02, 0.06, 0.2, 0.6, 1.8), seeds=(100,))
LONG_DEPTH_GRID = Grid((0.006, 0.02, 0.06, 0.2, 0.6), seeds=(100,))


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the study runs; the same for every arm.

    Parameters
    ----------
    hidden : tuple of int
        Units of the hidden layers of parts 1 and 2.
    epochs, short_epochs : int
        Of tuning and of tests: of the comparison, and of everything else of parts 1 and 2.
    examples : int
        All training examples.
    grid : Grid
    seeds : tuple of int
        Seeds of the runs that are tested. Those of the grid are others.
    rival_seeds, curve_seeds : tuple of int
        Of the other libraries, and of parts 2 and 3.
    race_seeds : tuple of int
        Of the races to a validation score.
    rounds : int
        How often an epoch is timed.
    sizes : tuple of int
        Training-set sizes of part 2; all examples come from part 1.
    most_epochs : int
        A smaller set gets as many steps as the whole one, but at most this many epochs.
    rates, depth_rates : tuple of float
        Rates of the hidden layers in parts 2 and 3.
    depths : tuple of int
    width, depth_epochs : int
        Of part 3.
    depth_grid : Grid
    long_depths : tuple of int
    long_depth_epochs : int
        Of part 3 with more epochs, where layers of ``width / keep_prob`` units stand beside layers
        of `width`.
    long_depth_grid : Grid
    """

    hidden: tuple[int, ...] = (1024, 1024)
    epochs: int = 300
    short_epochs: int = 50
    examples: int = 4000
    grid: Grid = GRID
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rival_seeds: tuple[int, ...] = (0, 1)
    curve_seeds: tuple[int, ...] = (0, 1, 2)
    race_seeds: tuple[int, ...] = (100, 101, 102)
    rounds: int = 5
    sizes: tuple[int, ...] = (100, 300, 1000)
    most_epochs: int = 200
    rates: tuple[float, ...] = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
    depths: tuple[int, ...] = (1, 2, 4, 8)
    depth_rates: tuple[float, ...] = (0.0, 0.25, 0.5)
    width: int = 256
    depth_epochs: int = 50
    depth_grid: Grid = DEPTH_GRID
    long_depths: tuple[int, ...] = (1, 2, 4)
    long_depth_epochs: int = 300
    long_depth_grid: Grid = LONG_DEPTH_GRID

    @classmethod
    def quick(cls):
        """Return a plan of a few seconds, to see that everything works; results mean nothing."""
        return cls(
            hidden=(16, 16),
            epochs=3,
            short_epochs=2,
            examples=200,
            grid=Grid((0.01, 0.05, 0.2), (None, 2.0), (1.0,), seeds=(100,)),
            seeds=(0, 1),
            rival_seeds=(0, 1),
            curve_seeds=(0, 1),
            race_seeds=(100, 101),
            rounds=1,
            sizes=(50, 100),
            most_epochs=4,
            rates=(0.2, 0.8),
            depths=(1, 2),
            depth_rates=(0.0, 0.5),
            width=16,
            depth_epochs=2,
            depth_grid=Grid((0.01, 0.05, 0.2), seeds=(100,)),
            long_depths=(1, 2),
            long_depth_epochs=2,
            long_depth_grid=Grid((0.01, 0.05, 0.2), seeds=(100,)),
        )

    def short(self):
        """Return the plan of what trains for fewer epochs, tuned for these."""
        return dataclasses.replace(self, epochs=self.short_epochs)

    def base(self, arm, library="fastdrop"):
        """Return the settings of an arm before tuning."""
        return Settings(arm, self.hidden, self.grid.learning_rates[0], self.epochs, library=library)


def tuned_arms(runner, plan):
    """Return what tuning finds for each of the arms, by arm."""
    found = tune(runner, [plan.base(arm) for arm in TUNED_ARMS], plan.grid, plan.examples)
    return dict(zip(TUNED_ARMS, found, strict=True))


def comparison(runner, plan):
    """Part 1: every arm at its best settings on the test examples.

    Returns
    -------
    dict
        "arms": for each a list of its runs, and its settings; "tuning": the trials.
    """
    tuned = tuned_arms(runner, plan)
    rows = [(arm, found.settings, plan.seeds) for arm, found in tuned.items()]
    arms = _tested(runner, rows, plan.examples, "part 1, test")
    return {"arms": arms, "tuning": _trials(runner, plan, tuned)}


def rivals(runner, plan):
    """Part 1: the other libraries, and eight rows per mask.

    torch's networks compute what ours do and get the settings found for ours; scikit-learn's,
    which have other initial weights and no decay of the learning rate, are tuned by themselves.
    Eight rows per mask get the settings of 32.

    Returns
    -------
    dict
        As `comparison` does.
    """
    tuned = tuned_arms(runner, plan)
    without_bound = dataclasses.replace(plan.grid, max_norms=(None,), further_max_norms=())
    (sklearn,) = tune(runner, [plan.base("none", "sklearn")], without_bound, plan.examples)
    rows = [
        ("8 rows", tuned["32 rows"].settings.at_arm("8 rows"), plan.rival_seeds),
        ("torch none", _with(tuned["none"], library="torch"), plan.rival_seeds),
        ("torch per-sample", _with(tuned["per-sample"], library="torch"), plan.rival_seeds),
        ("sklearn none", sklearn.settings, plan.rival_seeds),
    ]
    arms = _tested(runner, rows, plan.examples, "part 1, rivals")
    return {"arms": arms, "tuning": _trials(runner, plan, {"sklearn none": sklearn})}


def shorter(runner, plan):
    """Part 1: the same comparison with fewer epochs, tuned for these; returns what it does."""
    return comparison(runner, plan)


def _trials(runner, plan, tuned):
    return {
        arm: {
            "trials": found.trials,
            "edges": found.edges,
            "best_epoch": _best_epoch(runner, found, plan),
        }
        for arm, found in tuned.items()
    }


def size(runner, plan):
    """Part 2: test error against the number of training examples, at the settings of part 1.

    Returns
    -------
    dict
        By arm, then by number of examples: the runs.
    """
    tuned = tuned_arms(runner, plan)
    found = {}
    for arm in ("none", "32 rows"):
        rows = []
        for examples in plan.sizes:
            epochs = min(plan.most_epochs, plan.epochs * plan.examples // examples)
            rows.append((examples, _with(tuned[arm], epochs=epochs), plan.curve_seeds))
        rows.append((plan.examples, tuned[arm].settings, plan.curve_seeds))
        found[arm] = {
            str(examples): _tested(runner, [row], examples, f"part 2, {arm}")[examples]
            for row in rows
            for examples in row[:1]
        }
    return found


def rate(runner, plan):
    """Part 2: test error against the rate of the hidden layers; the input's rate stays.

    Every rate has its learning rate and max-norm tuned.

    Returns
    -------
    dict
        By rate: the runs.
    """
    bases = [dataclasses.replace(plan.base("32 rows"), rate=value) for value in plan.rates]
    tuned = tune(runner, bases, plan.grid, plan.examples)
    rows = [
        (value, found.settings, plan.curve_seeds)
        for value, found in zip(plan.rates, tuned, strict=True)
    ]
    found = _tested(runner, rows, plan.examples, "part 2, rates")
    return {str(value): runs for value, runs in found.items()}


def depth(runner, plan):
    """Part 3: validation and test error against depth and rate, 32 rows per mask.

    Every depth and rate has its learning rate tuned.

    Returns
    -------
    list of dict
        Depth, rate, units of a hidden layer, learning rate, validation error, edges, runs.
    """
    cells = [
        (layers, value, plan.width)
        for layers, value in itertools.product(plan.depths, plan.depth_rates)
    ]
    return _depth_cells(runner, plan, cells, plan.depth_epochs, plan.depth_grid)


def wider(runner, plan):
    """Part 3 with more epochs: layers of one width, and of a width that the rate makes up for.

    Srivastava et al. 2014, appendix A, give a layer n / keep_prob units where n would do without
    dropout, so that n units take part on average.

    Returns
    -------
    list of dict
        As `depth` does.
    """
    cells = [
        (layers, value, width)
        for layers, value in itertools.product(plan.long_depths, plan.depth_rates)
        for width in sorted({plan.width, round(plan.width / (1 - value))})
    ]
    return _depth_cells(runner, plan, cells, plan.long_depth_epochs, plan.long_depth_grid)


def _depth_cells(runner, plan, cells, epochs, grid):
    """Tune and test one network for each (hidden layers, rate, units of a hidden layer)."""
    bases = [
        Settings("32 rows", (units,) * layers, grid.learning_rates[0], epochs, rate=value)
        for layers, value, units in cells
    ]
    tuned = tune(runner, bases, grid, plan.examples)
    rows = [
        (cell, found.settings, plan.curve_seeds) for cell, found in zip(cells, tuned, strict=True)
    ]
    tested = _tested(runner, rows, plan.examples, "part 3, test")
    return [
        {
            "depth": layers,
            "rate": value,
            "units": units,
            "validation_error": min(trial["error"] for trial in found.trials),
            "edges": found.edges,
            **tested[layers, value, units],
        }
        for (layers, value, units), found in zip(cells, tuned, strict=True)
    ]


def _best_epoch(runner, tuned, plan):
    """After how many epochs the validation error is smallest, in the first tuning run."""
    settings = _with(tuned, seed=plan.grid.seeds[0])
    (run,) = runner.results([Request(settings, "validation", plan.examples)], "part 1, curves")
    return 1 + min(range(len(run["curve"])), key=run["curve"].__getitem__)


def _with(tuned, **changes):
    return dataclasses.replace(tuned.settings, **changes)


def _tested(runner, rows, examples, label):
    """Test (name, settings, seeds); return by name the settings and lists of what the runs gave."""
    asked = {
        (name, seed): Request(dataclasses.replace(settings, seed=seed), "test", examples)
        for name, settings, seeds in rows
        for seed in seeds
    }
    # Seed by seed, so that an unfinished study has something of every arm.
    order = sorted(asked, key=lambda each: each[1])
    done = runner.results([asked[each] for each in order], label)
    results = dict(zip(order, done, strict=True))
    found = {}
    for name, settings, seeds in rows:
        runs = [results[name, seed] for seed in seeds]
        found[name] = {
            "learning_rate": settings.learning_rate,
            "max_norm": settings.max_norm,
            "epochs": settings.epochs,
            "seeds": list(seeds),
            "error": [run["error"] for run in runs],
            "training_error": [run["training_error"] for run in runs],
            "cpu_seconds": [run["cpu_seconds"] for run in runs],
        }
    return found
