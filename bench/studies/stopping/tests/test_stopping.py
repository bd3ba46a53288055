"""The study of where fits with dropout stop: its table, and going on after an interruption."""

import json

import numpy
import pytest

pytest.importorskip("sklearn", reason="the study needs it")

from bench.studies.stopping import __main__ as stopping

QUICK = ["--quick", "--epochs", "4", "--uci", "nowhere"]


def test_it_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    store = tmp_path / "runs.jsonl"
    original = stopping.run
    done = []

    def interrupted(*cell, **options):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(cell)
        return original(*cell, **options)

    monkeypatch.setattr(stopping, "run", interrupted)
    arguments = [*QUICK, "--store", str(store)]
    assert stopping.main(arguments) == stopping.INTERRUPTED
    assert "interrupted, 3 of 4 runs" in capsys.readouterr().out
    monkeypatch.setattr(stopping, "run", original)
    assert stopping.main([*arguments, "--check"]) in (0, 1)
    shown = capsys.readouterr()
    assert shown.err.startswith("1/1, ")  # one was missing
    assert [line.split()[1] for line in shown.out.splitlines()[1:]] == [
        "2",
        "2",
        "4",
        "2",
        "2",
        "4",
    ]
    runs = [json.loads(line) for line in store.read_text().splitlines()]
    assert len(runs) == 4
    assert stopping.main(arguments) == 0
    assert capsys.readouterr().err == ""


def test_what_counts_as_given_away():
    base = {"rate": 0.1, "masks": 1, "seed": 0, "scaled": False, "epochs": 30, "most": 100}
    base |= {"reached": 6, "settled": 10}
    runs = [
        base | {"data": "iris", "score": 0.95, "never": 0.97},  # as bad as may be
        base | {"data": "iris", "score": 0.94, "never": 0.97, "settled": 9},
        base | {"data": "yacht", "score": 0.99, "never": 0.9},  # better than without a stop
        base | {"data": "yacht", "score": 0.86, "never": 0.9},
    ]
    total = stopping.report(runs).splitlines()[-1].split()
    assert total == ["all", "4", "75.0%", "50.0%", "30", "5.00", "0.0%", "3.00", "75.0%"]


@pytest.mark.parametrize(
    ("enough", "reached", "settled"),
    [("0011", 3, 3), ("0101101", 2, 7), ("1", 1, 1), ("111", 1, 1), ("1011", 1, 3)],
)
def test_epochs_that_were_needed(enough, reached, settled):
    found = stopping.epochs_needed(numpy.array([one == "1" for one in enough]))
    assert found == (reached, settled)


def test_data_that_are_missing_are_told(capsys, tmp_path):
    assert stopping.main(["--seeds", "0", "--uci", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("left out: ") == 2
