"""dropout1d, dropout2d, dropout3d: which axes a channel has; noise_shape: Keras' words for that."""

import numpy
import pytest
from conftest import values

import fastdrop
from fastdrop import nn
from fastdrop.dropouts.channels import channel_axes

FUNCTIONS = {1: fastdrop.dropout1d, 2: fastdrop.dropout2d, 3: fastdrop.dropout3d}


@pytest.mark.parametrize(
    ("space", "dimensions", "data_format", "axes"),
    [
        (1, 2, "channels_first", (1,)),
        (1, 3, "channels_first", (2,)),
        (1, 2, "channels_last", (0,)),
        (1, 3, "channels_last", (1,)),
        (2, 4, "channels_first", (2, 3)),
        (2, 4, "channels_last", (1, 2)),
        (3, 4, "channels_first", (1, 2, 3)),
        (3, 5, "channels_first", (2, 3, 4)),
        (3, 4, "channels_last", (0, 1, 2)),
        (3, 5, "channels_last", (1, 2, 3)),
    ],
)
def test_axes(space, dimensions, data_format, axes):
    assert channel_axes(space, dimensions, data_format) == axes
    x = numpy.ones((3, 4, 5, 2, 3)[:dimensions], numpy.float32)
    y, mask = FUNCTIONS[space](x, 0.5, rng=0, data_format=data_format)
    assert all((mask.shape[axis] == 1) == (axis in axes) for axis in range(dimensions))
    assert (y == y.max(axis=axes, keepdims=True)).all()
    assert set(numpy.unique(y)) <= {0, 2}


def test_three_axes_for_dropout2d_are_sequences_as_in_torch():
    x = values((3, 4, 5))
    with pytest.warns(UserWarning, match=r"dropout2d takes an array of 3 axes for \(N, C, L\)"):
        y, mask = fastdrop.dropout2d(x, 0.5, rng=1)
    assert mask.shape == (3, 4, 1)
    numpy.testing.assert_array_equal(y, fastdrop.dropout1d(x, 0.5, rng=1)[0])


@pytest.mark.parametrize(("space", "wrong"), [(1, 1), (1, 4), (2, 2), (2, 5), (3, 3), (3, 6)])
def test_other_numbers_of_axes(space, wrong):
    with pytest.raises(ValueError, match=f"axes for dropout{space}d, got {wrong}"):
        FUNCTIONS[space](numpy.ones((2,) * wrong), 0.5)


def test_data_format_is_checked():
    for wrong in ("channels", None, 1):
        with pytest.raises(ValueError, match='data_format must be "channels_first" or'):
            fastdrop.dropout1d(numpy.ones((2, 3)), 0.5, data_format=wrong)
        with pytest.raises(ValueError, match='data_format must be "channels_first" or'):
            nn.Dropout2d(0.5, data_format=wrong)
    with pytest.raises(ValueError, match='scale_at must be "train" or "test"'):
        nn.Dropout2d(0.5, scale_at="never")


def test_exact_count_keeps_as_many_channels_of_every_example():
    y, mask = fastdrop.dropout2d(numpy.ones((6, 10, 2, 2)), 0.3, rng=0, exact_count=True)
    numpy.testing.assert_array_equal(mask.to_array().sum(axis=1).ravel(), [7] * 6)
    numpy.testing.assert_allclose(y.max(), 10 / 7)


def test_scale_at_test():
    x = values((2, 3, 4))
    y, _ = fastdrop.dropout1d(x, 0.25, rng=0, scale_at="test")
    assert set(numpy.unique(y / x)) <= {0, 1}
    tested, none = fastdrop.dropout1d(x, 0.25, training=False, scale_at="test")
    numpy.testing.assert_array_equal(tested, x * numpy.float32(0.75))
    assert none is None
    layer = nn.Dropout1d(0.25, scale_at="test", rng=0)
    numpy.testing.assert_array_equal(layer.forward(x, training=True), y)
    numpy.testing.assert_array_equal(layer.forward(x), tested)


@pytest.mark.parametrize(
    ("noise_shape", "axes"),
    [((None, 1, None), (1,)), ((4, 1, 6), (1,)), ([1, 1, 1], (0, 1, 2)), ((4, 5, 6), ())],
)
def test_noise_shape_is_shared_axes_in_the_words_of_keras(noise_shape, axes):
    x = values((4, 5, 6))
    expected, shared = fastdrop.dropout(x, 0.5, rng=0, shared_axes=axes)
    y, mask = fastdrop.dropout(x, 0.5, rng=0, noise_shape=noise_shape)
    numpy.testing.assert_array_equal(y, expected)
    assert mask == shared
    layer = nn.Dropout(0.5, rng=0, noise_shape=noise_shape)
    assert layer.shared_axes == axes
    numpy.testing.assert_array_equal(layer.forward(x, training=True), expected)
    net = nn.Sequential([nn.Dropout(0.5, rng=0, noise_shape=noise_shape)])
    numpy.testing.assert_array_equal(net.forward(x, training=True), expected)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ((None, 1), ValueError, "noise_shape must have None, 1 or the length"),
        ((3, 1, 6), ValueError, "noise_shape must have None, 1 or the length"),
        ((None, 0, None), ValueError, "noise_shape must hold None and ints from 1"),
        ((None, -1, None), ValueError, "noise_shape must hold None and ints from 1"),
        ("abc", TypeError, "noise_shape must be a tuple"),
        (3, TypeError, "noise_shape must be a tuple"),
        ((None, 1.0, None), TypeError, "noise_shape must be an int"),
    ],
)
def test_noise_shapes_that_cannot_be(wrong, error, message):
    x = values((4, 5, 6))
    with pytest.raises(error, match=message):
        fastdrop.dropout(x, 0.5, noise_shape=wrong)
    with pytest.raises(error, match=message):
        nn.Sequential([nn.Dropout(0.5, noise_shape=wrong)]).forward(x, training=True)
    with pytest.raises(error, match=message):
        nn.Dropout(0.5, noise_shape=wrong).forward(x, training=True)
    with pytest.raises(TypeError, match="at most one of shared_axes and noise_shape"):
        fastdrop.dropout(x, 0.5, noise_shape=(None, 1, None), shared_axes=1)
    with pytest.raises(TypeError, match="at most one of shared_axes and noise_shape"):
        nn.Dropout(0.5, noise_shape=(None, 1, None), shared_axes=(1,))


def test_setting_shared_axes_forgets_the_noise_shape():
    layer = nn.Dropout(0.5, rng=0, noise_shape=(4, 1, 6))
    layer.shared_axes = 0
    assert layer.forward(values((9, 2)), training=True).shape == (9, 2)
