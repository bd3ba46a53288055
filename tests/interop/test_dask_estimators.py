"""fastdrop.dask: estimators on blocks of rows."""

import time
import warnings
import weakref

import numpy
import pytest

import fastdrop

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
pytest.importorskip("sklearn")
from dask_common import LABELS, LAZY, ROWS, VALUES, X, classifier, regressor  # noqa: E402

import fastdrop.dask  # noqa: E402

pytestmark = pytest.mark.dask


def same_weights(a, b):
    return all(
        numpy.array_equal(mine, other)
        for mine, other in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    )


def test_it_is_partial_fit_in_a_loop():
    model = fastdrop.dask.fit(classifier(), LAZY, LABELS, epochs=3, shuffle_blocks=False)
    own = classifier(random_state=numpy.random.RandomState(0))
    losses = []
    for _ in range(3):
        losses.append([])
        for rows in (slice(0, 250), slice(250, 500), slice(500, 600)):
            own.partial_fit(X[rows], LABELS[rows], classes=["left", "right"])
            losses[-1].append(own.loss_)
    assert same_weights(model, own)
    weighted = numpy.average(losses, axis=1, weights=[250, 250, 100])
    numpy.testing.assert_allclose(model.loss_curve_, weighted)
    assert (model.n_iter_, model.loss_, model.t_) == (3, model.loss_curve_[-1], 3 * ROWS)
    assert (model.random_state, model.verbose) == (0, False)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_the_same_model_every_time(scheduler):
    first = fastdrop.dask.fit(classifier(), LAZY, LABELS, epochs=2)
    with dask.config.set(scheduler=scheduler, num_workers=3):
        # y in other chunks, and the columns of X cut: the blocks of rows are the same.
        cut = da.from_array(X, chunks=(250, 4))
        again = fastdrop.dask.fit(
            classifier(), cut, da.from_array(LABELS, chunks=77), epochs=2, classes=["left", "right"]
        )
    assert same_weights(first, again)
    other = fastdrop.dask.fit(classifier(random_state=1), LAZY, LABELS, epochs=2)
    assert not same_weights(first, other)


def spied_blocks(monkeypatch, model, *args, **options):
    """First feature of the first row of every block that a fit hands to `partial_fit`."""
    seen, original = [], type(model).partial_fit

    def partial_fit(self, X, *args, **kwargs):
        seen.append(X[0, 0].item())
        return original(self, X, *args, **kwargs)

    monkeypatch.setattr(type(model), "partial_fit", partial_fit)
    fastdrop.dask.fit(model, *args, **options)
    return seen


@pytest.mark.parametrize("shuffled", [True, False])
def test_order_of_blocks(monkeypatch, shuffled):
    lazy = da.from_array(X, chunks=(60, 6))
    first = X[::60, 0].tolist()
    seen = spied_blocks(monkeypatch, regressor(), lazy, VALUES, epochs=2, shuffle_blocks=shuffled)
    assert sorted(seen[:10]) == sorted(seen[10:]) == sorted(first)
    assert (seen == first * 2) == (not shuffled)
    assert (seen[:10] == seen[10:]) == (not shuffled)
    monkeypatch.undo()
    assert spied_blocks(monkeypatch, regressor(shuffle=False), lazy, VALUES) == first


def test_rows_inside_a_block_are_shuffled_anew_in_every_epoch():
    """With an int as `random_state`, `partial_fit` alone would take the same batches every time."""
    one = da.from_array(X, chunks=-1)
    model = fastdrop.dask.fit(regressor(), one, VALUES, epochs=2)
    own = regressor()
    for _ in range(2):
        own.partial_fit(X, VALUES)
    assert not same_weights(model, own)


@pytest.mark.parametrize("make", [fastdrop.MaskStream, numpy.random.default_rng])
def test_streams_and_generators_as_random_state(make):
    models = [
        fastdrop.dask.fit(regressor(random_state=make(5)), LAZY, VALUES, epochs=2) for _ in range(2)
    ]
    assert same_weights(*models)
    samples = [
        fastdrop.dask.predict_samples(models[0], LAZY, 3, random_state=make(6)).compute()
        for _ in range(2)
    ]
    numpy.testing.assert_array_equal(*samples)


def test_a_fit_forgets_but_with_warm_start():
    model = fastdrop.dask.fit(classifier(), LAZY, LABELS)
    before = [weight.copy() for weight in model.coefs_]
    again = fastdrop.dask.fit(model, LAZY, LABELS)
    assert all(map(numpy.array_equal, before, again.coefs_))
    model.set_params(warm_start=True)
    fastdrop.dask.fit(model, LAZY, LABELS, epochs=2)
    assert not numpy.array_equal(before[0], model.coefs_[0])
    assert (len(model.loss_curve_), model.n_iter_, model.t_) == (3, 2, 3 * ROWS)


