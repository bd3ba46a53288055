"""What a fit shows, and how it is installed: the estimators as seen from a terminal."""

import io
import os
import subprocess
import sys

import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")

from sklearn.datasets import load_iris

from fastdrop import MLPClassifier, progress

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (16,), "dropout": 0.2, "max_iter": 10, "random_state": 0}


@pytest.fixture
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture
def terminal(monkeypatch):
    """Let a bar be drawn on stderr as on a terminal."""
    pytest.importorskip("tqdm", reason="optional")
    monkeypatch.setattr(progress, "_can_draw", lambda stream: True)


def test_a_bar_with_loss_and_score(terminal, capsys, iris):
    MLPClassifier(**SMALL, verbose=1, early_stopping=True).fit(*iris)
    shown = capsys.readouterr()
    assert shown.err.count("10/10") == 1  # drawn once, with the last epoch's loss
    last = shown.err.split("\r")[-1]
    assert "float64: 100%" in last
    assert "loss=" in last
    assert "validation score=" in last
    assert shown.out == ""


def lines_of(capsys):
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out.splitlines()


@pytest.mark.parametrize("installed", [False, True])
def test_lines_where_no_bar_can_be_drawn(capsys, monkeypatch, iris, installed):
    """In a file, or without tqdm: scikit-learn's lines, one for every epoch."""
    if installed:
        pytest.importorskip("tqdm", reason="optional")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setattr(progress, "_can_draw", lambda stream: True)
    options = SMALL | {"tol": 10.0, "dropout": 0.0}
    model = MLPClassifier(**options, verbose=True, n_iter_no_change=2).fit(*iris)
    first, *lines, last = lines_of(capsys)
    assert first == "Computing in float64, at most 10 iterations"
    assert lines == [
        f"Iteration {number}, loss = {loss:.8f}" for number, loss in enumerate(model.loss_curve_, 1)
    ]
    assert last == (
        "Training loss did not improve more than tol=10.000000 for 2 consecutive epochs. Stopping."
    )


def test_bar_and_lines(terminal, capsys, iris):
    MLPClassifier(**SMALL, verbose=2).fit(*iris)
    shown = capsys.readouterr()
    assert "10/10" in shown.err
    assert "Iteration 10, loss = " in shown.out + shown.err


def test_a_changed_learning_rate_is_told(capsys, monkeypatch, iris):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    options = {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1}
    MLPClassifier(**SMALL | {"tol": 10.0, "dropout": 0.0}, **options, verbose=1).fit(*iris)
    assert any(line.endswith("Setting learning rate to 0.000200") for line in lines_of(capsys))


def test_iterations_of_lbfgs_are_told(capsys, iris):
    options = SMALL | {"dropout": 0.0, "solver": "lbfgs", "dtype": "float32"}
    model = MLPClassifier(**options, verbose=1).fit(*iris)
    lines = lines_of(capsys)
    assert lines[0] == "Computing in float32, at most 10 iterations"
    assert lines[-1] == f"Iteration 10, loss = {model.loss_:.8f}"
    assert len(lines) == 11


def test_silence(capsys, iris):
    MLPClassifier(**SMALL, early_stopping=True).fit(*iris)
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_where_a_bar_can_be_drawn():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    assert progress._can_draw(Terminal())
    assert progress._can_draw(notebook)
    assert not progress._can_draw(io.StringIO())
    assert not progress._can_draw(None)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    "use",
    [
        "fastdrop.MLPClassifier",
        "fastdrop.MLPRegressor",
        "from fastdrop import MLPClassifier",
        "import fastdrop.estimators",
    ],
)
def test_missing_scikit_learn_gives_the_install_line(use):
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import fastdrop\n"
        f"try:\n    {use}\nexcept ImportError as error:\n    print(error)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "need scikit-learn" in done.stdout
    assert "python -m pip install 'fastdrop-numpy[sklearn]'" in done.stdout
    assert "python -m pip install '.[sklearn]'" in done.stdout


def test_without_scikit_learn_all_else_works():
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['scipy'] = None\n"
        "import fastdrop; from fastdrop import *\n"
        "print(MaskStream(0).draw((2, 8), rate=0.5).count() > 0, dir(fastdrop) != [])"
    )
    done = run_python(code)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_a_threadpoolctl_that_cannot_be_told_of_us(tmp_path):
    """Old ones have no `LibController`; the estimators work all the same."""
    (tmp_path / "threadpoolctl.py").write_text(
        "__version__ = '2.2.0'\n"
        "def threadpool_info(): return []\n"
        "class threadpool_limits:\n"
        "    def __init__(self, *a, **k): pass\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *a): pass\n"
        "class ThreadpoolController(threadpool_limits):\n"
        "    lib_controllers = ()\n"
        "    def select(self, **k): return self\n"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run_python(
        "import threadpoolctl; assert threadpoolctl.__version__ == '2.2.0'\n"
        "from fastdrop import MLPClassifier; print(MLPClassifier)\n"
        "from fastdrop.interop.threadpoolctl import register",
        PYTHONPATH=paths,
    )
    assert "MLPClassifier" in done.stdout, done.stderr
    assert "threadpoolctl must be 3.3 or newer" in done.stderr


def test_a_broken_scikit_learn_is_not_called_missing(tmp_path):
    package = tmp_path / "sklearn"
    package.mkdir()
    (package / "__init__.py").write_text("import a_module_that_is_not_there\n")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run_python("import fastdrop; fastdrop.MLPClassifier", PYTHONPATH=paths)
    assert done.returncode == 1
    assert "a_module_that_is_not_there" in done.stderr
    assert "pip install" not in done.stderr
