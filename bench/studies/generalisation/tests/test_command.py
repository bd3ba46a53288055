"""The study's command: Monte Carlo dropout on made-up sets, the page, interruptions."""

import dataclasses
import json
import math

import numpy
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("tqdm")
pytest.importorskip("joblib")

from bench.studies.generalisation import __main__ as command
from bench.studies.generalisation import parts, report, runner, uncertainty
from bench.studies.generalisation.data import Digits, Examples
from bench.studies.generalisation.runner import Runner
from bench.studies.generalisation.store import Store


def load():
    """Few examples whose labels are a function of the inputs."""

    def examples(count, seed):
        inputs = numpy.random.default_rng(seed).standard_normal((count, 6)).astype(numpy.float32)
        return Examples(inputs, numpy.argmax(inputs[:, :3], axis=1))

    return Digits(examples(120, seed=1), examples(60, seed=2))


# --- Monte Carlo dropout ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def regressor():
    random = numpy.random.default_rng(0)
    inputs = random.standard_normal((100, 3)) * [1, 10, 100]
    targets = 50 + inputs @ [3, 0.2, 0.01]
    network = uncertainty.Regressor(inputs, targets, 20, 800, 0.1, 1.0, seed=1)
    return network, inputs, targets


def test_regressor_answers_in_the_units_of_the_targets(regressor):
    network, inputs, targets = regressor
    deviation = targets.std()
    for prediction in (network.whole(inputs), network.mean(inputs, 400)):
        assert uncertainty.root_mean_square(prediction - targets) < 0.4 * deviation


def test_log_likelihood_is_in_the_units_of_the_targets(regressor):
    network, inputs, targets = regressor
    scaled = network._inputs.transform(inputs)
    samples = network._model.predict_samples(scaled, n_samples=30, random_state=1)
    samples = samples * targets.std() + targets.mean()
    density = numpy.sqrt(0.5 / (2 * math.pi)) * numpy.exp(-0.25 * (targets - samples) ** 2)
    expected = numpy.log(density.mean(axis=0)).mean()
    found = network.log_likelihood(inputs, targets, 0.5, 30)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def uci(tmp_path):
    random = numpy.random.default_rng(0)
    inputs = random.standard_normal((60, 3))
    tests = numpy.zeros((2, 60), bool)
    tests[0, :6] = tests[1, 6:12] = True
    for name in uncertainty.SETS:
        numpy.savez(
            tmp_path / f"{name}.npz", X=inputs, y=inputs.sum(axis=1), test=tests, n_epochs=2,
            n_hidden=5, rates=[0.05, 0.1], taus=[0.5, 1.0, 2.0],
        )  # fmt: skip
    return tmp_path


def test_incomplete_set_is_refused(uci):
    numpy.savez(uci / "yacht.npz", X=numpy.zeros((3, 2)), y=numpy.zeros(3))
    with pytest.raises(ValueError, match="n_epochs, n_hidden, rates, taus, test"):
        uncertainty.load_set(uci, "yacht")
    with pytest.raises(FileNotFoundError, match="--uci FOLDER"):
        uncertainty.load_set(uci / "elsewhere", "yacht")


def test_test_rows_decide_nothing_but_the_score(uci):
    path = uci / "concrete.npz"
    protocol = uncertainty.Protocol.quick()
    before = uncertainty.one_split(str(uci), "concrete", 0, 2, (0.05, 0.1), protocol)
    with numpy.load(path) as file:
        arrays = dict(file)
    arrays["y"][:6] += 1000
    changed = uci / "changed"
    changed.mkdir()
    numpy.savez(changed / "concrete.npz", **arrays)
    after = uncertainty.one_split(str(changed), "concrete", 0, 2, (0.05, 0.1), protocol)
    assert (after["rate"], after["tau"]) == (before["rate"], before["tau"])
    assert after["rmse"] == pytest.approx(1000, rel=0.01)


# --- Command and page ------------------------------------------------------------------------


