"""The study: splits, runs, the store, tuning, statistics."""

import dataclasses
import doctest
import importlib
import math

import numpy
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("joblib")

from bench.studies.generalisation import parts
from bench.studies.generalisation.data import Digits, Examples, stratified
from bench.studies.generalisation.measuring import DIVERGED, RUNS, train
from bench.studies.generalisation.runner import Request, Runner, split_of
from bench.studies.generalisation.statistics import interval, paired_ratio, standard_error
from bench.studies.generalisation.store import Store
from bench.studies.generalisation.training import ARMS, FastdropRun, Settings
from bench.studies.generalisation.tuning import Grid, tune


def examples(count, seed=0, features=6, classes=3):
    """Labels that a linear function of the inputs gives, so that there is something to learn."""
    random = numpy.random.default_rng(seed)
    inputs = random.standard_normal((count, features)).astype(numpy.float32)
    return Examples(inputs, numpy.argmax(inputs[:, :classes], axis=1))


DIGITS = Digits(examples(120, seed=1), examples(60, seed=2))


def load():
    return DIGITS


class NoTest:
    """Digits whose test examples must not be looked at."""

    training = DIGITS.training

    @property
    def test(self):
        raise AssertionError("the test examples were looked at")


def load_without_test():
    return NoTest()


def settings(arm="32 rows", **changes):
    return Settings(arm, (8, 8), 0.05, epochs=2, batch=16).at_arm(arm, **changes)


@pytest.mark.parametrize("module", ["data", "training", "store", "statistics"])
def test_docstring_examples(module):
    module = importlib.import_module(f"bench.studies.generalisation.{module}")
    assert doctest.testmod(module).failed == 0


# --- Data and runs ---------------------------------------------------------------------------


def test_parts_of_a_split_are_disjoint_and_keep_the_proportions():
    everything = Examples(
        numpy.arange(90, dtype=numpy.float32).reshape(90, 1), numpy.arange(90) % 3
    )
    kept, held_out = stratified(everything, 30, seed=4)
    assert sorted([*kept.images[:, 0], *held_out.images[:, 0]]) == list(range(90))
    assert numpy.bincount(kept.labels).tolist() == [20, 20, 20]
    again, _ = stratified(everything, 30, seed=4)
    numpy.testing.assert_array_equal(kept.images, again.images)
    other, _ = stratified(everything, 30, seed=5)
    assert not numpy.array_equal(kept.images, other.images)


def test_arms_of_a_seed_are_paired():
    runs = [FastdropRun(settings(arm, seed=3), DIGITS.training) for arm in ARMS]
    weights = [
        [layer.weight for layer in run.network.layers if hasattr(layer, "weight")] for run in runs
    ]
    for other in weights[1:]:
        for ours, theirs in zip(weights[0], other, strict=True):
            numpy.testing.assert_array_equal(ours, theirs)
    orders = [[labels for _, labels in run._batches.epoch()] for run in runs]
    for other in orders[1:]:
        numpy.testing.assert_array_equal(orders[0], other)


def test_training_learns_and_records_a_curve():
    outcome = train(settings("none", epochs=20), DIGITS.training, DIGITS.test, curve=True)
    assert len(outcome.curve) == 20
    assert outcome.curve[-1] == outcome.error < outcome.curve[0]
    assert outcome.training_error < outcome.error


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_diverged_run_counts_as_all_wrong():
    outcome = train(settings("none", learning_rate=1e30, epochs=5), DIGITS.training, DIGITS.test)
    assert (outcome.error, outcome.loss) == (DIVERGED, None)


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_torch_computes_the_same_without_dropout(max_norm):
    pytest.importorskip("torch")
    one = settings("none", max_norm=max_norm, epochs=3)
    ours, theirs = (RUNS[name](one, DIGITS.training) for name in ("fastdrop", "torch"))
    for _ in range(one.epochs):
        ours.epoch()
        theirs.epoch()
    numpy.testing.assert_allclose(
        ours.scores(DIGITS.test.images), theirs.scores(DIGITS.test.images), rtol=1e-3, atol=1e-4
    )


def test_rivals_refuse_arms_that_they_do_not_have():
    for library in ("torch", "sklearn"):
        if library == "torch":
            pytest.importorskip("torch")
        with pytest.raises(ValueError, match="32 rows"):
            RUNS[library](settings("32 rows"), DIGITS.training)


def test_sklearn_trains_epoch_by_epoch():
    outcome = train(
        settings("none", library="sklearn", epochs=20), DIGITS.training, DIGITS.test, curve=True
    )
    assert outcome.error == outcome.curve[-1] < outcome.curve[0]


# --- Runner and store ------------------------------------------------------------------------


def request(seed, held_out="validation"):
    return Request(settings(seed=seed), held_out, 60)


