"""Noise: the contracts of the kinds that multiply by it or add it, and its distribution."""

import copy
import pickle
from statistics import NormalDist

import numpy
import pytest
from conftest import assert_identical, layouts, values

import fastdrop
from fastdrop import MaskStream, Noise, nn

DTYPES = (numpy.float16, numpy.float32, numpy.float64)
# name: function, layer, what is drawn, factor on it for the parameter 0.3, whether it is added
KINDS = {
    "gaussian_dropout": (fastdrop.gaussian_dropout, nn.GaussianDropout, "normal", (3 / 7) ** 0.5),
    "uniform_dropout": (fastdrop.uniform_dropout, nn.UniformDropout, "uniform", (9 / 7) ** 0.5),
    "gaussian_noise": (fastdrop.gaussian_noise, nn.GaussianNoise, "normal", 0.3),
}
kinds = pytest.mark.parametrize("name", KINDS)


def expected(x, noise):
    """The result by NumPy, in the type that is computed in."""
    working = numpy.promote_types(x.dtype, numpy.float32).type
    z = noise.with_scale(1).to_array(working)
    moved = working(noise.scale) * z
    value = x.astype(working)
    return (value + moved if noise.additive else value * (working(1) + moved)).astype(x.dtype)


@kinds
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_is_the_formula(name, dtype, each_backend):
    function, _, kind, scale = KINDS[name]
    for shape in ((3, 70), (5,), (), (0, 4), (2, 3, 41)):
        x = values(shape, dtype)
        y, noise = function(x, 0.3, rng=MaskStream(5))
        assert (noise.kind, noise.shape, noise.draw) == (kind, shape, 0)
        assert noise.scale == pytest.approx(scale)
        assert noise.additive == (name == "gaussian_noise")
        assert_identical(y, expected(x, noise))


@kinds
def test_evaluation_returns_the_argument_and_draws_nothing(name):
    function, stream = KINDS[name][0], MaskStream(0)
    x = values((3, 4), numpy.float32)
    y, noise = function(x, 0.3, rng=stream, training=False)
    assert y is x
    assert noise is None
    assert stream.position == 0
    out = numpy.empty_like(x)
    assert function(x, 0.3, training=False, out=out)[0] is out
    assert_identical(out, x)
    grad = fastdrop.noise_backward(x, None)
    assert grad is not x
    assert_identical(grad, x)


@kinds
def test_the_gradient_equals_finite_differences(name):
    x, grad = values((3, 5), numpy.float64), values((3, 5), numpy.float64, 1)
    function = KINDS[name][0]
    _, noise = function(x, 0.3, rng=2)
    given = fastdrop.noise_backward(grad, noise)
    for index in numpy.ndindex(x.shape):
        moved = []
        for step in (1e-6, -1e-6):
            other = x.copy()
            other[index] += step
            moved.append((function(other, noise=noise)[0] * grad).sum())
        numpy.testing.assert_allclose(
            given[index], (moved[0] - moved[1]) / 2e-6, rtol=1e-6, atol=1e-8
        )


@kinds
def test_layouts_and_results_in_place(name):
    function = KINDS[name][0]
    for layout, x in layouts((7, 9), numpy.float32):
        right = function(x.copy(order="C"), 0.3, rng=3)[0]
        before = x.copy()
        numpy.testing.assert_array_equal(function(x, 0.3, rng=3)[0], right, err_msg=layout)
        numpy.testing.assert_array_equal(x, before, err_msg=f"{layout}: x has changed")
        out = numpy.empty(x.shape[::-1], x.dtype).T
        assert function(x, 0.3, rng=3, out=out)[0] is out
        numpy.testing.assert_array_equal(out, right, err_msg=layout)
        swapped = numpy.empty(x.shape, x.dtype.newbyteorder())
        function(x, 0.3, rng=3, out=swapped)
        numpy.testing.assert_array_equal(swapped, right, err_msg=layout)
        if x.flags.writeable and x.base is not None:
            function(x, 0.3, rng=3, out=x)
            numpy.testing.assert_array_equal(x, right, err_msg=layout)


@kinds
@pytest.mark.parametrize("dtype", DTYPES)
def test_axes_that_share_a_number(name, dtype):
    x = values((4, 3, 6), dtype)
    for axes, shape in (((1,), (4, 1, 6)), (-1, (4, 3, 1)), ((0, 1, 2), (1, 1, 1))):
        y, noise = KINDS[name][0](x, 0.3, rng=4, shared_axes=axes)
        assert noise.shape == shape
        assert_identical(y, expected(x, noise))
        strided = x.transpose(2, 0, 1).copy().transpose(1, 2, 0)
        assert_identical(fastdrop.apply_noise(strided, noise), y)


