"""The text files that pin stream version 1, read by both implementations."""

import pathlib
import zlib

import make_golden
import numpy
import pytest

from fastdrop import MaskStream, _kernels, reference

MASKS = make_golden.read()
KNOWN_ANSWERS = pathlib.Path(__file__).parents[1] / "data" / "philox_known_answers.txt"

# The design's own list, apart from the file: packed bytes of the first six masks in it.
DESIGN = [
    "135cb8e044850e70",
    "458280e21d410c59",
    "effcfbfdf7dffffb",
    "be6a57f77b6ff7ec",
    "935cbae0c6",
    "0373cc932d910502",
]


def test_philox_known_answers():
    lines = KNOWN_ANSWERS.read_text(encoding="ascii").splitlines()
    answers = [line.split() for line in lines if line and not line.startswith("#")]
    assert len(answers) >= 3
    words = numpy.array([[int(word, 16) for word in answer] for answer in answers]).T
    result = reference.philox4x32(words[:4], words[4:6])
    assert result.dtype == numpy.uint32
    numpy.testing.assert_array_equal(result, words[6:])


def test_the_file_begins_with_the_masks_of_the_design():
    assert [mask.bits for mask in MASKS[:6]] == DESIGN
    assert len(MASKS) >= 46


def test_every_line_survives_a_round_trip():
    lines = make_golden.PATH.read_text(encoding="utf-8").splitlines()
    assert [str(mask) for mask in MASKS] == [
        line for line in lines if line and not line.startswith("#")
    ]


def check(golden, bits):
    assert make_golden.summarize(bits) == golden.bits, str(golden)
    assert int(numpy.bitwise_count(bits).sum()) == golden.kept


@pytest.mark.parametrize("golden", MASKS, ids=range(len(MASKS)))
def test_reference(golden):
    check(golden, golden.draw_with(reference))


def test_kernels(each_isa, each_thread_count):
    for golden in MASKS:
        check(golden, golden.draw_with(_kernels))


@pytest.mark.parametrize("golden", MASKS, ids=range(len(MASKS)))
def test_mask_stream(golden):
    stream = MaskStream(golden.seed)
    for child in golden.spawn:
        stream = stream.spawn(child + 1)[child]
    # Trailing shared axes are not in the file's shape of an exact-count mask.
    missing = len(golden.array_shape) - len(golden.shape)
    window = tuple(map(slice, golden.starts, golden.stops)) + (slice(0, 1),) * missing
    mask = stream.draw(
        golden.array_shape,
        keep_prob=golden.keep_prob,
        shared_axes=golden.shared_axes,
        rows_per_mask=golden.rows_per_mask,
        exact_count=golden.kind == "exact",
        window=window,
        at=golden.draw,
    )
    assert mask.count() == golden.kept
    check(golden, mask.bits)


def test_spawn_key_is_the_path_of_children():
    grandchild = MaskStream(5).spawn(2)[1].spawn(1)[0]
    same = MaskStream(numpy.random.SeedSequence(5, spawn_key=(1, 0)))
    bits = grandchild.draw((256,), rate=0.5).bits
    assert bits.tobytes() == same.draw((256,), rate=0.5).bits.tobytes()


def test_the_check_value_of_the_file_format_is_the_common_crc32():
    # The check value that every description of this CRC gives.
    assert zlib.crc32(b"123456789") == 0xCBF43926
