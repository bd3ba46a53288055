"""``python -m bench roofline``: kernels beside the limits of memory and multipliers."""

import json

import pytest

from bench import environment, roofline


@pytest.fixture(scope="module")
def found():
    return roofline.rows(sizes=(1 << 12,), seconds=0.0)


def test_every_kernel_stands_beside_a_limit(found):
    names = [row["kernel"] for row in found]
    assert names.count("np.copyto") == names.count("np.matmul") == 1
    assert {"dropout, rate 0.5, 2^12", "backward, 2^12", "its gradients"} <= set(names)
    for row in found:
        assert row["attained"] > 0
        assert row["gigabytes_per_second"] or row["multiply_adds_per_second"]
        if row["kernel"].startswith("np."):
            assert row["attained"] == pytest.approx(1)


def test_multiply_adds_are_those_of_kept_units(found):
    by_name = {row["kernel"]: row for row in found}
    rows, depth, columns = roofline.SHAPE
    half = by_name["masked_matmul, half the units on both sides"]
    share = half["multiply_adds_per_second"] * half["seconds"] / (rows * depth * columns)
    assert 0.2 < share < 0.3
    gradients = by_name["its gradients"]
    made = gradients["multiply_adds_per_second"] * gradients["seconds"]
    assert made == pytest.approx(2 * share * rows * depth * columns)


def test_the_table_and_the_file(capsys, monkeypatch, tmp_path, found):
    monkeypatch.setattr(roofline, "rows", lambda **options: found)
    path = tmp_path / "results.json"
    facts = environment.describe()
    machine = {"label": "this", "cpu": facts["cpu"], "cpus": facts["cpus"]}
    path.write_text(json.dumps({"format": 1, "machine": machine, "runs": [], "results": []}))
    for threads in ("2", "1", "1"):
        assert roofline.main(["--threads", threads, "--json", str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sum(line.startswith("| ") for line in lines) == len(found) + 1
    made = json.loads(path.read_text())["roofline"]
    assert [one["threads"] for one in made] == [1, 2]
    kept = [row["attained"] for row in made[0]["rows"]]
    assert kept == pytest.approx([row["attained"] for row in found], rel=1e-3)


def test_bad_threads_are_named(capsys):
    with pytest.raises(SystemExit):
        roofline.main(["--threads", "0"])
    assert "must be 1 or more, got 0" in capsys.readouterr().err
