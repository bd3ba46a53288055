"""Tables and pictures of the documentation: they show what lies in ``bench/results``."""

import json

import pytest

from bench import marks, pages, pictures, store, tables
from bench.machines import Machine, times

ROOT = pages.ROOT


def result(name, contenders, **more):
    """Return a result of a file, its contenders as (name, seconds)."""
    own = [(who, seconds) for who, seconds in contenders if who.startswith("fastdrop")]
    family, _, work = name.partition("/")
    return {
        "name": name,
        "family": family,
        "work": work.rpartition("/")[0],
        "size": 1 << 10,
        "threads": 1,
        "unit": "seconds",
        "run": 0,
        "contenders": [
            {
                "name": who,
                "median": seconds,
                "ratio": {
                    mine: [0.9 * time / seconds, time / seconds, 1.2 * time / seconds, 0.96]
                    for mine, time in own
                    if mine != who
                },
            }
            for who, seconds in contenders
        ],
        "bars": [],
        "skipped": [],
        **more,
    }


def machine(*results, label="Abacus", **more):
    run = {
        "date": "2026-01-01",
        "commit": "0123456789ab",
        "changed": False,
        "command": "python -m bench",
        "environment": {
            "python": "3.11",
            "packages": {"numpy": "2.4"},
            "blas": [],
            "fastdrop": {"isa_used": "avx512"},
        },
    }
    about = {"label": label, "cpu": "wood", "cpus": 2}
    return Machine(label, {"machine": about, "runs": [run], "results": list(results), **more})


# --- What is in the repository -----------------------------------------------------------------


def test_pages_and_pictures_show_what_was_measured():
    assert [str(path.relative_to(ROOT)) for path in pages.stale()] == []


@pytest.mark.parametrize("path", sorted(pages.RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_say_where_they_are_from(path):
    document = store.load(path)
    assert document["machine"]["label"]
    assert document["runs"]
    for run in document["runs"]:
        assert run["date"] >= "2026"
        assert run["commit"]
        assert run["command"].startswith("python -m bench")
        assert run["failures"] == []
    used = {one["run"] for one in document["results"]}
    assert used == set(range(len(document["runs"])))


def test_the_readme_has_no_typed_table_of_measurements():
    text = (ROOT / "README.md").read_text()
    assert "headline" in marks.names(text)


# --- Places ------------------------------------------------------------------------------------

PAGE = (
    "before\n<!-- bench: one -->\nold\n<!-- end -->\nbetween\n<!-- bench: two -->\n<!-- end -->\n"
)


def test_places_are_filled_and_the_rest_is_left():
    text = marks.fill(PAGE, {"one": "new"})
    assert text == PAGE.replace("\nold\n", "\n\nnew\n\n")
    assert marks.fill(text, {"one": "new"}) == text
    assert marks.names(PAGE) == ["one", "two"]


def test_a_place_without_end_and_a_text_without_place_are_errors():
    with pytest.raises(ValueError, match="does not end"):
        marks.fill("<!-- bench: one -->\nold\n", {})
    with pytest.raises(ValueError, match="no place for three"):
        marks.fill(PAGE, {"three": "text"})


def test_an_unknown_table_is_an_error_that_names_those_there_are():
    with pytest.raises(ValueError, match="'nothing'; there are headline, main"):
        tables.block("nothing", [machine()])


# --- Tables ------------------------------------------------------------------------------------


def test_times_faster_with_their_interval():
    one = machine(result("family/work/2^10", [("fastdrop", 1.0), ("slow", 40.0), ("quick", 4.0)]))
    found = one.faster("family/work/2^10", ("slow", "quick", "missing"))
    assert found == pytest.approx((4 / 1.2, 4, 4 / 0.9))
    assert times(found) == "4.00 (3.33 to 4.44)"
    assert one.faster("family/work/2^10", "missing") is None
    assert one.faster("family/other", "slow") is None
    assert times(None) == tables.NONE


def test_the_readmes_table_has_a_column_for_each_machine():
    name = tables.SHORT[1][2]
    both = [
        machine(result(name, [("fastdrop", 1.0), ("copyto", 2.0)]), label="first"),
        machine(label="second"),
    ]
    head, _, _, row, *_ = tables.block("headline", both).splitlines()
    assert head == "| work | beside it | first | second |"
    assert row.endswith(f"| 2.00 (1.67 to 2.22) | {tables.NONE} |")


def test_pieces_of_a_run_are_one_row():
    one = machine(*(result(f"family/work/{size}", [("fastdrop", 1.0)]) for size in "abc"))
    one.document["runs"] *= 2
    one.document["results"][2]["run"] = 1
    assert tables.block("machines", [one]).count("| 3 | Python 3.11") == 1
    one.document["runs"][1] = one.document["runs"][1] | {"commit": "fedcba987654"}
    text = tables.block("machines", [one])
    assert "| `01234567` | `python -m bench` | 2 |" in text
    assert "| `fedcba98` | `python -m bench` | 1 |" in text


def test_every_loss_is_listed_and_no_win():
    found = result("family/work/2^10", [("fastdrop", 3.0), ("faster", 1.0), ("slower", 9.0)])
    text = tables.block("losses", [machine(found)])
    assert "| `family/work/2^10` | 1 | faster | 3.00 (2.70 to 3.60) |" in text
    assert "slower" not in text


def test_missed_bars_are_listed_beside_those_met():
    bar = {"contender": "fastdrop", "bar": "<= 1 x copyto", "rival": "copyto", "reason": None}
    bars = [
        {**bar, "measured": 0.9, "met": True},
        {**bar, "measured": 1.2, "met": False},
        {**bar, "measured": None, "met": None, "reason": "copyto skipped"},
    ]
    found = result("family/work/2^10", [("fastdrop", 1.0)], bars=bars)
    text = tables.block("bars", [machine(found)])
    assert text.startswith("1 of 2 are met.")
    assert "| 1.2 | **missed** |" in text


@pytest.mark.parametrize("name", tables.known())
def test_every_table_is_made_of_nothing_and_of_what_there_is(name):
    assert tables.block(name, [machine()])
    found = pages.machines()
    text = tables.block(name, found)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count(" | ") for line in rows}) <= 1 or name == "roofline"