def test_classes():
    rare = LABELS.astype("<U9")
    rare[-1] = "elsewhere"  # in the last block alone
    lazy = da.from_array(rare, chunks=100)
    model = fastdrop.dask.fit(classifier(), LAZY, lazy)
    assert model.classes_.tolist() == ["elsewhere", "left", "right"]
    model = fastdrop.dask.fit(classifier(), LAZY, LABELS, classes=["left", "right", "up"])
    assert model.predict_proba(X[:1]).shape == (1, 3)
    with pytest.raises(ValueError, match="classes not in") as caught:
        fastdrop.dask.fit(classifier(), LAZY, lazy, classes=["left", "right"], shuffle_blocks=False)
    assert "block 2 of the rows of X" in caught.value.__notes__[0]
    labels = numpy.stack([X[:, 0] > 0, X[:, 1] > 0], axis=1).astype(int)
    model = fastdrop.dask.fit(classifier(), LAZY, labels)
    assert fastdrop.dask.predict(model, LAZY).compute().shape == (ROWS, 2)
    column = fastdrop.dask.fit(classifier(), LAZY, LABELS[:, None])
    assert same_weights(column, fastdrop.dask.fit(classifier(), LAZY, LABELS))
    with pytest.raises(ValueError, match="continuous"):
        fastdrop.dask.fit(classifier(), LAZY, VALUES[:, 0])


def test_sample_weights():
    """Blocks whose weights are all 0 teach nothing, as if they were not there."""
    weights = numpy.zeros(ROWS)
    weights[:500] = 1
    model = fastdrop.dask.fit(regressor(), LAZY[:500], VALUES[:500], shuffle_blocks=False)
    for given in (weights, da.from_array(weights, chunks=99)):
        again = regressor()
        fastdrop.dask.fit(again, LAZY, VALUES, sample_weight=given, shuffle_blocks=False)
        numpy.testing.assert_allclose(model.coefs_[0], again.coefs_[0], rtol=1e-4)
        numpy.testing.assert_allclose(model.loss_curve_, again.loss_curve_, rtol=1e-4)
    with pytest.raises(ValueError, match="sample_weight must not be 0 for every sample"):
        fastdrop.dask.fit(regressor(), LAZY, VALUES, sample_weight=0 * weights)


def test_predictions_of_blocks_without_rows():
    model = fastdrop.dask.fit(regressor(), LAZY, VALUES)
    lazy = da.from_array(X, chunks=((0, 300, 0, 300, 0), 6))
    options = {"return_std": True, "n_samples": 3, "random_state": 0}
    values, std = dask.compute(*fastdrop.dask.predict(model, lazy, **options))
    whole = model.predict(X, **options)
    numpy.testing.assert_allclose(values, whole[0], atol=1e-6)
    numpy.testing.assert_allclose(std, whole[1], atol=1e-6)
    for none in (LAZY[:0], LAZY[5:5]):
        assert fastdrop.dask.predict(model, none).compute().shape == (0, 2)
        assert fastdrop.dask.predict_samples(model, none, 3).compute().shape == (3, 0, 2)


def test_blocks_without_rows():
    lazy = da.from_array(X, chunks=((0, 300, 0, 300, 0), 6))
    model = fastdrop.dask.fit(classifier(), lazy, LABELS)
    assert same_weights(
        model, fastdrop.dask.fit(classifier(), da.from_array(X, chunks=(300, 6)), LABELS)
    )


