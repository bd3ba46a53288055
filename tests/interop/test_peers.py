"""Peers beside fastdrop, where they are installed: torch, Keras, and ONNX's tests of its operator.

Masks differ, so statistics are compared within 6 sigma, gradients and evaluation exactly, and what
docs/guide/coming-from.md says of peers is asked of them.
"""

import os
import warnings

import numpy
import pytest
from conftest import values

import fastdrop
from fastdrop import Mask, nn

pytestmark = pytest.mark.torch
NAN = float("nan")
# Drops about half of its elements; the value that a peer gives a NaN that it drops is then there.
LOST = numpy.full(1000, NAN, numpy.float32)


@pytest.fixture(scope="module")
def functional():
    """Give `torch.nn.functional`."""
    return pytest.importorskip("torch").nn.functional


@pytest.fixture(scope="module")
def keras():
    """Give Keras, on torch."""
    pytest.importorskip("torch")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def numbers(tensor):
    return tensor.detach().numpy() if hasattr(tensor, "detach") else numpy.asarray(tensor)


ALIKE = {
    "dropout": ("dropout", (64, 64)),
    "dropout1d": ("dropout1d", (64, 64, 3)),
    "dropout2d": ("dropout2d", (64, 64, 2, 2)),
    "dropout3d": ("dropout3d", (64, 64, 2, 1, 2)),
    "alpha_dropout": ("alpha_dropout", (64, 64)),
    "feature_alpha_dropout": ("feature_alpha_dropout", (64, 64, 3)),
}


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_values_and_shares_are_those_of_torch(functional, name, rate):
    """Of ones every kind makes two values, the same in both; channels are whole in both; m = 12."""
    import torch

    theirs_name, shape = ALIKE[name]
    x = numpy.ones(shape, numpy.float32)
    torch.manual_seed(1)
    theirs = getattr(functional, theirs_name)(torch.from_numpy(x), rate, True).numpy()
    ours, mask = getattr(fastdrop, name)(x, rate, rng=1)
    numpy.testing.assert_allclose(numpy.unique(ours), numpy.unique(theirs), rtol=1e-5, atol=1e-6)
    units = 64 * 64
    sigma = (rate * (1 - rate) / units) ** 0.5
    for y in (ours, theirs):
        assert abs((y == y.max()).mean() - (1 - rate)) < 6 * sigma
        rows = y.reshape(64, 64, -1)
        assert (rows == rows[..., :1]).all()
    assert mask.size == units


