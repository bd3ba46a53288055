"""Losses: values against their definitions, extreme scores, and wrong use."""

import math

import numpy
import pytest
from nn_cases import values

from fastdrop import nn

LOSSES = [nn.SoftmaxCrossEntropy, nn.SigmoidCrossEntropy, nn.MeanSquaredError]


def softmax(scores):
    weights = numpy.exp(scores)
    return weights / weights.sum(axis=1, keepdims=True)


def test_softmax_from_its_definition():
    scores, labels = values((6, 4)), numpy.array([0, 3, 1, 1, 2, 0])
    value, grad = nn.SoftmaxCrossEntropy()(scores, labels)
    share = softmax(scores)
    assert value == pytest.approx(-numpy.log(share[numpy.arange(6), labels]).mean(), rel=1e-12)
    numpy.testing.assert_allclose(grad, (share - numpy.eye(4)[labels]) / 6, rtol=1e-12)
    by_share, same = nn.SoftmaxCrossEntropy()(scores, numpy.eye(4)[labels])
    assert by_share == pytest.approx(value, rel=1e-12)
    numpy.testing.assert_allclose(same, grad, rtol=1e-12, atol=1e-17)


def test_sigmoid_from_its_definition():
    scores, target = values((6, 4)), (values((6, 4), 1) > 0).astype(float)
    value, grad = nn.SigmoidCrossEntropy()(scores, target)
    share = 1 / (1 + numpy.exp(-scores))
    each = -(target * numpy.log(share) + (1 - target) * numpy.log(1 - share))
    assert value == pytest.approx(each.mean(), rel=1e-12)
    numpy.testing.assert_allclose(grad, (share - target) / 24, rtol=1e-12)


def test_mean_squared_error_from_its_definition():
    prediction, target = values((6, 2, 4)), values((6, 2, 4), 1)
    value, grad = nn.MeanSquaredError()(prediction, target)
    assert value == pytest.approx(((prediction - target) ** 2).mean(), rel=1e-12)
    numpy.testing.assert_allclose(grad, 2 * (prediction - target) / 48, rtol=1e-12)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
@pytest.mark.parametrize("make", LOSSES)
def test_dtype_and_fresh_gradient(make, dtype):
    prediction = values((3, 4), dtype=dtype)
    before = prediction.copy()
    target = [0, 1, 2] if make is nn.SoftmaxCrossEntropy else numpy.ones((3, 4))
    value, grad = make()(prediction, target)
    assert type(value) is float
    assert grad.dtype == dtype
    assert grad.shape == prediction.shape
    assert not numpy.shares_memory(grad, prediction)
    numpy.testing.assert_array_equal(prediction, before)


def test_large_scores_overflow_nowhere():
    with numpy.errstate(over="raise", invalid="raise", divide="raise"):
        scores = numpy.array([[1e4, -1e4], [-1e4, 1e4]], numpy.float32)
        value, grad = nn.SigmoidCrossEntropy()(scores, [[1, 0], [0, 1]])
        assert value == 0
        value, grad = nn.SigmoidCrossEntropy()(scores, [[0, 1], [1, 0]])
        assert value == 1e4
    numpy.testing.assert_array_equal(grad, [[0.25, -0.25], [-0.25, 0.25]])
    value, grad = nn.SoftmaxCrossEntropy()(scores, [1, 0])
    assert value == 2e4
    numpy.testing.assert_array_equal(grad, [[0.5, -0.5], [-0.5, 0.5]])
    value, _ = nn.SoftmaxCrossEntropy()(scores, [[1.0, 0.0], [0.0, 1.0]])
    assert value == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", LOSSES)
def test_a_loss_that_is_not_finite_names_the_step(make, bad):
    loss = make()
    target = [0] if make is nn.SoftmaxCrossEntropy else [[0.5, 0.5]]
    for _ in range(3):
        loss(numpy.zeros((1, 2)), target)
    assert loss.step == 3
    message = rf"^{make.__name__}: the loss of step 3 is (nan|inf)"
    with pytest.raises(FloatingPointError, match=message):
        loss(numpy.array([[bad, 0.0]]), target)
    assert loss.step == 3


@pytest.mark.parametrize(
    ("make", "prediction", "target", "error", "message"),
    [
        (nn.SoftmaxCrossEntropy, (2, 3), [0, 3], ValueError, r"target must be in \[0, 3\), got 3"),
        (nn.SoftmaxCrossEntropy, (2, 3), [-1, 0], ValueError, r"in \[0, 3\), got -1"),
        (nn.SoftmaxCrossEntropy, (2, 3), [0], ValueError, r"shape \(2,\), got \(1,\)"),
        (nn.SoftmaxCrossEntropy, (2, 3), [0.0, 1.0], TypeError, "class numbers"),
        (nn.SoftmaxCrossEntropy, (2, 3), numpy.ones((2, 2)), ValueError, r"expected \(2, 3\)"),
        (nn.SoftmaxCrossEntropy, (2, 3, 1), [0, 1], ValueError, r"\(batch, classes\), got \(2, 3"),
        (nn.SoftmaxCrossEntropy, (0, 3), [], ValueError, r"not be empty, got \(0, 3\)"),
        (nn.SigmoidCrossEntropy, (2, 3), [1, 0], ValueError, r"expected \(2, 3\), got \(2,\)"),
        (nn.SigmoidCrossEntropy, (2, 3), [["a"]], TypeError, "real numbers, got dtype <U1"),
        (nn.MeanSquaredError, (2, 3), numpy.ones((2, 1)), ValueError, r"got \(2, 1\)"),
        (nn.MeanSquaredError, (), 1.0, ValueError, r"shape \(batch, \.\.\.\)"),
    ],
)
def test_wrong_use(make, prediction, target, error, message):
    with pytest.raises(error, match=rf"^{make.__name__}: .*{message}"):
        make()(numpy.zeros(prediction), target)


@pytest.mark.parametrize("make", LOSSES)
def test_predictions_are_floats(make):
    with pytest.raises(
        TypeError, match="prediction must be float16, float32 or float64, got dtype int"
    ):
        make()(numpy.zeros((1, 2), int), [0])
