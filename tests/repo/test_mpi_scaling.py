"""The model of training on many ranks, and the page that holds what it says."""

import json

import pytest

from bench import bench_mpi, mpi_scaling

PAGE = mpi_scaling.GUIDE / "scaling.md"


def measured():
    return json.loads((mpi_scaling.GUIDE / "scaling.json").read_text())


def test_the_page_holds_what_the_measurements_say():
    text, found = PAGE.read_text(), measured()
    parts = mpi_scaling.tables(found) | mpi_scaling.sentences(found)
    assert mpi_scaling.filled(text, parts) == text


def test_what_the_page_says_in_words_follows_from_the_measurements():
    """Its sentences without figures."""
    made, link = mpi_scaling.models(measured())
    text = " ".join(PAGE.read_text().split())
    assert f"every rank tells {mpi_scaling.HEADER + mpi_scaling.OUTCOME} bytes a step" in text
    assert "lowers the time per row and the bytes of every network, and the fixed time of" in text
    assert "The bytes fall as the product of the kept shares of two layers, computing" in text
    for name in mpi_scaling.NETWORKS:
        none = made[name, 0.0]
        for rate in mpi_scaling.RATES[1:]:
            one = made[name, rate]
            assert one.per_row < none.per_row
            assert one.fixed < none.fixed or max(mpi_scaling.NETWORKS[name]) < 1024
            computing = one.seconds(128, 1, link) / none.seconds(128, 1, link)
            assert one.bytes / none.bytes < computing < 1
    assert "the share falls slowly for large networks, and fast where a step is short" in text
    large, *_, small = mpi_scaling.NETWORKS
    for network in mpi_scaling.LINKS.values():
        fall = [made[name, 0.0].share(8, network) - made[name, 0.0].share(1024, network)
                for name in (large, small)]  # fmt: skip
        assert 0 < fall[0] < 0.06
        assert fall[0] < fall[1]


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
