"""The studies of bench/studies, in short; their own tests lie beside them and run on demand."""

import json
from pathlib import Path

import numpy
import pytest

from fastdrop import reference

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_shows_what_the_summary_says(tmp_path):
    pytest.importorskip("matplotlib")
    from bench.studies.generalisation import plots, report

    docs = ROOT / "docs" / "study"
    summary = json.loads((docs / "study.json").read_text())
    page = (docs / "study.md").read_text()
    assert report.fill(page, report.tables(summary)) == page
    assert "comparison" in report.tables(summary)
    for path in plots.plot(summary, tmp_path):
        assert (docs / path.name).exists()


def test_the_guide_shows_what_the_summary_says():
    from bench import marks
    from bench.studies.generalisation.guide import guide_tables

    summary = json.loads((ROOT / "docs" / "study" / "study.json").read_text())
    page = (ROOT / "docs" / "guide" / "choosing.md").read_text()
    assert sorted(marks.names(page, "guide")) == sorted(guide_tables(summary))
    assert marks.fill(page, guide_tables(summary), "guide") == page


def test_a_study_runs_from_its_command(tmp_path, capsys):
    for name in ("sklearn", "tqdm", "joblib"):
        pytest.importorskip(name)
    from bench.studies.generalisation import __main__ as command
    from bench.studies.generalisation import masks
    from bench.studies.generalisation.data import load_small_digits
    from bench.studies.generalisation.runner import Runner
    from bench.studies.generalisation.store import Store

    plan = masks.MaskPlan.quick()
    sets = {"digits": (load_small_digits, 60)}
    cells = masks.part(Runner(Store(tmp_path / "runs.jsonl"), load=load_small_digits), plan, sets)
    assert [cell["masks"] for cell in cells] == sorted(plan.arms(32))
    assert all(len(cell["error"]) == len(plan.seeds) for cell in cells)
    with pytest.raises(SystemExit, match="no such part: nothing"):
        command.main(["nothing"])


def test_the_small_battery_tells_a_weakened_generator_from_the_stream(monkeypatch):
    """Block 0 of 2^15 draws, at three rounds of Philox and at ten."""
    pytest.importorskip("scipy")
    from bench.studies.randomness import chisquare

    def p_value(rounds):
        monkeypatch.setattr(reference.stream, "ROUNDS", rounds)
        output = reference.philox4x32((0, 0, numpy.arange(1 << 15), 0), (1, 2))
        return min(chisquare.p_values(numpy.ascontiguousarray(output.T)).values())

    assert p_value(3) < 1e-10 < 1e-5 < p_value(10)
