"""At test time nothing is shared: layers, networks and estimators may be used by many threads."""

import concurrent.futures
import inspect
import sys
import threading

import numpy
import pytest

from fastdrop import Mask, MaskStream, MLPClassifier, apply_mask, masked_matmul, nn

THREADS = 4
PASSES = 300
WIDTH = 37


class Reshape(nn.Layer):
    """A layer of one's own that changes the shape of the batch's rows."""

    def __init__(self, *shape):
        self.shape = shape

    def forward(self, x, training=False):
        return x.reshape(len(x), *self.shape)

    def backward(self, grad, input_gradient=True):
        raise NotImplementedError


# Of rows of WIDTH values, for layers that want more axes.
ROWS = {
    nn.Dropout1d: (1, WIDTH),
    nn.Dropout2d: (1, 1, WIDTH),
    nn.Dropout3d: (1, 1, 1, WIDTH),
    nn.DropBlock1d: (1, WIDTH),
    nn.DropBlock2d: (1, 1, WIDTH),
    nn.DropBlock3d: (1, 1, 1, WIDTH),
    nn.FeatureAlphaDropout: (1, WIDTH),
    nn.VariationalDropout: (1, WIDTH),
}
ARGUMENTS = {
    nn.Dense: (WIDTH, WIDTH),
    nn.BatchNorm1d: (WIDTH,),
    nn.LayerNorm: (WIDTH,),
    nn.DropBlock1d: (0.3, 1),
    nn.DropBlock2d: (0.3, 1),
    nn.DropBlock3d: (0.3, 1),
    nn.GaussianNoise: (0.3,),
    nn.Embedding: (100, WIDTH),
    nn.BiasDropoutResidual: (WIDTH, 0.3),
}
# These take whole numbers, or two arrays: no network of dense layers holds them.
ALONE = (nn.Embedding, nn.BiasDropoutResidual)


def public_layers():
    """Every public class of a layer that works by itself."""
    classes = (value for value in vars(nn).values() if isinstance(value, type))
    bases = (nn.Layer, nn.Elementwise, nn.Sequential)
    return [one for one in classes if issubclass(one, nn.Layer) and one not in bases]


def made(kind):
    """A layer of a class, with arguments that make it do something at test time where it can."""
    if kind in ARGUMENTS:
        return kind(*ARGUMENTS[kind])
    parameters = inspect.signature(kind).parameters
    options = {"rate": 0.3} if "rate" in parameters else {}
    if "scale_at" in parameters:
        options["scale_at"] = "test"
    return kind(**options)


def in_networks():
    return [kind for kind in public_layers() if kind not in ALONE]


def shaped(kind):
    """Layers of a class among others that give and take rows of WIDTH values."""
    return [Reshape(*ROWS.get(kind, (WIDTH,))), made(kind), made(kind), Reshape(WIDTH)]


def all_in_one():
    layers = [Reshape(WIDTH)]
    for kind in in_networks():
        layers += [nn.Dense(WIDTH, WIDTH), *shaped(kind)]
    layers += [nn.Dropout(0.5, scale_at="test", exact_count=True), nn.LeakyReLU(3.0)]
    return nn.Sequential(layers, rng=0)


@pytest.fixture
def switching():
    """Let Python change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def wrong_passes(function, inputs, passes=PASSES):
    """How many of the passes of all threads gave something else than one thread alone."""
    expected = [numpy.asarray(function(x)) for x in inputs]
    barrier = threading.Barrier(len(inputs))

    def work(number):
        barrier.wait()
        results = (numpy.asarray(function(inputs[number])) for _ in range(passes))
        return sum(not numpy.array_equal(one, expected[number]) for one in results)

    with concurrent.futures.ThreadPoolExecutor(len(inputs)) as pool:
        return sum(pool.map(work, range(len(inputs))))


def batches(dtype=numpy.float32):
    """A batch for each thread, of a size and values of its own; NumPy computes without the lock."""
    generator = numpy.random.default_rng(0)
    return [generator.standard_normal((60 + n, WIDTH)).astype(dtype) for n in range(THREADS)]


@pytest.mark.parametrize("kind", public_layers(), ids=lambda kind: kind.__name__)
def test_layers(kind, switching):
    layer = made(kind)
    layer.build(numpy.float32, numpy.random.default_rng(0))
    inputs = [x.reshape(len(x), *ROWS.get(kind, (WIDTH,))) for x in batches()]
    forward = layer.forward
    if kind is nn.Embedding:
        inputs = [(numpy.abs(x) * 10).astype(int) for x in inputs]
    if kind is nn.BiasDropoutResidual:
        forward = lambda x, **options: layer.forward(x, x, **options)  # noqa: E731
    forward(inputs[0], training=True)
    assert wrong_passes(forward, inputs) == 0


@pytest.mark.parametrize("kind", in_networks(), ids=lambda kind: kind.__name__)
def test_networks_of_one_kind(kind, switching):
    """The same layers inside a network, which has buffers of its own."""
    net = nn.Sequential([nn.Dense(WIDTH, WIDTH), *shaped(kind)], rng=0)
    net.forward(batches()[0], training=True)  # the buffers of training are there
    assert wrong_passes(net.forward, batches()) == 0


def test_a_network_of_everything(switching):
    net = all_in_one()
    net.forward(batches()[0], training=True)
    inputs = [x.reshape(len(x), WIDTH, 1) for x in batches()]
    assert wrong_passes(net.forward, inputs, 150) == 0


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator(switching):
    x = numpy.concatenate(batches())
    model = MLPClassifier((20,), dropout=0.3, max_iter=200, random_state=0)
    model.fit(x, x[:, 0] > 0)

    def predict(x):
        return model.predict_samples(x, n_samples=2, random_state=1)

    assert wrong_passes(model.predict_proba, batches(), 10) == 0
    assert wrong_passes(predict, batches(), 5) == 0


def test_masks_and_products(switching):
    """A mask remembers its rows for the shape it was last used with."""
    mask = MaskStream(0).draw((1, WIDTH), rate=0.5)
    w = batches()[0].T.copy()
    dense = Mask.from_array(mask.to_array())
    assert wrong_passes(lambda x: masked_matmul(x, w, mask_in=mask), batches()) == 0
    assert wrong_passes(lambda x: apply_mask(x, dense), batches()) == 0


def test_threads_that_use_a_fresh_layer_share_its_weights(switching):
    for _ in range(30):
        layer = nn.Dense(3, 2)
        barrier = threading.Barrier(THREADS)

        def first_use(_, layer=layer, barrier=barrier):
            barrier.wait()
            return layer.forward(numpy.ones((1, 3)))

        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(first_use, range(THREADS)))
        for result in results:
            numpy.testing.assert_array_equal(result, layer.forward(numpy.ones((1, 3))))
