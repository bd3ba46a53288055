"""The examples run, as they stand, and show what they say they show."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import fastdrop
from tools import examples

FOLDER = Path(__file__).resolve().parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
# Other packages than NumPy that an example may use.
OPTIONAL = {
    "larger_than_memory": {"dask", "sklearn"},
    "sklearn_pipeline": {"sklearn"},
    "torch_model": {"torch"},
    "uncertainty": {"matplotlib", "sklearn"},
}


def imported(path):
    """Top-level names of the modules that a script imports from outside the standard library."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


def without_numbers(text):
    """A text with its numbers and spaces taken away: the last digits depend on the processor."""
    return re.sub(r"-?\d+(\.\d*)?|\s+", "", text)


def run(name):
    """Run an example; it prints what docs/examples shows of it."""
    for package in sorted(OPTIONAL.get(name, ())):
        pytest.importorskip(package, reason=f"this example needs the extra {package!r}")
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(FOLDER / f"{name}.py")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    shown = examples.sections()[name]
    assert without_numbers(done.stdout) == without_numbers(shown), "run tools/examples.py"
    return done.stdout


def test_the_page_shows_every_example():
    shown = {*examples.sections(), "mpi_train"}  # the one that mpiexec starts
    assert shown == {path.stem for path in EXAMPLES}


def test_which_there_are():
    assert [path.stem for path in EXAMPLES] == [
        "checkpoint_and_resume",
        "larger_than_memory",
        "mpi_train",
        "own_loop",
        "recurrent",
        "sklearn_pipeline",
        "torch_model",
        "train_network",
        "uncertainty",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_packages_and_command(path):
    assert imported(path) - {"numpy", "fastdrop"} <= OPTIONAL.get(path.stem, set())
    assert f"python examples/{path.name}\n" in path.read_text()


def test_train_network():
    pairs = re.findall(
        r"rate (0\.\d).* ([\d.]+)% on the 250.* ([\d.]+)% on 5000", run("train_network")
    )
    (plain, *_, without), (rate, *_, dropped) = pairs
    assert (plain, rate) == ("0.0", "0.3")
    assert 80 < float(without) < float(dropped)


def test_own_loop():
    output = run("own_loop")
    explained = [float(text) for text in re.findall(r"explained variance (-?[\d.]+)", output)]
    assert len(explained) == 4
    assert explained == sorted(explained)
    assert explained[-1] > 0.75
    assert "4096 bytes of mask, gradients [0.   1.25]" in output


def test_recurrent():
    output = run("recurrent")
    wrong = [float(text) for text in re.findall(r"([\d.]+) %", output)]
    assert len(wrong) == 8
    assert max(wrong) < 35


@pytest.mark.parametrize("way", ["no dropout", "each step", "all steps", "zoneout"])
def test_the_gradients_through_time_of_recurrent(way):
    module = runpy.run_path(str(FOLDER / "recurrent.py"))
    rng = numpy.random.default_rng(0)
    p, (x, _) = module["parameters"](rng), module["examples"](8, rng)
    x, weights = x[:6], rng.standard_normal(8).astype(numpy.float32)
    stream = fastdrop.MaskStream(2)

    def scores():
        stream.position = 0
        return module["forward"](p, x, way, stream, training=True)

    module["backward"](p, weights, *scores()[1:])
    for name, parameter in p.items():
        place = numpy.unravel_index(numpy.abs(parameter.grad).argmax(), parameter.grad.shape)
        moved = []
        for step in (0.01, -0.01):
            parameter.value[place] += step
            moved.append(float(scores()[0].astype(float) @ weights))
            parameter.value[place] -= step
        slope = (moved[0] - moved[1]) / 0.02
        assert parameter.grad[place] == pytest.approx(slope, rel=0.01), name


def test_checkpoint_and_resume():
    output = run("checkpoint_and_resume")
    assert "resumed at epoch 4" in output
    assert output.count("the same, bit for bit") == 4
    assert "DIFFERENT" not in output


def test_sklearn_pipeline():
    output = run("sklearn_pipeline")
    scores = [float(text) for text in re.findall(r"accuracy.* (0\.\d+)", output)]
    assert len(scores) == 4
    assert min(scores) > 0.9
    assert re.search(r"the best is 0\.\d", output)


def test_uncertainty():
    output = run("uncertainty")
    noise = float(re.search(r"deviation ([\d.]+) ", output)[1])
    assert 0.15 < noise < 0.3
    table = [line.replace("+-", "").split() for line in output.splitlines()[-7:]]
    deviations = {float(row[0]): float(row[3]) for row in table}
    inside = max(deviations[at] for at in (-2.0, 0.0, 1.0, 2.5))
    assert min(deviations[-6.0], deviations[6.0]) > 2 * inside


def test_larger_than_memory():
    output = run("larger_than_memory")
    size = float(re.search(r"^(\d+) MB in a file", output)[1])
    error, deviation = map(
        float, re.search(r"rows ([\d.]+), of .* ([\d.]+)$", output, re.M).groups()
    )
    assert error < 0.4 * deviation
    assert "share of zeros 0.500" in output
    assert float(re.search(r"never took more than (\d+) MB", output)[1]) < size


def test_torch_model():
    output = run("torch_model")
    theirs, ours = (float(text) for text in re.findall(r"loss ([\d.]+)", output))
    assert max(theirs, ours) < 0.65
    assert abs(theirs - ours) < 0.2
    assert "7 modules swapped, among them drop\n" in output
    assert output.endswith("restored: torch.nn.modules.dropout.Dropout\n")