@kinds
def test_a_noise_is_pickled_copied_and_given(name):
    function = KINDS[name][0]
    x = values((4, 5))
    y, noise = function(x, 0.3, rng=6)
    assert len(pickle.dumps(noise)) < 300
    for same in (pickle.loads(pickle.dumps(noise)), copy.deepcopy(noise)):
        assert same == noise
        assert hash(same) == hash(noise)
        again = function(x, noise=same)
        assert_identical(again[0], y)
        assert again[1] == noise
    assert noise != noise.with_scale(2)
    parameter = "std" if name == "gaussian_noise" else "rate"
    for wrong in ({parameter: 0.5}, {"rng": 0}):
        with pytest.raises(TypeError, match=f"give a noise or {next(iter(wrong))}, not both"):
            function(x, noise=noise, **wrong)
    with pytest.raises(TypeError, match="training=False"):
        function(x, noise=noise, training=False)
    with pytest.raises(TypeError, match=r"must be a fastdrop\.Noise, got ndarray"):
        function(x, noise=x)
    with pytest.raises(ValueError, match="does not fit x"):
        function(x[:2], noise=noise)
    with pytest.raises(ValueError, match="does not fit grad_y"):
        fastdrop.noise_backward(x[:2], noise)


@kinds
def test_a_noise_of_another_kind_is_refused(name):
    x = values((4, 5))
    for other, (function, *_) in KINDS.items():
        noise = function(x, 0.3, rng=6)[1]
        if other != name:
            with pytest.raises(ValueError, match=f"noise must be as {name} draws it, .* got Noise"):
                KINDS[name][0](x, noise=noise)
        for call in (
            lambda noise=noise: fastdrop.concrete_dropout(x, 0.3, noise=noise),
            lambda noise=noise: fastdrop.concrete_dropout_backward(x, x, 0.3, noise),
        ):
            with pytest.raises(ValueError, match="noise must be as concrete_dropout draws it"):
                call()


@kinds
def test_a_position_repeats_a_draw_on_any_number_of_threads(name, restore_threads):
    function, x = KINDS[name][0], numpy.ones(100_000, numpy.float32)
    stream = MaskStream(9)
    drawn = []
    for threads in (1, 2, 5):
        fastdrop.set_num_threads(threads)
        stream.position = 7
        drawn.append(function(x, 0.3, rng=stream)[0])
    assert_identical(drawn[1], drawn[0])
    assert_identical(drawn[2], drawn[0])
    assert stream.position == 8
    assert (function(x, 0.3, rng=stream)[0] != drawn[0]).any()


@pytest.mark.parametrize("name", ["gaussian_dropout", "uniform_dropout"])
def test_rates_at_the_ends(name):
    function, layer = KINDS[name][:2]
    x, stream = values((3, 4)), MaskStream(0)
    assert_identical(function(x, 0.0, rng=stream)[0], x)
    for wrong in ({"rate": 1.0}, {"keep_prob": 0.0}):
        with pytest.raises(ValueError, match="infinite"):
            function(x, rng=stream, **wrong)
        with pytest.raises(ValueError, match="infinite"):
            layer(**wrong)
    for wrong in (-0.1, 1.5, numpy.nan):
        with pytest.raises(ValueError, match="rate must be in"):
            function(x, wrong, rng=stream)
    with pytest.raises(TypeError, match="exactly one of rate and keep_prob"):
        function(x)
    assert stream.position == 1


def test_standard_deviations():
    x = values((3, 4))
    assert_identical(fastdrop.gaussian_noise(x, 0.0, rng=0)[0], x + 0.0)
    for wrong in (-1.0, numpy.nan, numpy.inf):
        with pytest.raises(ValueError, match="std must be at least 0 and finite"):
            fastdrop.gaussian_noise(x, wrong)
    with pytest.raises(TypeError, match="std must be a real number, got None"):
        fastdrop.gaussian_noise(x)


