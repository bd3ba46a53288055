"""scikit-learn's own tests of its perceptrons, those of the installed version, run on ours.

Its test module is loaded once more, with our classes in the place of theirs; nothing is copied.
"""

import importlib.util
import sys

import pytest

pytest.importorskip("sklearn", reason="the estimators need the extra 'sklearn'")
pytest.importorskip("sklearn.neural_network.tests.test_mlp", reason="installed without its tests")

from sklearn import neural_network

import fastdrop

# Tests that look at private attributes, by name.
EXCUSED = {
    "test_gradient": "calls _loss_grad_lbfgs",
    "test_learning_rate_warmstart": "reads _optimizer.learning_rate",
    "test_adaptive_learning_rate": "reads _optimizer.learning_rate",
    "test_early_stopping_stratified": "expects class 1 to be called True, its binary form",
}


def load():
    """scikit-learn's test module, made with our classes."""
    spec = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLPClassifier", "MLPRegressor"):
            patch.setattr(neural_network, name, getattr(fastdrop, name))
        spec.loader.exec_module(module)
    return module


THEIRS = load()


@pytest.fixture
def global_random_seed():
    """The seed that scikit-learn's own configuration of pytest gives."""
    return 42


for _name, _test in vars(THEIRS).items():
    if _name.startswith("test_") and callable(_test):
        if _name in EXCUSED:
            _test = pytest.mark.xfail(reason=EXCUSED[_name], strict=True)(_test)
        globals()[_name] = _test


def test_it_is_our_classes_that_are_tested():
    assert THEIRS.MLPClassifier is fastdrop.MLPClassifier
    assert THEIRS.MLPRegressor is fastdrop.MLPRegressor
    assert neural_network.MLPClassifier is not fastdrop.MLPClassifier
    assert sys.modules["sklearn.neural_network.tests.test_mlp"] is not THEIRS


def test_excuses_name_tests():
    assert set(EXCUSED) <= set(vars(THEIRS))
