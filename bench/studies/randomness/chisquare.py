"""A small battery of our own: Pearson's chi-square test on a fixed amount of standard input.

    python -m bench.studies.randomness.chisquare BYTES

It needs SciPy only, and takes a second. It sees crude faults, such as a word of a block that
repeats, and nothing of what the large batteries are for.
"""

import sys

import numpy

__all__ = ["p_values"]

# Distances in bytes: within a block of 16, a block, a digit's 64 blocks, a draw's.
LAGS = (1, 2, 4, 8, 12, 16, 64, 256, 1024)


def p_values(data):
    """Return the p-value of each test by name.

    Parameters
    ----------
    data : bytes-like
        At least a few times 65536 bytes, for the expected counts to be large enough.

    Returns
    -------
    dict of str to float
        Small where some bytes, or pairs of bytes, are more frequent than others, near 1 where
        they are too equally frequent.
    """
    from scipy.stats import chisquare

    values = numpy.frombuffer(data, numpy.uint8).astype(numpy.int64)
    tests = {"bytes": numpy.bincount(values, minlength=256)}
    for lag in LAGS:
        tests[f"differences, {lag} bytes apart"] = numpy.bincount(
            (values[lag:] - values[:-lag]) % 256, minlength=256
        )
        # Of the pairs, those that do not overlap, so that they are independent.
        first = values[: values.size // (2 * lag) * (2 * lag)].reshape(-1, 2, lag)
        pairs = (first[:, 0] << 8 | first[:, 1]).ravel()
        tests[f"pairs, {lag} bytes apart"] = numpy.bincount(pairs, minlength=65536)
    return {name: float(chisquare(counts).pvalue) for name, counts in tests.items()}


def main(arguments):
    """Run the command line."""
    size = int(arguments[0])
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        sys.exit(f"the input ended after {len(data)} bytes")
    for name, p in p_values(data).items():
        print(f"{name}\t{p!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
