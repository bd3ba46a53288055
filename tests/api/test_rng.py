"""What a source of randomness may be, wherever one is asked for, and the seed it stands for."""

import numpy
import pytest

import fastdrop
from fastdrop import MaskStream, nn

X = numpy.ones((4, 50), numpy.float32)


def words_of(generator):
    return [int(w) for w in generator.integers(0, 2**32, 4, dtype=numpy.uint32)]


def sources():
    """Pairs of a source and the seed that the documentation derives from it."""
    yield numpy.random.default_rng(5), words_of(numpy.random.default_rng(5))
    for kind in (numpy.random.PCG64, numpy.random.Philox, numpy.random.MT19937):
        yield kind(5), words_of(numpy.random.Generator(kind(5)))
    legacy = numpy.random.RandomState(5).randint(0, 2**32, 4, dtype=numpy.uint32)
    yield numpy.random.RandomState(5), [int(w) for w in legacy]
    for seed in (7, numpy.int32(7), [1, 2], (1, 2), range(3), numpy.array([1, 2], numpy.uint8)):
        yield seed, seed
    yield numpy.random.SeedSequence(3, spawn_key=(1,)), numpy.random.SeedSequence(3, spawn_key=(1,))


PAIRS = list(sources())


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_every_source_stands_for_its_seed(number):
    """Each for itself, as a draw moves the source on."""
    expected = MaskStream(PAIRS[number][1])

    def source():
        return list(sources())[number][0]

    assert MaskStream(source()) == expected
    mask = fastdrop.dropout(X, 0.5, rng=source())[1]
    assert mask == MaskStream(PAIRS[number][1]).draw(X.shape, rate=0.5)
    net = nn.Sequential([nn.Dense(50, 4), nn.Dropout(0.5)], rng=source())
    assert net.layers[1].stream == MaskStream(PAIRS[number][1]).spawn(1)[0]


@pytest.mark.parametrize(
    "source",
    [numpy.random.default_rng(0), numpy.random.PCG64(0), numpy.random.RandomState(0)],
    ids=lambda source: type(source).__name__,
)
def test_a_source_moves_on(source):
    """In a loop it gives new masks, unlike an int."""
    masks = [fastdrop.dropout(X, 0.5, rng=source)[1] for _ in range(3)]
    masks.append(MaskStream(source).draw(X.shape, rate=0.5))
    assert len({mask.bits.tobytes() for mask in masks}) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        -1, [-1], 1.5, True, numpy.bool_(True), "0", b"0", [1.5], ["0"], [None], [True], {1}, {},
        Ellipsis, numpy.random, numpy.array([1.5]), [[1], "a"],
    ],
    ids=repr,
)  # fmt: skip
def test_errors_name_the_argument(wrong):
    for name, call in (
        ("seed", MaskStream),
        ("rng", lambda rng: fastdrop.dropout(X, 0.5, rng=rng)),
        ("rng", lambda rng: nn.Sequential([nn.Dense(2, 2)], rng=rng)),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(wrong)
        assert str(caught.value).startswith(f"{name} ")
        assert repr(wrong)[:100] in str(caught.value)
    with pytest.raises(TypeError, match="seed must be"):
        MaskStream(MaskStream(0))
