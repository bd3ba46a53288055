"""Arrays of the other byte order (FITS, HDF5, the network) give what native ones give."""

import numpy
import pytest
from conftest import assert_identical, values

import fastdrop
from fastdrop import Mask, MaskStream, nn, optim
from fastdrop.parameters import Parameter

FLOATS = [numpy.float16, numpy.float32, numpy.float64]
WIDE = FLOATS[1:]


def swapped(array):
    """A copy with the other byte order."""
    return array.astype(array.dtype.newbyteorder("S"))


def test_swapped_arrays_are_not_native():
    assert not swapped(numpy.ones(3)).dtype.isnative
    assert swapped(numpy.ones(3)).dtype != numpy.dtype(float)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "options",
    [{}, {"rows_per_mask": 2}, {"exact_count": True}, {"training": False, "scale_at": "test"}],
    ids=str,
)
def test_dropout(dtype, options, each_backend):
    x = values((6, 11), dtype)
    expected, mask = fastdrop.dropout(x, 0.4, rng=0, **options)
    for given in (swapped(x), swapped(x).T.copy().T, swapped(numpy.repeat(x, 2, 0))[::2]):
        y, same = fastdrop.dropout(given, 0.4, rng=0, **options)
        assert y.dtype == dtype
        assert y.dtype.isnative
        assert_identical(y, expected)
        assert same == mask
        if mask is not None:
            for function in (fastdrop.dropout_backward, fastdrop.apply_mask):
                result = function(given, mask)
                assert result.dtype == dtype
                assert_identical(result, function(x, mask))


def test_without_training_the_argument_itself_comes_back():
    x = swapped(values((2, 3)))
    y, mask = fastdrop.dropout(x, 0.5, training=False)
    assert y is x
    assert mask is None


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("options", [{}, {"rows_per_mask": 2}, {"training": False}], ids=str)
def test_out(dtype, in_place, options, each_backend):
    x = values((6, 11), dtype)
    expected, mask = fastdrop.dropout(x, 0.4, rng=0, **options)
    given = swapped(x)
    out = given if in_place else swapped(numpy.full_like(x, 7))
    y, _ = fastdrop.dropout(given, 0.4, rng=0, out=out, **options)
    assert y is out
    assert not out.dtype.isnative
    assert_identical(out.astype(dtype), expected)
    if mask is not None:
        out = swapped(x)
        assert fastdrop.apply_mask(x, mask, out=out) is out
        assert_identical(out.astype(dtype), fastdrop.apply_mask(x, mask))


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("method", ["auto", "skip", "dense"])
def test_masked_products(dtype, method, each_backend):
    x, w, grad = values((7, 9), dtype), values((9, 5), dtype, 1), values((7, 5), dtype, 2)
    bias = values((5,), dtype, 3)
    masks = {
        "mask_in": MaskStream(0).draw(x.shape, rate=0.5),
        "mask_out": MaskStream(1).draw(grad.shape, rate=0.5),
    }
    expected = fastdrop.masked_matmul(x, w, bias=bias, method=method, **masks)
    out = swapped(numpy.empty_like(expected))
    for given in ((swapped(x), w, bias), (x, swapped(w), bias), (x, w, swapped(bias))):
        y = fastdrop.masked_matmul(*given[:2], bias=given[2], method=method, **masks)
        assert y.dtype == dtype
        assert_identical(y, expected)
        fastdrop.masked_matmul(*given[:2], bias=given[2], method=method, out=out, **masks)
        assert_identical(out.astype(dtype), expected)
    plain = fastdrop.masked_matmul(x, w, mask_in=masks["mask_in"])  # the short way in
    assert_identical(fastdrop.masked_matmul(swapped(x), w, mask_in=masks["mask_in"]), plain)
    assert_identical(fastdrop.masked_matmul(x, swapped(w), mask_in=masks["mask_in"]), plain)
    short = swapped(numpy.empty_like(plain))
    fastdrop.masked_matmul(x, w, mask_in=masks["mask_in"], out=short)
    assert_identical(short.astype(dtype), plain)
    expected = fastdrop.masked_matmul_backward(grad, x, w, method=method, **masks)
    for given in ((swapped(grad), x, w), (grad, swapped(x), w), (grad, x, swapped(w))):
        found = fastdrop.masked_matmul_backward(*given, method=method, **masks)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.dtype == dtype
            assert_identical(mine, theirs)
    with pytest.raises(ValueError, match="byte order"):
        fastdrop.masked_matmul_backward(grad, x, w, out=(swapped(x), None, None))


def test_masks_and_seeds():
    array = values((5, 7)) > 0
    for dtype in (">f4", "<f4", ">i8", "<i8", ">f2", "<f8"):
        assert Mask.from_array(array.astype(dtype)) == Mask.from_array(array)
    mask = MaskStream(0).draw((5, 7), rate=0.5)
    assert mask.to_array(">f4").dtype == numpy.dtype(">f4")
    for order in "<>":
        assert MaskStream(numpy.array([1, 2], f"{order}u4")) == MaskStream([1, 2])
        x = numpy.ones(9)
        seeds = numpy.array([1, 2], f"{order}i8")
        assert fastdrop.dropout(x, 0.5, rng=seeds)[1] == fastdrop.dropout(x, 0.5, rng=[1, 2])[1]


