"""What single kinds promise beyond the contracts of all: formulas, statistics, errors."""

import numpy
import pytest
from conftest import assert_identical, layouts, values
from dropout_kinds import softmax

import fastdrop
from fastdrop import Mask, MaskStream, nn
from fastdrop.dropouts.alpha import SATURATION, alpha_constants
from fastdrop.dropouts.blocks import seed_rate

BLOCKS = {1: fastdrop.dropblock1d, 2: fastdrop.dropblock2d, 3: fastdrop.dropblock3d}


def test_the_constants_of_alpha_dropout():
    """Torch's constant to its 17 digits; mean 0 and variance 1 stay for every rate, to 1e-14."""
    assert -SATURATION == 1.7580993408473766
    for keep in (1.0, 0.95, 0.5, 0.1, 1e-6):
        scale, shift, dropped = alpha_constants(keep)
        mean = keep * shift + (1 - keep) * dropped
        square = keep * (scale**2 + shift**2) + (1 - keep) * dropped**2
        assert abs(mean) < 1e-12 * max(1, abs(dropped))
        assert abs(square - mean**2 - 1) < 1e-12 * scale**2
    assert alpha_constants(0.0) == (0, 0, 0)


def test_alpha_dropout_keeps_mean_and_variance():
    """Of 2^20 normal numbers, within 6 sigma; m = 4."""
    x = values(2**20, numpy.float64)
    for rate in (0.1, 0.5):
        y, _ = fastdrop.alpha_dropout(x, rate, rng=1)
        assert abs(y.mean()) < 6 * y.std() / 2**10
        squares = y**2
        assert abs(squares.mean() - 1) < 6 * squares.std() / 2**10


def test_alpha_dropout_replaces_nan_and_takes_outs():
    x = values((6, 8))
    x[2] = numpy.nan
    y, mask = fastdrop.alpha_dropout(x, 0.5, rng=0)
    kept = mask.to_array()
    assert numpy.isnan(y[2][kept[2]]).all()
    assert numpy.isfinite(y[~kept]).all()
    out = numpy.zeros((8, 6), numpy.float32).T
    assert fastdrop.alpha_dropout(x, 0.5, rng=0, out=out)[0] is out
    numpy.testing.assert_array_equal(out, y)
    swapped = numpy.zeros(x.shape, ">f4")
    fastdrop.alpha_dropout(x, 0.5, rng=0, out=swapped)
    numpy.testing.assert_array_equal(swapped, y)
    assert fastdrop.alpha_dropout(x, 0.5, rng=0, out=x)[0] is x
    numpy.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="mask must have a keep_prob"):
        fastdrop.alpha_dropout(x, mask=Mask.from_array(numpy.ones(x.shape)))
    with pytest.raises(ValueError, match="x must have at least 2 axes"):
        fastdrop.feature_alpha_dropout(numpy.ones(3), 0.5)


@pytest.mark.parametrize("rate", [0.05, 0.2])
@pytest.mark.parametrize(("space", "block", "n"), [(1, 5, 60), (2, 7, 28), (3, 3, 9)])
def test_blocks_drop_the_share_they_should(space, block, n, rate):
    """A place is kept if no block that covers it began: of 64 maps, within 6 sigma; m = 6.

    Places of one map depend on each other, maps do not: the error is that of the maps' shares.
    """
    maps, shape = 64, (n,) * space
    y, mask = BLOCKS[space](numpy.ones((8, 8, *shape), numpy.float32), rate, block, rng=3)
    seed = seed_rate(rate, shape, (block,) * space)
    place = numpy.arange(n)
    along = numpy.minimum(numpy.minimum(place + 1, n - place), min(block, n - block + 1))
    number = along  # of seeds that would cover a place
    for _ in range(space - 1):
        number = numpy.multiply.outer(number, along)
    expected = ((1 - seed) ** number).mean()
    shares = mask.to_array().reshape(maps, -1).mean(axis=1)
    assert abs(shares.mean() - expected) < 6 * shares.std() / maps**0.5
    numpy.testing.assert_allclose(y.mean(), 1, rtol=1e-5)  # normalised by what was kept
    assert mask.scale == mask.size / mask.count()


def test_what_is_dropped_are_blocks():
    """Every dropped place of a row lies in a run of at least block_size of them."""
    _, mask = fastdrop.dropblock1d(numpy.ones((20, 3, 50)), 0.3, 4, rng=0)
    for row in mask.to_array(int).reshape(-1, 50):
        ends = numpy.flatnonzero(numpy.diff(numpy.pad(row, 1, constant_values=1)))
        runs = ends[1::2] - ends[::2]
        assert (runs >= 4).all()