def test_finished_runs_are_not_done_again(tmp_path):
    path = tmp_path / "runs.jsonl"
    first = Runner(Store(path), load=load).results([request(0), request(1)], "first")
    lines = path.read_bytes()

    # Killed in the middle of a line: what was finished stays, the rest is done again.
    path.write_bytes(lines[:-9])
    second = Runner(Store(path), load=load).results([request(1), request(0)], "again")
    assert second[1] == first[0]
    assert second[0]["error"] == first[1]["error"]

    def forbidden():
        raise AssertionError("nothing is left to do")

    third = Runner(Store(path), load=forbidden).results([request(0), request(1)], "third")
    assert third == [second[1], second[0]]


def test_damaged_store_is_refused(tmp_path):
    path = tmp_path / "runs.jsonl"
    Store(path).add({"seed": 1}, {"error": 1.0})
    path.write_bytes(b"not ours\n" + path.read_bytes())
    with pytest.raises(ValueError, match="line 1"):
        Store(path)


def test_small_sets_depend_on_the_seed_and_not_on_the_arm():
    one, other = settings("none", seed=1), settings("batchwise", seed=1)
    ours, theirs = (split_of(load, each, "test", 60)[0] for each in (one, other))
    numpy.testing.assert_array_equal(ours.images, theirs.images)
    assert len(ours) == 60
    different, _ = split_of(load, settings(seed=2), "test", 60)
    assert not numpy.array_equal(ours.images, different.images)
    with pytest.raises(ValueError, match="held_out"):
        split_of(load, one, "training", 60)


# --- Tuning ----------------------------------------------------------------------------------


class Landscape:
    """A runner whose error is smallest at a known place."""

    def __init__(self, best_rate, best_norm):
        self.best_rate, self.best_norm = best_rate, best_norm
        self.asked = []

    def results(self, requests, label):
        self.asked += requests
        return [self._result(request.settings) for request in requests]

    def _result(self, one):
        norm = math.inf if one.max_norm is None else one.max_norm
        far = abs(math.log(one.learning_rate / self.best_rate))
        return {"error": far + abs(1 / norm - 1 / self.best_norm), "loss": 1.0}


GRID = Grid((0.01, 0.1, 1.0), (None,), (1.0, 2.0, 4.0), seeds=(7, 8))


def test_tuning_finds_the_best_and_asks_for_validation_only():
    runner = Landscape(0.1, 2.0)
    (found,) = tune(runner, [settings("none")], GRID, 120)
    assert (found.settings.learning_rate, found.settings.max_norm) == (0.1, 2.0)
    assert found.edges == []
    assert len(runner.asked) == GRID.trials == 12
    assert {request.held_out for request in runner.asked} == {"validation"}
    assert {request.settings.seed for request in runner.asked} == {7, 8}


@pytest.mark.parametrize(
    ("best_rate", "best_norm", "edges"),
    [
        (0.001, 2.0, ["learning_rate"]),
        (9.0, math.inf, ["learning_rate"]),
        (0.1, 0.5, ["max_norm"]),
        (0.1, math.inf, []),
    ],
)
def test_tuning_tells_of_winners_on_the_edge(best_rate, best_norm, edges):
    (found,) = tune(Landscape(best_rate, best_norm), [settings("none")], GRID, 120)
    assert found.edges == edges


def test_every_arm_has_the_same_trials():
    plan = parts.Plan()
    runner = Landscape(0.05, math.inf)
    parts.tuned_arms(runner, plan)
    by_arm = {}
    for each in runner.asked:
        by_arm.setdefault(each.settings.arm, []).append(each.settings.at_arm("none"))
    assert set(by_arm) == set(parts.TUNED_ARMS)
    assert all(trials == by_arm["none"] for trials in by_arm.values())
    assert not set(plan.seeds) & set(plan.grid.seeds)


def test_tuning_never_sees_test_examples(tmp_path):
    plan = dataclasses.replace(parts.Plan.quick(), examples=120)
    runner = Runner(Store(tmp_path / "runs.jsonl"), load=load_without_test)
    assert set(parts.tuned_arms(runner, plan)) == set(parts.TUNED_ARMS)
    with pytest.raises(AssertionError, match="looked at"):
        runner.results([request(0, "test")], "test")


# --- Statistics ------------------------------------------------------------------------------


def test_interval_is_students():
    from scipy import stats

    values = [4.1, 3.7, 4.4, 3.9, 4.0]
    mean, half = interval(values)
    low, high = stats.t.interval(0.95, 4, loc=mean, scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert math.isnan(standard_error([1.0]))


def test_ratio_of_paired_values():
    values = [4.1, 3.7, 4.4, 3.9]
    ratio, half = paired_ratio(values, [2.0] * 4)
    mean, wide = interval(values)
    assert (ratio, half) == pytest.approx((mean / 2, wide / 2))
    # What both have in common is no uncertainty of the ratio.
    assert paired_ratio(values, [2 * value for value in values])[1] == pytest.approx(0)
    with pytest.raises(ValueError, match="baseline"):
        paired_ratio(values, values[1:])