def exploding(*_):
    raise AssertionError("nothing is to be computed")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": X}, TypeError, "X must be a dask array, got ndarray"),
        ({"X": LAZY[LAZY[:, 0] > 0]}, ValueError, "X must have known chunk sizes"),
        ({"y": da.from_array(VALUES)[LAZY[:, 0] > 0]}, ValueError, "y must have known chunk sizes"),
        (
            {"y": VALUES[1:]},
            ValueError,
            "y must have an entry for each of the 600 rows of X, got 599",
        ),
        ({"y": VALUES[..., None]}, ValueError, "y must have shape"),
        (
            {"sample_weight": VALUES},
            ValueError,
            r"sample_weight must have shape \(n_samples,\), got",
        ),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs must be an int, got 1.5"),
        ({"X": LAZY[:, 0]}, ValueError, "X must have 2 axes"),
        ({"X": LAZY[:0], "y": VALUES[:0]}, ValueError, "X must have at least one row"),
        ({"model": object()}, TypeError, "model must have partial_fit, object has not"),
        ({"model": regressor(early_stopping=True)}, ValueError, "early_stopping=True"),
        ({"model": regressor(solver="lbfgs", dropout=0.0)}, ValueError, "solver='lbfgs' needs"),
        (
            {"classes": [0, 1]},
            TypeError,
            "classes is for classifiers only",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_computed(change, error, message):
    lazy = LAZY.map_blocks(exploding, dtype=X.dtype, meta=X[:0])
    arguments = {"model": regressor(), "X": lazy, "y": VALUES, **change}
    with pytest.raises(error, match=message):
        fastdrop.dask.fit(**arguments)


def test_warnings_of_predictions_come_once():
    model = regressor(dropout=0.0)
    fastdrop.dask.fit(model, LAZY, VALUES)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        values = fastdrop.dask.predict(model, LAZY, return_std=True, n_samples=1)
        dask.compute(*values)
    told = [str(one.message) for one in found]
    assert len(told) == len(set(told)) == 2, told
    assert {one.filename for one in found} == {__file__}


def test_progress(capsys):
    fastdrop.dask.fit(classifier(verbose=2), LAZY, LABELS, epochs=2)
    output = "".join(capsys.readouterr())
    assert "at most 6 blocks" in output
    assert "Block 6, loss = 0." in output
    fastdrop.dask.fit(classifier(), LAZY, LABELS)
    assert "".join(capsys.readouterr()) == ""


def test_no_more_than_two_blocks_are_in_memory(monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Block(numpy.ndarray):
        """An array that can be counted."""

        __hash__ = object.__hash__

    def load(block):
        made = block.copy().view(Block)
        alive.add(made)
        most.append(len(alive))
        return made

    lazy = da.from_array(X, chunks=(30, 6)).map_blocks(load, dtype=X.dtype, meta=X[:0])
    model = regressor()
    original = type(model).partial_fit

    def slow(self, X, y):
        time.sleep(0.02)  # so that the next block is there
        return original(self, X, y)

    monkeypatch.setattr(type(model), "partial_fit", slow)
    fastdrop.dask.fit(model, lazy, VALUES)
    assert len(most) == 20
    assert max(most) <= 3  # the third is one that is being made while the first is let go


def test_predictions_are_those_of_the_model():
    model = fastdrop.dask.fit(classifier(), LAZY, LABELS)
    for lazy in (LAZY, da.from_array(X, chunks=(70, 4)), da.from_array(X, chunks=(1, 6))[:20]):
        rows = X[: lazy.shape[0]]
        predicted = fastdrop.dask.predict(model, lazy)
        assert predicted.dtype == model.predict(X).dtype
        assert predicted.chunks[0] == lazy.chunks[0]
        numpy.testing.assert_array_equal(predicted.compute(), model.predict(rows))
        probabilities = fastdrop.dask.predict_proba(model, lazy).compute()
        numpy.testing.assert_allclose(probabilities, model.predict_proba(rows), atol=1e-6)
        samples = fastdrop.dask.predict_samples(model, lazy, 7, random_state=3).compute()
        whole = model.predict_samples(rows, 7, random_state=3)
        numpy.testing.assert_allclose(samples, whole, atol=1e-6)


@pytest.mark.parametrize("target", [VALUES, VALUES[:, 0]], ids=["two outputs", "one output"])
def test_values_and_their_deviations(target):
    model = fastdrop.dask.fit(regressor(), LAZY, target)
    numpy.testing.assert_allclose(
        fastdrop.dask.predict(model, LAZY).compute(), model.predict(X), atol=1e-6
    )
    options = {"return_std": True, "n_samples": 9, "random_state": 4, "tau": 3.0}
    lazy = fastdrop.dask.predict(model, LAZY, **options)
    for mine, whole in zip(dask.compute(*lazy), model.predict(X, **options), strict=True):
        assert (mine.shape, mine.dtype) == (whole.shape, whole.dtype)
        numpy.testing.assert_allclose(mine, whole, atol=1e-6)


def test_predictions_are_those_of_the_model_as_it_was():
    model = fastdrop.dask.fit(regressor(), LAZY, VALUES)
    lazy = fastdrop.dask.predict(model, LAZY)
    samples = fastdrop.dask.predict_samples(model, LAZY, 3)  # a seed of its own
    before = lazy.compute()
    model.partial_fit(X, VALUES)
    numpy.testing.assert_array_equal(before, lazy.compute())
    numpy.testing.assert_array_equal(samples.compute(), samples.compute())
    assert (before != model.predict(X)).any()


def test_predictions_that_cannot_be():
    model = fastdrop.dask.fit(regressor(), LAZY, VALUES)
    with pytest.raises(ValueError, match="X has 3 features"):
        fastdrop.dask.predict(model, LAZY[:, :3])
    with pytest.raises(ValueError, match="X must have known chunk sizes"):
        fastdrop.dask.predict_samples(model, LAZY[LAZY[:, 0] > 0])
    with pytest.raises(TypeError, match="model must have predict_proba, MLPRegressor has not"):
        fastdrop.dask.predict_proba(model, LAZY)
    with pytest.raises(ValueError, match="n_samples"):
        fastdrop.dask.predict(model, LAZY, return_std=True, n_samples=0)
    with pytest.raises(ValueError, match="not fitted"):
        fastdrop.dask.predict(regressor(), LAZY)
