"""What can seed a stream of masks."""

from collections.abc import Sequence
from typing import Any

import numpy

__all__ = ["seed_sequence"]


def seed_sequence(seed: Any, name: str) -> "numpy.random.SeedSequence":
    """The seed sequence that an argument called `name` stands for.

    Raises
    ------
    TypeError, ValueError
        If it stands for none.
    """
    if isinstance(seed, numpy.random.SeedSequence):
        return seed
    if isinstance(seed, numpy.random.BitGenerator):
        seed = numpy.random.Generator(seed)
    if isinstance(seed, numpy.random.Generator):
        seed = seed.integers(0, 2**32, 4, dtype=numpy.uint32).tolist()
    elif isinstance(seed, numpy.random.RandomState):
        seed = seed.randint(0, 2**32, 4, dtype=numpy.uint32).tolist()
    elif not _is_seed(seed):
        stream = ", a fastdrop.MaskStream" if name == "rng" else ""
        raise TypeError(
            f"{name} must be None, an int, a sequence of ints{stream} or a SeedSequence, "
            f"Generator, BitGenerator or RandomState of numpy.random, got {seed!r:.100}"
        )
    try:
        return numpy.random.SeedSequence(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} cannot be used: {error}; got {seed!r:.100}") from None


def _is_seed(seed: object) -> bool:
    """Whether this is None, an int or a sequence of ints."""
    if seed is None:
        return True
    if isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
        return all(_is_seed(part) and part is not None for part in seed)
    if isinstance(seed, numpy.ndarray):
        return seed.dtype.kind in "iu"
    return hasattr(seed, "__index__") and not isinstance(seed, bool | numpy.bool_)