@kinds
def test_refusals(name):
    function = KINDS[name][0]
    for wrong in (numpy.int32, numpy.complex64):
        with pytest.raises(TypeError, match="must be float16, float32 or float64"):
            function(numpy.ones(3, wrong), 0.3)
    x = numpy.ones(10)
    stream = MaskStream(0)
    with pytest.raises(ValueError, match="overlaps in part"):
        function(x[:-1], 0.3, rng=stream, out=x[1:])
    with pytest.raises(ValueError, match="shared_axes"):
        function(x, 0.3, rng=stream, shared_axes=3)
    assert stream.position == 0
    _, noise = function(x, 0.3, rng=stream)
    for compute in (lambda: x * noise, lambda: noise + 1, lambda: numpy.add(noise, x)):
        with pytest.raises(TypeError, match="takes no part in arithmetic"):
            compute()
    with pytest.raises(TypeError, match="not by Noise"):
        Noise()
    with pytest.raises(TypeError, match="float16, float32 or float64"):
        noise.to_array(int)


@kinds
def test_the_layer_is_the_function(name):
    function, make = KINDS[name][:2]
    x, grad = values((3, 8), numpy.float32), values((3, 8), numpy.float32, 1)
    layer, stream = make(0.3, rng=6), MaskStream(6)
    with pytest.raises(RuntimeError, match="needs a forward with training=True"):
        layer.backward(grad)
    for one in (layer, pickle.loads(pickle.dumps(layer))):
        stream.position = 0
        for _ in range(2):
            y, noise = function(x, 0.3, rng=stream)
            assert_identical(one.forward(x, training=True), y)
            assert_identical(one.backward(grad), fastdrop.noise_backward(grad, noise))
    assert_identical(layer.forward(x), x)
    assert layer.backward(grad, input_gradient=False) is None
    net = nn.Sequential([nn.Dense(8, 4), make(0.3), nn.Dense(4, 2)], rng=1)
    net.forward(x, training=True)
    net.backward(numpy.ones((3, 2)))
    other = nn.Sequential([nn.Dense(8, 4), make(0.3), nn.Dense(4, 2)], rng=2)
    other.load_state_dict(net.state_dict(), strict=True)
    assert_identical(other.forward(x, training=True), net.forward(x, training=True))
    assert "0.3" in repr(layer)
    with pytest.raises(TypeError, match="positional argument"):
        make(None, 0.5)


def test_normal_numbers_are_normal():
    """2**21 of them: moments, 128 bins of equal probability, the tails, and pairs, to 5 sigma.

    ``python -m bench.studies.randomness.normals`` does this with 2**26 and more.
    """
    n = 1 << 21
    z = fastdrop.gaussian_noise(numpy.zeros(n, numpy.float32), 1.0, rng=2024)[0].astype(float)
    for moment, right, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((z**moment).mean() - right) < 5 * (variance / n) ** 0.5
    edges = [NormalDist().inv_cdf(k / 128) for k in range(1, 128)]
    found = numpy.bincount(numpy.searchsorted(edges, z), minlength=128)
    statistic = ((found - n / 128) ** 2).sum() / (n / 128)
    assert abs(statistic - 127) < 5 * (2 * 127) ** 0.5
    for limit in (3, 4, 4.5):
        right = 2 * n * NormalDist().cdf(-limit)
        assert abs((abs(z) > limit).sum() - right) < 5 * right**0.5 + 1
    blocks = z.reshape(-1, 128)
    for first, second in ((z[:-1], z[1:]), (z[:-128], z[128:]), (blocks[:, :64], blocks[:, 64:])):
        for power in (1, 2):  # a pair of Box and Muller: its squares do not correlate either
            a, b = first**power, second**power
            a, b = a - a.mean(), b - b.mean()
            assert abs((a * b).mean() / (a.std() * b.std())) < 5 / a.size**0.5


def test_uniform_numbers_are_uniform():
    n = 1 << 20
    _, noise = fastdrop.uniform_dropout(numpy.ones(n, numpy.float32), 0.25, rng=2024)
    u = noise.with_scale(1).to_array(numpy.float64)
    assert abs(u).max() <= 1
    found = numpy.bincount(((u + 1) * 64).astype(int), minlength=128)[:128]
    assert abs(((found - n / 128) ** 2).sum() / (n / 128) - 127) < 5 * (2 * 127) ** 0.5
    assert abs(u.mean()) < 5 * (1 / 3 / n) ** 0.5


@pytest.mark.parametrize("name", ["gaussian_dropout", "uniform_dropout"])
def test_mean_and_variance_of_the_result(name):
    n, rate = 1 << 18, 0.3
    y = KINDS[name][0](numpy.full(n, 2.0), rate, rng=1)[0]
    variance = 4 * rate / (1 - rate)
    assert abs(y.mean() - 2) < 5 * (variance / n) ** 0.5
    assert abs(y.var() - variance) < 5 * variance * (2 / n) ** 0.5