def test_block_sizes_are_cut_to_the_map_and_checked():
    x = numpy.ones((2, 2, 4, 9))
    _, mask = fastdrop.dropblock2d(x, 0.5, 20, rng=0)
    maps = mask.to_array().reshape(4, -1)
    assert set(maps.sum(axis=1)) <= {0, 36}  # a block is the whole map
    for wrong in (0, -1, (2,), (2, 2, 2), (2, 0)):
        with pytest.raises(ValueError, match="block_size must be an int from 1, or 2"):
            fastdrop.dropblock2d(x, 0.5, wrong)
        with pytest.raises(ValueError, match="block_size must be an int from 1, or 2"):
            nn.DropBlock2d(0.5, wrong)
    with pytest.raises(TypeError, match="block_size must be an int"):
        fastdrop.dropblock2d(x, 0.5, 1.5)
    with pytest.raises(ValueError, match='normalise must be "batch", "example" or "none"'):
        fastdrop.dropblock2d(x, 0.5, normalise="all")
    with pytest.raises(ValueError, match="x must have 4 axes for dropblock2d, got 3"):
        fastdrop.dropblock2d(x[0], 0.5)


def test_normalising_each_example_does_not_look_at_the_others():
    x = values((5, 3, 8, 8))
    y, mask = fastdrop.dropblock2d(x, 0.3, 3, rng=2, normalise="example")
    assert mask.scale == 1
    for one, own, part in zip(x, y, mask.to_array(), strict=True):
        assert_identical(own, numpy.where(part, one * numpy.float32(part.size / part.sum()), 0))
    plain, same = fastdrop.dropblock2d(x, 0.3, 3, rng=2, normalise="none")
    assert same == mask
    numpy.testing.assert_array_equal(plain, numpy.where(mask.to_array(), x, 0))
    assert fastdrop.dropblock2d(x, 0.3, 3, rng=2, normalise="example", out=x)[0] is x
    numpy.testing.assert_array_equal(x, y)


def test_stochastic_depth_at_test_time_as_in_the_paper():
    x = values((4, 3))
    y, _ = fastdrop.stochastic_depth(x, 0.25, rng=0, scale_at="test")
    assert all((row == given).all() or not row.any() for row, given in zip(y, x, strict=True))
    tested, none = fastdrop.stochastic_depth(x, 0.25, training=False, scale_at="test")
    numpy.testing.assert_array_equal(tested, x * numpy.float32(0.75))
    assert none is None
    with pytest.raises(ValueError, match='mode must be "row" or "batch", got \'rows\''):
        fastdrop.stochastic_depth(x, 0.25, "rows")
    with pytest.raises(ValueError, match="x must have an axis of examples"):
        fastdrop.stochastic_depth(1.0, 0.25)


def test_bias_dropout_residual_in_place_and_in_every_layout():
    x, residual, bias = values((5, 7)), values((5, 7), seed=1), values(7, seed=2)
    expected, mask = fastdrop.bias_dropout_residual(x, residual, bias, 0.5, rng=0)
    numpy.testing.assert_array_equal(expected[~mask.to_array()], residual[~mask.to_array()])
    for name, one in layouts((5, 7), numpy.float32):
        for out in (one, residual.copy(order="F"), None):
            given = residual if out is None or out is one else out
            one[...] = x
            y, _ = fastdrop.bias_dropout_residual(one, given, bias, 0.5, rng=0, out=out)
            numpy.testing.assert_array_equal(y, expected, err_msg=name)
            assert out is None or y is out
    wide = numpy.zeros((6, 7), numpy.float32)
    wide[:5] = residual
    with pytest.raises(ValueError, match="out must be residual itself or not overlap it"):
        fastdrop.bias_dropout_residual(x, wide[:5], bias, 0.5, out=wide[1:])
    for wrong in (bias[:3], bias.astype(float), numpy.ones((5, 7), numpy.float32)):
        with pytest.raises(ValueError, match=r"bias must have shape \(7,\) and dtype float32"):
            fastdrop.bias_dropout_residual(x, residual, wrong, 0.5)
    with pytest.raises(ValueError, match=r"residual must have shape \(5, 7\)"):
        fastdrop.bias_dropout_residual(x, residual[:1], bias, 0.5)


def test_the_gradient_of_a_bias_is_exact_over_long_columns():
    """A million ones and their mask: float32 sums one by one would stop at 2^24."""
    grad = numpy.full((1 << 20, 2), 17.0, numpy.float32)
    mask = MaskStream(0).draw(grad.shape, rate=0.5)
    _, sums = fastdrop.bias_dropout_residual_backward(grad, mask)
    numpy.testing.assert_array_equal(sums, 34.0 * mask.to_array().sum(axis=0))
    none, no_sums = fastdrop.bias_dropout_residual_backward(grad[:3], None, bias=False)
    assert_identical(none, grad[:3])
    assert no_sums is None


