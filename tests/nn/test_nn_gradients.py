"""Gradients against finite differences, and training against what it should be on average."""

import numpy
import pytest
from nn_cases import ACTIVATIONS, differences, randomise, values

import fastdrop
from fastdrop import nn

# Central differences in float64: rounding of about 1e-16 / STEP, beside something * STEP**2.
TOLERANCE = 1e-7


def make(activation, loss, seed=2, **options):
    layers = [nn.Dense(5, 8), ACTIVATIONS[activation](), nn.Dropout(0.4, **options)]
    net = nn.Sequential([*layers, nn.Dense(8, 3)], rng=seed, dtype=numpy.float64)
    randomise(net)
    x = values((6, 5), 3)
    target = {
        nn.SoftmaxCrossEntropy: numpy.array([0, 1, 2, 2, 1, 0]),
        nn.SigmoidCrossEntropy: (values((6, 3), 4) > 0).astype(float),
        nn.MeanSquaredError: values((6, 3), 4),
    }[loss]
    streams = [layer.stream for layer in net.layers if isinstance(layer, nn.Dropout)]
    compute = loss()

    def value(x):
        for stream in streams:
            stream.position = 0  # the same masks every time
        return compute(net.forward(x, training=True), target)

    return net, x, value


@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "loss", [nn.SoftmaxCrossEntropy, nn.SigmoidCrossEntropy, nn.MeanSquaredError]
)
def test_finite_differences(loss, activation, rows_per_mask):
    net, x, value = make(activation, loss, rows_per_mask=rows_per_mask)
    _, grad = value(x)
    grad_x = net.backward(grad, input_gradient=True)
    numpy.testing.assert_allclose(
        grad_x, differences(lambda: value(x)[0], x), rtol=TOLERANCE, atol=TOLERANCE
    )
    for parameter in net.parameters():
        numpy.testing.assert_allclose(
            parameter.full_grad(),
            differences(lambda: value(x)[0], parameter.value),
            rtol=TOLERANCE,
            atol=TOLERANCE,
            err_msg=parameter.name,
        )


@pytest.mark.parametrize("exact_count", [False, True])
@pytest.mark.parametrize("scale_at", ["train", "test"])
@pytest.mark.parametrize("rows_per_mask", [1, 4, "batch"])
def test_expectation_of_a_linear_chain_is_the_output_at_test_time(
    rows_per_mask, scale_at, exact_count
):
    """The mean over 4000 masks lies within 5 standard errors of it, in every element.

    For ``scale_at="test"`` this is what the source article does: keep the values in training,
    multiply the weights behind by keep_prob at test time.
    """
    options = {"rows_per_mask": rows_per_mask, "exact_count": exact_count, "scale_at": scale_at}
    hidden = [nn.Dense(5, 16), nn.Identity(), nn.Dropout(0.5, **options)]
    layers = [nn.Dropout(0.2, **options), *hidden, nn.Dense(16, 3)]
    net = nn.Sequential(layers, rng=6, dtype=numpy.float64)
    randomise(net)
    x = values((8, 5), 3)
    draws = numpy.array([net.forward(x, training=True) for _ in range(4000)])
    error = draws.std(axis=0) / len(draws) ** 0.5
    assert (numpy.abs(draws.mean(axis=0) - net.forward(x)) < 5 * error).all()


def test_scaling_at_test_time_equals_scaling_the_next_weights():
    layers = [nn.Dense(5, 8), nn.Tanh(), nn.Dropout(keep_prob=0.7, scale_at="test")]
    net = nn.Sequential([*layers, nn.Dense(8, 3)], rng=6, dtype=numpy.float64)
    x = values((4, 5))
    hidden = numpy.tanh(x @ net.layers[0].weight + net.layers[0].bias)
    expected = hidden @ (net.layers[3].weight * 0.7) + net.layers[3].bias
    numpy.testing.assert_allclose(net.forward(x), expected, rtol=1e-12)


def test_test_time_uses_every_unit():
    net = nn.Sequential(
        [nn.Dense(5, 8), nn.ReLU(), nn.Dropout(0.9, rows_per_mask="batch"), nn.Dense(8, 3)],
        rng=6,
        dtype=numpy.float64,
    )
    x = values((4, 5))
    hidden = numpy.maximum(x @ net.layers[0].weight, 0)
    numpy.testing.assert_allclose(net.forward(x), hidden @ net.layers[3].weight, rtol=1e-12)


@pytest.mark.parametrize("rows_per_mask", [1, 4, 32, "batch"])
def test_parameters_say_which_units_took_part(rows_per_mask):
    """Rows and columns are the units that any row kept; the gradient elsewhere is exactly 0."""
    options = {"rows_per_mask": rows_per_mask}
    layers = [nn.Dropout(0.8, **options), nn.Dense(20, 32), nn.Tanh(), nn.Dropout(0.8, **options)]
    net = nn.Sequential([*layers, nn.Dense(32, 3)], rng=2)
    y = net.forward(values((8, 20)), training=True)
    net.backward(numpy.ones(y.shape))
    kept = []
    for stream, width in zip(fastdrop.MaskStream(2).spawn(2), (20, 32), strict=True):
        mask = stream.draw((8, width), rate=0.8, at=0, **options)
        kept.append(mask.to_array().reshape(-1, width).any(axis=0))
    first, bias, second, last = net.parameters()
    for parameter, rows, columns in (
        (first, kept[0], kept[1]),
        (second, kept[1], None),
        (bias, None, kept[1]),
        (last, None, None),
    ):
        for name, expected in (("rows", rows), ("columns", columns)):
            given = getattr(parameter, name)
            if given is None:
                assert expected is None or expected.all()
                continue
            bits, offset = given
            units = numpy.unpackbits(bits, bitorder="little")[offset:][: expected.size]
            numpy.testing.assert_array_equal(units.astype(bool), expected)
    full = first.full_grad()
    assert (full[~kept[0]] == 0).all()
    assert (full[:, ~kept[1]] == 0).all()
    assert (full[kept[0]][:, kept[1]] != 0).any()
    assert first.compact == (rows_per_mask in (32, "batch"))
