"""Part 3: how many masks a batch needs, for each learning rate.

Two sets of digits, two batch sizes, from one mask for the whole batch to one for each row; nothing
is tuned: every learning rate is shown.
"""

import dataclasses
import itertools

from .data import load_digits, load_small_digits
from .measuring import train
from .runner import split_of
from .store import spec_of
from .training import ARMS, Settings

__all__ = ["SETS", "MaskPlan", "part"]

# By name: where the digits come from, and how many train.
SETS = {"8 x 8 pixels": (load_small_digits, 1297), "28 x 28 pixels": (load_digits, 1000)}


@dataclasses.dataclass(frozen=True)
class MaskPlan:
    """What part 3 trains to compare numbers of masks.

    Parameters
    ----------
    hidden : tuple of int
    epochs : int
    batches : tuple of int
    rows_per_mask : tuple of int
        Those above half a batch are one mask for the whole batch.
    learning_rates : tuple of float
    seeds : tuple of int
    """

    hidden: tuple[int, ...] = (256, 256)
    epochs: int = 40
    batches: tuple[int, ...] = (32, 128)
    rows_per_mask: tuple[int, ...] = (1, 8, 32, 64)
    learning_rates: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    seeds: tuple[int, ...] = (0, 1)

    @classmethod
    def quick(cls):
        """Return a plan of a few seconds, to see that everything works; results mean nothing."""
        return cls((8,), 1, (32,), (1, 16), (0.05,), (0, 1))

    def arms(self, batch):
        """Return the arms of a batch size, by number of masks in a batch, ascending."""
        arms = {1: "batchwise"}
        for rows in sorted(self.rows_per_mask, reverse=True):
            if rows <= batch // 2:
                arms[batch // rows] = "per-sample" if rows == 1 else f"{rows} rows"
        return arms


def part(runner, plan, sets=SETS):
    """Run it.

    Parameters
    ----------
    runner : Runner
    plan : MaskPlan
    sets : dict, optional
        As `SETS`.

    Returns
    -------
    list of dict
        Set, batch, masks in a batch, rows per mask, learning rate, and lists over the seeds of the
        test and the training error.
    """
    cells, tasks = [], []
    for name, batch in itertools.product(sets, plan.batches):
        load, examples = sets[name]
        for (masks, arm), rate in itertools.product(plan.arms(batch).items(), plan.learning_rates):
            rows = ARMS[arm][0]
            cells.append(
                {
                    "set": name,
                    "batch": batch,
                    "masks": masks,
                    "rows_per_mask": rows,
                    "learning_rate": rate,
                }
            )
            for seed in plan.seeds:
                settings = Settings(arm, plan.hidden, rate, plan.epochs, seed=seed, batch=batch)
                spec = spec_of(settings, set=name, examples=examples)
                tasks.append((spec, _tested, (load, settings, examples)))
    runs = iter(runner.done(tasks, "part 3, masks in a batch"))
    for cell in cells:
        of_seeds = [next(runs) for _ in plan.seeds]
        cell["error"] = [run["error"] for run in of_seeds]
        cell["training_error"] = [run["training_error"] for run in of_seeds]
    return cells


def _tested(load, settings, examples):
    training, test = split_of(load, settings, "test", examples)
    outcome = train(settings, training, test)
    return {"error": outcome.error, "training_error": outcome.training_error}
