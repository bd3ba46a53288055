"""The model of training on many ranks, and the page that holds what it says."""

import json

import pytest

from bench import bench_mpi, mpi_scaling

PAGE = mpi_scaling.GUIDE / "scaling.md"


def measured():
    return json.loads((mpi_scaling.GUIDE / "scaling.json").read_text())


def test_the_page_holds_what_the_measurements_say():
    text = PAGE.read_text()
    assert mpi_scaling.filled(text, mpi_scaling.tables(measured())) == text


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="marks"):
        mpi_scaling.filled("a page", {"constants": "a table"})


def test_the_model_fits_what_it_was_made_from():
    compute = {"32": 0.002 + 32e-5, "128": 0.002 + 128e-5, "256": 0.002 + 256e-5}
    model = mpi_scaling.Model((784, 1024, 1024, 10), 0.5, compute)
    assert model.fixed == pytest.approx(0.002)
    assert model.per_row == pytest.approx(1e-5)
    assert model.bytes == 4 * (784 * 512 + 512 * 512 + 512 * 10 + 512 + 512 + 10)
    link = mpi_scaling.Link.measured({"8": 2e-6, str(1 << 24): 2e-6 + (1 << 24) / 4e9})
    assert (link.latency, link.bandwidth) == (2e-6, pytest.approx(4e9))
    assert model.seconds(100, 1, link) == pytest.approx(0.003)
    assert model.seconds(100, 2, link) > 0.003 + model.bytes / 4e9
    assert model.seconds(100, 4, link) > model.seconds(100, 2, link)


def test_the_bars_are_judged_by_what_was_measured():
    found = measured()
    fewer, fewest, faster = bench_mpi.judged(found)
    assert fewer <= 0.42
    assert fewest <= 0.12
    steps = found["2"]["steps"]["784-1024-1024-10 at 0.5"]
    assert faster == steps["alone"] / steps["together"]