def renamed(one):
    """The results of a machine, every case and everybody in them called otherwise."""
    results = [
        result
        | {
            "name": f"{result['family']}/renamed/{number}",
            "contenders": [
                found
                | {
                    "name": f"renamed {found['name']}",
                    "ratio": {f"renamed {who}": ratio for who, ratio in found["ratio"].items()},
                }
                for found in result["contenders"]
            ],
        }
        for number, result in enumerate(one.document["results"])
    ]
    return Machine(one.label, one.document | {"results": results})


def test_tables_and_pictures_survive_renamed_cases():
    found = [renamed(one) for one in pages.machines()]
    for name in tables.known():
        assert tables.block(name, found)
    for name in pictures.PICTURES:
        pictures.numbers(name, found)


# --- Pictures ----------------------------------------------------------------------------------


def test_a_picture_is_stale_when_its_numbers_change(tmp_path):
    pytest.importorskip("matplotlib")

    def measured(seconds):
        contenders = [("fastdrop, rate 0.5", seconds), ("copyto", 1e-3)]
        return [machine(result("scaling/size/2^10", contenders))]

    path = tmp_path / "size.svg"
    assert pictures.stale(tmp_path, measured(1e-3)) == [path]
    pictures.draw(path, measured(1e-3))
    assert pictures.stale(tmp_path, measured(1e-3)) == []
    assert pictures.stale(tmp_path, measured(2e-3)) == [path]
    first = path.read_bytes()
    pictures.draw(path, measured(1e-3))
    assert path.read_bytes() == first


def test_the_picture_of_a_step_has_every_kind_and_rival():
    case = "step/rates/{}/128x784x1024x1024x10"
    own, others = (
        [("fastdrop, rate 0.5", 1e-3)],
        [("torch, rate 0.5", 3e-3), ("scikit-learn", 4e-3)],
    )
    measured = {kind: own + (others if kind == "batchwise" else []) for kind in pictures.KINDS}
    results = [result(case.format(kind), all_, threads=2) for kind, all_ in measured.items()]
    one = machine(*results)
    (lines,) = pictures.numbers("step", [one]).values()
    assert set(lines) == {
        *(f"fastdrop, {label}" for label in pictures.KINDS.values()),
        "torch",
        "scikit-learn, no dropout",
    }
    assert lines["torch"] == [[0.5, 3e-3]]


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_pictures_of_the_results_are_drawn(name, tmp_path):
    pytest.importorskip("matplotlib")
    found = pages.machines()
    if not pictures.numbers(name, found):
        pytest.skip("not measured")
    pictures.draw(tmp_path / f"{name}.svg", found)
    assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")


def test_the_command_writes_pages_and_then_has_nothing_to_do(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "page.md"
    page.write_text("<!-- bench: losses -->\n<!-- end -->\n")
    found = [machine(result("family/work/2^10", [("fastdrop", 3.0), ("faster", 1.0)]))]
    assert pages.stale(tmp_path, found) == [page]
    assert pages.write(tmp_path, found) == [page]
    assert "faster" in page.read_text()
    assert pages.stale(tmp_path, found) == []


def test_a_file_that_is_no_result_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match=r"results\.json is no file of benchmark results"):
        pages.machines(tmp_path)