@pytest.mark.parametrize("name", ALIKE)
def test_gradients_are_those_of_torch(functional, name):
    """Torch's output tells its mask; the same mask gives fastdrop's output and gradient."""
    import torch

    theirs_name, shape = ALIKE[name]
    x = values(shape)
    tensor = torch.from_numpy(x).requires_grad_()
    y = getattr(functional, theirs_name)(tensor, 0.4, True)
    grad = values(shape, seed=1)
    y.backward(torch.from_numpy(grad))
    factor = tensor.grad.numpy() / grad
    mask = Mask.from_array(factor > factor.max() / 2, keep_prob=0.6)
    call = getattr(fastdrop, name)
    mine = (fastdrop.apply_mask(x, mask), mask) if name == "dropout" else call(x, mask=mask)
    numpy.testing.assert_allclose(mine[0], numbers(y), rtol=2e-5, atol=2e-6)
    given = fastdrop.dropout_backward(grad, mine[1])
    numpy.testing.assert_allclose(given, tensor.grad.numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_softmax_dropout_is_that_of_torch(functional, causal):
    """By torch's softmax and gradient under a mask of ours, with queries that attend to keys."""
    import torch

    x, grad = values((3, 5, 7)), values((3, 5, 7), seed=1)
    attend = numpy.random.default_rng(0).random((3, 1, 7)) < 0.8
    attend[..., 0] = True
    y, mask, p = fastdrop.softmax_dropout(x, 0.3, rng=0, attend=attend, causal=causal)
    tensor = torch.from_numpy(x).requires_grad_()
    allowed = numpy.broadcast_to(attend, x.shape)
    allowed = allowed & numpy.tri(5, 7, dtype=bool) if causal else allowed
    scores = tensor.masked_fill(torch.from_numpy(~allowed), -torch.inf)
    kept = torch.from_numpy(mask.to_array(numpy.float32) * numpy.float32(mask.scale))
    theirs = torch.softmax(scores, -1) * kept
    theirs.backward(torch.from_numpy(grad))
    numpy.testing.assert_allclose(y, numbers(theirs), rtol=1e-5, atol=1e-7)
    given = fastdrop.softmax_dropout_backward(grad, p, mask)
    numpy.testing.assert_allclose(given, tensor.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_what_the_page_says_of_torch(functional):
    import torch

    lost = torch.from_numpy(LOST)
    assert torch.isnan(functional.dropout(lost, 0.5)).all()
    assert torch.isnan(functional.dropout(lost, 1.0)).all()
    assert not functional.dropout(torch.ones(9), 1.0).any()
    assert not functional.alpha_dropout(torch.ones(9), 1.0, True).any()
    x = torch.ones(2, 3, 4)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        y = functional.dropout2d(x, 0.5)
    assert any("3-D" in str(one.message) or "3D" in str(one.message) for one in found)
    assert (y == y[..., :1]).all()  # (N, C, L)
    assert functional.dropout(x, 0.5, inplace=True) is x
    assert functional.dropout(x, 0.5, training=False) is x
    normalise = torch.nn.BatchNorm1d(3)
    normalise(torch.ones(2, 3, 4))  # (batch, units, length)
    assert torch.allclose(normalise.running_mean, torch.full((3,), 0.1))


def test_what_the_page_says_of_keras(keras):
    layers = keras.layers
    assert numpy.isnan(numbers(layers.Dropout(0.5)(LOST[None], training=True))).all()
    assert not numbers(layers.Dropout(1.0)(LOST[None], training=True)).any()
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layers.SpatialDropout2D(0.5)(numpy.ones((2, 3, 4), "f"), training=True)
    y = numbers(layers.SpatialDropout2D(0.5)(numpy.ones((1, 3, 3, 64), "f"), training=True))
    assert (y == y[:, :1, :1]).all()  # channels last
    x = numpy.ones((1, 4, 64), "f")
    y = numbers(layers.Dropout(0.5, noise_shape=(None, 1, None))(x, training=True))
    ours, _ = fastdrop.dropout(x, 0.5, noise_shape=(None, 1, None), rng=0)
    for one in (y, ours):
        assert (one == one[:, :1]).all()
        assert set(numpy.unique(one)) == {0, 2}
    with pytest.raises(Exception, match="negative power"):
        layers.AlphaDropout(1.0)(x, training=True)
    with pytest.raises(ZeroDivisionError):
        layers.GaussianDropout(1.0)(x, training=True)
    normalise = layers.BatchNormalization()
    normalise(x, training=True)
    numpy.testing.assert_allclose(numbers(normalise.moving_mean), numpy.full(64, 0.01), rtol=1e-5)


def test_alpha_dropout_has_the_values_of_keras(keras):
    y = numbers(keras.layers.AlphaDropout(0.3)(numpy.zeros((1, 500), "f"), training=True))
    ours, _ = fastdrop.alpha_dropout(numpy.zeros((1, 500), "f"), 0.3, rng=0)
    numpy.testing.assert_allclose(numpy.unique(ours), numpy.unique(y), rtol=1e-5)


def test_what_the_page_says_of_fastdrop():
    kept = fastdrop.dropout(LOST, 0.5, rng=0)[0]
    assert 0 < (kept == 0).sum() < 1000
    assert not fastdrop.dropout(LOST, 1.0)[0].any()
    x = numpy.ones(4)
    assert fastdrop.dropout(x, 0.5, training=False)[0] is x
    assert fastdrop.dropout(x, 0.5, out=x)[0] is x
    with pytest.raises(ValueError, match="rate must be below 1"):
        fastdrop.gaussian_dropout(x, 1.0)
    normalise = nn.BatchNorm1d(3)
    normalise.forward(numpy.ones((2, 4, 3)), training=True)
    numpy.testing.assert_allclose(normalise.running_mean, numpy.full(3, 0.1), rtol=1e-6)
    with pytest.raises(TypeError, match="must be float16, float32 or float64"):
        fastdrop.dropout(numpy.ones(4, int), 0.5)


def test_the_node_tests_of_onnx():
    """Every test of the operator in training gives its mask; without one it tells it by zeros."""
    node = pytest.importorskip("onnx.backend.test.case.node")
    found = [one for one in node.collect_testcases("Dropout") if one.model is not None]
    assert len(found) >= 10
    for case in found:
        for inputs, outputs in case.data_sets:
            x, y = inputs[0], outputs[0]
            ratio = float(inputs[1]) if len(inputs) > 1 else 0.5
            training = bool(inputs[2]) if len(inputs) > 2 else False
            if not training:
                ours, mask = fastdrop.dropout(x, ratio, training=False)
                numpy.testing.assert_array_equal(ours, y, err_msg=case.name)
                assert mask is None
                continue
            kept = outputs[1] if len(outputs) > 1 else y != 0
            mask = Mask.from_array(kept, keep_prob=1 - ratio)
            ours = fastdrop.apply_mask(x, mask)
            numpy.testing.assert_allclose(ours, y, rtol=1e-6, err_msg=case.name)
            assert abs(mask.count() / mask.size - (1 - ratio)) < 0.25
