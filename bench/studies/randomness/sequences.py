"""The mask stream's output in several orders, as endless random bytes on standard output.

    python -m bench.studies.randomness.sequences NAME --rounds 10

writes until nobody reads any more, then the number of bytes that were taken to standard error.
"""

import argparse
import itertools
import os
import sys

import numpy

import fastdrop
import fastdrop.reference.stream

__all__ = ["SEQUENCES", "WrongGenerator", "set_rounds"]

ROUNDS = 10  # of the mask stream, version 1
SEED = 2024
CHUNK = 1 << 22  # bytes, about what each step of a sequence makes
# Streams, or draws, whose masks are interleaved.
NEIGHBOURS = 4096
ODD_KEEP_PROBS = (1 / 3, 0.7, 0.6)
ODD_DRAW = 1 << 18  # elements: what is made of them stays in the cache


class WrongGenerator(RuntimeError):
    """The compiled kernels do not draw with the number of rounds that was asked for."""


def words():
    """Yield Philox's words as they are: all 64 digits of one block after those of another.

    These come from the NumPy reference, whose bits the kernels' are compared with.
    """
    key = numpy.random.SeedSequence(SEED).generate_state(2, numpy.uint32)
    digit = numpy.arange(64)
    step = CHUNK // (64 * 16)
    for first in itertools.count(0, step):
        block = numpy.arange(first, first + step)[:, None]
        counter = (block & 0xFFFFFFFF, block >> 32, 0, digit)
        output = fastdrop.reference.philox4x32(counter, key)
        yield numpy.moveaxis(output, 0, -1).tobytes()


def bits():
    """Yield the bits of masks at rate 0.5, one large draw after the other."""
    stream = fastdrop.MaskStream(SEED)
    while True:
        yield stream.draw((8 * CHUNK,), keep_prob=0.5).bits.tobytes()


def odd_rates():
    """Yield masks of rates that need many digits, made uniform by von Neumann's method.

    Of each pair of neighbouring elements that differ, the first one's bit: uniform and independent
    where the elements are independent and equally often kept. A pair that agrees gives nothing.
    """
    stream = fastdrop.MaskStream(SEED)
    for keep_prob in itertools.cycle(ODD_KEEP_PROBS):
        mask = numpy.unpackbits(stream.draw((ODD_DRAW,), keep_prob=keep_prob).bits)
        # A pair as one number: 1 where only its first element is kept, 256 where only its second.
        pairs = mask.view("<u2")
        uniform = pairs.take(numpy.flatnonzero((pairs == 1) | (pairs == 256))).astype(numpy.uint8)
        yield numpy.packbits(uniform[: uniform.size // 32 * 32]).tobytes()


def interleaved(masks):
    """Return block 0 of each mask, then block 1 of each, and so on."""
    blocks = numpy.array(masks).reshape(len(masks), -1, 16)
    return blocks.swapaxes(0, 1).tobytes()


def neighbours(draw):
    """Yield the interleaved masks that `draw` draws for the numbers 0, 1, 2, ..."""
    shape = (8 * CHUNK // NEIGHBOURS,)
    for first in itertools.count(0, NEIGHBOURS):
        yield interleaved([draw(number, shape) for number in range(first, first + NEIGHBOURS)])


def draws():
    """Yield block by block what consecutive draws have there."""
    stream = fastdrop.MaskStream(SEED)
    return neighbours(lambda number, shape: stream.draw(shape, keep_prob=0.5, at=number).bits)


def seeds():
    """Yield block by block what streams of consecutive seeds have there."""
    return neighbours(
        lambda number, shape: fastdrop.MaskStream(number).draw(shape, keep_prob=0.5).bits
    )


def spawned():
    """Yield block by block what the children of one stream have there."""
    parent = fastdrop.MaskStream(SEED)
    while True:
        children = parent.spawn(NEIGHBOURS)
        shape = (8 * CHUNK // NEIGHBOURS,)
        yield interleaved([child.draw(shape, keep_prob=0.5).bits for child in children])


def unit_major():
    """Yield masks of (rows, 1024 units) at rate 0.5 unit by unit: all rows of one, then the next.

    What a unit sees in the course of training; neighbours in this order are 8 blocks apart.
    """
    units, rows = 1024, 8 * CHUNK // 1024
    stream = fastdrop.MaskStream(SEED)
    while True:
        packed = stream.draw((rows, units), keep_prob=0.5).bits.reshape(rows, units // 8)
        for eight_units in numpy.ascontiguousarray(packed.T):
            mask = numpy.unpackbits(eight_units, bitorder="little").reshape(rows, 8)
            yield numpy.packbits(numpy.ascontiguousarray(mask.T)).tobytes()


def control():
    """Yield the operating system's random bytes: what a good source scores in these batteries."""
    while True:
        yield os.urandom(CHUNK)


SEQUENCES = {
    "words": words,
    "bits": bits,
    "odd rates": odd_rates,
    "draws": draws,
    "spawned": spawned,
    "seeds": seeds,
    "unit-major": unit_major,
    "control": control,
}


def set_rounds(rounds):
    """Have the NumPy reference make `rounds` rounds, and make sure that the kernels do.

    Raises
    ------
    WrongGenerator
        If the kernels draw other bits than the reference. ``FASTDROP_BUILD=weak`` builds kernels
        that make three rounds.
    """
    fastdrop.reference.stream.ROUNDS = rounds
    drawn = fastdrop.MaskStream(SEED).draw((2048,), keep_prob=1 / 3, at=7).bits
    key = numpy.random.SeedSequence(SEED).generate_state(2, numpy.uint32)
    expected = numpy.empty_like(drawn)
    threshold = fastdrop.reference.bernoulli_threshold(1 / 3)
    fastdrop.reference.draw_bernoulli(*key, 7, threshold, (2048,), (0,), (2048,), expected)
    if drawn.tobytes() != expected.tobytes():
        raise WrongGenerator(f"the kernels of {fastdrop.__file__} do not make {rounds} rounds")


def pour(chunks, output):
    """Write chunks until the reader has gone, and return how many bytes it left room for."""
    written = 0
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), 1 << 16):
                output.write(chunk[start : start + (1 << 16)])
                written += len(chunk[start : start + (1 << 16)])
    except BrokenPipeError:
        pass
    return written


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.randomness.sequences")
    parser.add_argument("name", choices=SEQUENCES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    # The words are the reference's alone; everything else comes from the kernels.
    if options.name == "words":
        fastdrop.reference.stream.ROUNDS = options.rounds
    else:
        set_rounds(options.rounds)
    with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as output:
        print(pour(SEQUENCES[options.name](), output), file=sys.stderr)


if __name__ == "__main__":
    main()