@pytest.fixture
def study(monkeypatch, tmp_path):
    """The command on few made-up examples and a page of its own; without the slow rivals."""

    def run(*arguments):
        return command.main(["--quick", "--store", str(tmp_path / "runs.jsonl"), *arguments])

    plan = dataclasses.replace(parts.Plan.quick(), examples=120, sizes=(60,))
    monkeypatch.setattr(parts.Plan, "quick", classmethod(lambda cls: plan))
    monkeypatch.setattr(command, "Runner", lambda store, workers: Runner(store, workers, load))
    marks = "<!-- study: {} -->\nold\n<!-- end of study -->\n"
    (tmp_path / "study.md").write_text("".join(map(marks.format, report.TABLES)))
    return run


def test_command_fills_the_page(study, uci, tmp_path, capsys):
    parts = ["size", "rate", "depth", "uncertainty"]
    assert study(*parts, "--uci", str(uci), "--docs", str(tmp_path)) == 0
    page = (tmp_path / "study.md").read_text()
    assert "| test error, %, from | 60 | 120 |" in page
    assert "| concrete | published 2016 | 5.23 ± 0.12 |" in page
    assert page.count("old") == len(report.TABLES) - len(parts)
    assert "hidden layers" in capsys.readouterr().out
    summary = json.loads((tmp_path / "study.json").read_text())
    assert set(summary) == {*parts, "machine"}
    plots = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    assert set(plots) == {"study-size.svg", "study-rate.svg", "study-depth.svg"}
    # Made again from the summary alone, page and plots are the same.
    assert study("--docs", str(tmp_path)) == 0
    assert (tmp_path / "study.md").read_text() == page
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")} == plots


def test_interrupted_command_goes_on_where_it_was(study, tmp_path, monkeypatch, capsys):
    execute, done = runner._execute, []

    def interrupted(*arguments):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(arguments)
        return execute(*arguments)

    monkeypatch.setattr(runner, "_execute", interrupted)
    assert study("depth") == command.INTERRUPTED
    assert "stopped" in capsys.readouterr().err
    assert len(Store(tmp_path / "runs.jsonl")) == 5
    monkeypatch.setattr(runner, "_execute", execute)
    assert study("depth") == 0
    assert len(Store(tmp_path / "runs.jsonl")) > 5


def test_missing_data_is_told(study, capsys, tmp_path):
    assert study("uncertainty") == 1
    assert "--uci FOLDER" in capsys.readouterr().err
    assert study("uncertainty", "--uci", str(tmp_path / "nowhere")) == 1
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no such part: depths"):
        study("depths")


def test_tables_need_a_place():
    with pytest.raises(ValueError, match="no place for expected"):
        report.fill("nothing here", {"expected": "| |"})


def test_race_that_is_not_always_finished_has_no_mean():
    racers = {
        "32 rows": {"epochs": 2, "seconds": 1.0, "error": 4.0},
        "batchwise": {"epochs": 3, "seconds": 0.5, "error": 4.0},
        "torch per-sample": {"epochs": 2, "seconds": 3.0, "error": 4.0},
    }
    late = racers | {"batchwise": {"epochs": None, "seconds": None, "error": 6.25}}
    races = [
        {"seed": 1, "target": 4.0, "racers": racers},
        {"seed": 2, "target": 4.5, "racers": late},
    ]
    seconds = {"none": 1.0, "torch per-sample": 2.0}
    found = report.tables({"timing": {"epoch_seconds": seconds, "races": races}})
    assert (
        "| 2 | 4.50 | 1.0 s, 2 epochs | not reached, 6.25 % | 3.0 s, 2 epochs |" in found["races"]
    )
    assert "| mean |  | 1.0 s |  | 3.0 s |" in found["races"]
    assert "3.00 times sooner than torch with dropout (bar: ≥ 2.5; met: yes)" in found["races"]
    assert "| none | 1.000 | 1.00 | 0.50 |  |" in found["epochs"]