LAYERS = [
    lambda: nn.Dense(4, 3, "zeros"), nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity,
    lambda: nn.Dropout(0.5),
]  # fmt: skip


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("dtype", WIDE)
def test_layers(make, dtype):
    x = values((6, 4), dtype)
    results = []
    for given in (x, swapped(x)):
        layer = make()
        if isinstance(layer, nn.Dense):
            layer.weight = values((4, 3), numpy.float64)
            layer.weight = swapped(values((4, 3), numpy.float64))
        if isinstance(layer, nn.Dropout):
            layer.stream = MaskStream(0)
        y = layer.forward(given, training=True)
        grad = values(y.shape, y.dtype, 2)
        grad = grad if given is x else swapped(grad)
        results.append((y, layer.backward(grad), layer.forward(given)))
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype.isnative
        assert_identical(mine, theirs)


@pytest.mark.parametrize(
    "loss",
    [nn.SoftmaxCrossEntropy(), nn.SigmoidCrossEntropy(), nn.MeanSquaredError(),
     nn.PoissonDeviance()],
)  # fmt: skip
def test_losses(loss):
    prediction = values((6, 3))
    target = numpy.eye(3, dtype=numpy.float32)[[0, 1, 2, 0, 1, 2]]
    weights = numpy.arange(1.0, 7.0)
    expected, expected_grad = loss(prediction, target, weights)
    value, grad = loss(swapped(prediction), swapped(target), swapped(weights))
    assert value == expected
    assert grad.dtype == numpy.float32
    assert_identical(grad, expected_grad)
    if isinstance(loss, nn.SoftmaxCrossEntropy):
        labels = numpy.array([0, 1, 2, 0, 1, 2])
        assert loss(prediction, swapped(labels))[0] == loss(prediction, labels)[0]


def trained(change, dtype=numpy.float32):
    layers = [nn.Dense(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Dense(8, 2)]
    net = nn.Sequential(layers, rng=0, dtype=dtype)
    opt = optim.Adam(net)
    for number in range(3):
        net.forward(change(values((6, 4), dtype, number)), training=True)
        net.backward(change(values((6, 2), dtype, 9)))
        opt.step()
    return net, opt


def test_a_network_its_states_and_files(tmp_path):
    net, opt = trained(lambda x: x)
    for mine, theirs in zip(trained(swapped), (net, opt), strict=True):
        numpy.testing.assert_equal(mine.state_dict(), theirs.state_dict())

    def swap(state):
        return {
            name: swapped(value) if isinstance(value, numpy.ndarray) else value
            for name, value in state.items()
        }

    fresh = nn.Sequential([nn.Dense(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Dense(8, 2)], rng=5)
    fresh_opt = optim.Adam(fresh)
    fresh.load_state_dict(swap(net.state_dict()))
    fresh_opt.load_state_dict(swap(opt.state_dict()))
    numpy.testing.assert_equal(fresh.state_dict(), net.state_dict())
    numpy.testing.assert_equal(fresh_opt.state_dict(), opt.state_dict())
    assert all(parameter.value.dtype.isnative for parameter in fresh.parameters())

    class Foreign:
        """Saves as a machine of the other byte order would."""

        def __init__(self, of):
            self.of = of

        def state_dict(self):
            return swap(self.of.state_dict())

    fastdrop.save(tmp_path / "net.npz", Foreign(net), Foreign(opt))
    again = nn.Sequential([nn.Dense(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Dense(8, 2)], rng=5)
    again_opt = optim.Adam(again)
    fastdrop.load(tmp_path / "net.npz", again, again_opt)
    numpy.testing.assert_equal(again.state_dict(), net.state_dict())
    numpy.testing.assert_equal(again_opt.state_dict(), opt.state_dict())


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
@pytest.mark.parametrize("dtype", WIDE)
def test_gradients_of_parameters(kind, dtype):
    results = []
    for change in (lambda array: array, swapped):
        weight = Parameter("weight", values((3, 4), dtype).copy())
        opt = kind([weight], learning_rate=0.1)
        weight.grad = change(values((3, 4), dtype, 1))
        opt.step()
        results.append(weight.value)
    assert_identical(*results)


def test_estimators():
    pytest.importorskip("sklearn")
    from scipy import sparse

    x = values((60, 4))
    y = (x[:, 0] > 0).astype(numpy.int64)
    weights = numpy.arange(1.0, 61.0)
    models = []
    for change in (lambda array: array, swapped):
        model = fastdrop.MLPClassifier((5,), max_iter=2, dropout=0.3, random_state=0)
        with pytest.warns(Warning, match="converged"):
            model.fit(change(x), change(y), sample_weight=change(weights))
        models.append(model)
    plain, other = models
    assert other.coefs_[0].dtype == plain.coefs_[0].dtype == numpy.float32
    for mine, theirs in zip(other.coefs_, plain.coefs_, strict=True):
        assert_identical(mine, theirs)
    assert_identical(other.predict_proba(swapped(x)), plain.predict_proba(x))
    matrix = sparse.csr_matrix(x)
    matrix.data = swapped(matrix.data)
    numpy.testing.assert_allclose(other.predict_proba(matrix), plain.predict_proba(x), rtol=1e-5)
    assert other.predict_proba(matrix).dtype == numpy.float32
    values_of_y = fastdrop.MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0)
    found = []
    for change in (lambda array: array, swapped):
        with pytest.warns(Warning, match="converged"):
            found.append(values_of_y.fit(change(x), change(x[:, 1])).predict(x))
    assert_identical(*found)