def test_the_layer_of_bias_dropout_residual():
    layer, x, residual = (
        nn.BiasDropoutResidual(7, 0.5, rng=3),
        values((5, 7)),
        values((5, 7), seed=1),
    )
    layer.bias[...] = values(7, seed=2)
    with pytest.raises(RuntimeError, match="needs a forward"):
        layer.backward(x)
    y = layer.forward(x, residual, training=True)
    expected, mask = fastdrop.bias_dropout_residual(x, residual, layer.bias, 0.5, rng=3)
    assert_identical(y, expected)
    grad = values((5, 7), seed=4)
    grad_x, grad_residual = layer.backward(grad)
    assert_identical(grad_x, fastdrop.dropout_backward(grad, mask))
    assert_identical(grad_residual, grad)
    numpy.testing.assert_allclose(layer.parameters()[0].grad, grad_x.sum(axis=0), rtol=1e-5)
    numpy.testing.assert_allclose(layer.forward(x, residual), residual + x + layer.bias, rtol=1e-6)
    assert layer.parameters()[0].name == "biasdropoutresidual.bias"
    assert repr(layer) == "BiasDropoutResidual(7, 0.5)"
    for wrong, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="units must be"):
            nn.BiasDropoutResidual(wrong, 0.5)
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        nn.BiasDropoutResidual(3, 0.5, dtype=numpy.float16)
    half = layer.forward(x.astype("f2"), residual.astype("f2"))
    assert half.dtype == numpy.float32
    wide, narrow = x.astype(float), x[:, :6]
    position = layer.stream.position
    for name, wrong, error, message in (
        ("x", (wide, wide), TypeError, "must have the layer's dtype, float32, got float64"),
        ("residual", (x, wide), TypeError, "must have the layer's dtype, float32, got float64"),
        ("x", (narrow, narrow), ValueError, r"must have shape \(\.\.\., 7\), got \(5, 6\)"),
    ):
        with pytest.raises(error, match=f"^biasdropoutresidual: {name} {message}"):
            layer.forward(*wrong, training=True)
    assert layer.stream.position == position


SHAPES = [
    (2, 1, 1, 6),
    (1, 3, 5, 6),
    (6,),
    (5, 6),
    (2, 1, 5, 6),
    (2, 3, 5, 6),
    (5, 1),
    (2, 1, 1, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("causal", [False, True])
def test_attending_broadcasts(each_backend, shape, causal):
    x = values((2, 3, 5, 6), numpy.float64)
    attend = numpy.random.default_rng(0).random(shape) < 0.6
    allowed = numpy.broadcast_to(attend, x.shape)
    if causal:
        allowed = allowed & numpy.tri(5, 6, dtype=bool)
    nothing = ~allowed.any(axis=-1, keepdims=True)
    scores = numpy.where(nothing, 0, numpy.where(allowed, x, -numpy.inf))
    expected = numpy.where(nothing, 0, softmax(scores))
    y, mask, p = fastdrop.softmax_dropout(x, 0.5, rng=1, attend=attend, causal=causal)
    numpy.testing.assert_allclose(p, expected, rtol=1e-13, atol=0)
    numpy.testing.assert_allclose(y, numpy.where(mask.to_array(), 2 * expected, 0), rtol=1e-13)
    assert not p[~allowed].any()


def test_softmax_dropout_says_what_is_wrong():
    x = values((2, 3, 4))
    with pytest.raises(TypeError, match="attend must hold booleans, got dtype float32"):
        fastdrop.softmax_dropout(x, 0.5, attend=x)
    for wrong in ((5, 4), (7, 2, 3, 4)):
        with pytest.raises(
            ValueError, match=r"attend must broadcast to the shape of x, \(2, 3, 4\)"
        ):
            fastdrop.softmax_dropout(x, 0.5, attend=numpy.ones(wrong, bool))
    with pytest.raises(ValueError, match="x must have axes of queries and keys"):
        fastdrop.softmax_dropout(x[0, 0], 0.5, causal=True)
    y, mask, p = result = fastdrop.softmax_dropout(x, 0.5, rng=0)
    with pytest.raises(TypeError, match="softmax_dropout returned three things"):
        numpy.matmul(result, x)
    with pytest.raises(ValueError, match="probabilities must have shape"):
        fastdrop.softmax_dropout_backward(y, p[:1], mask)
    none = fastdrop.softmax_dropout(x, 0.5, training=False)
    assert none[2] is none[0]
    assert none[1] is None


def test_softmax_dropout_in_place():
    x = values((4, 9))
    expected = fastdrop.softmax_dropout(x, 0.5, rng=0)
    grad = values((4, 9), seed=1)
    expected_grad = fastdrop.softmax_dropout_backward(grad, expected[2], expected[1])
    y, mask, p = fastdrop.softmax_dropout(x, 0.5, rng=0, out=x)
    assert y is x
    assert_identical(y, expected[0])
    assert_identical(fastdrop.softmax_dropout_backward(grad, p, mask, out=grad), expected_grad)


def test_the_layer_of_softmax_dropout_takes_a_mask_of_its_call():
    layer, x = nn.SoftmaxDropout(0.5, causal=True, rng=0), values((2, 4, 4))
    attend = numpy.array([True, True, False, True])
    y = layer.forward(x, training=True, attend=attend)
    expected = fastdrop.softmax_dropout(x, 0.5, rng=0, causal=True, attend=attend)
    assert_identical(y, expected[0])
    y[...] = 0  # the owner's
    grad = values(x.shape, seed=1)
    assert_identical(
        layer.backward(grad), fastdrop.softmax_dropout_backward(grad, expected[2], expected[1])
    )
    assert layer.settings() == {"keep_prob": 0.5, "causal": True}
