"""`MaskStream`: masks as a pure function of (seed, draw, element index).

The stream is specified in ``docs/design/mask-stream.md`` (version 1); it never depends on threads,
instruction sets, array layouts or earlier draws.
"""

import math
import operator
import os
import threading
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy

from fastdrop._backend import kernels
from fastdrop.arguments import (
    integer,
    inverse,
    keep_probability,
    mask_plan,
    threshold,
    window_bounds,
)
from fastdrop.mask import Mask, new_mask
from fastdrop.seeds import seed_sequence
from fastdrop.types import Axes, RowsPerMask, Seed, ShapeLike

__all__ = ["MaskStream", "RandomSource"]

END = 1 << 56  # draws of a stream
# What a state may ask of a seed sequence. Mixing takes the square of the pool's size: one beyond
# any use would keep the processor busy for hours.
LARGEST_POOL = 1 << 12
MOST_CHILDREN = (1 << 32) - 1

# Guards the positions of all streams, each for a few instructions. One lock, so that a forked
# child can replace it: another thread may have held it at the fork.
_lock = threading.Lock()
_process_stream: "MaskStream | None" = None

_Result = TypeVar("_Result")


def _after_fork_in_child() -> None:
    global _lock, _process_stream
    _lock = threading.Lock()
    _process_stream = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class MaskStream:
    """A reproducible stream of masks.

    A stream numbers its draws 0, 1, 2, ...; the mask of one draw depends on the seed, the number
    of the draw and the arguments of `draw` only. So any mask, or any part of one, can be drawn
    again, anywhere and in any order.

    Parameters
    ----------
    seed : None, int, sequence of int, or of numpy.random, optional
        As for ``numpy.random.SeedSequence``. None takes entropy from the operating system. A
        SeedSequence is used as it is, its count of spawned children included. A Generator, a
        BitGenerator or a RandomState gives its next four words, as ``[int(w) for w in
        generator.integers(0, 2**32, 4, dtype=numpy.uint32)]``, of a RandomState ``randint``.

    Attributes
    ----------
    position : int
        Number of the next draw, from 0 to 2**56; settable.

    Raises
    ------
    TypeError, ValueError
        If `seed` is none of these.

    Notes
    -----
    Philox4x32-10 [1]_ in counter mode; an element's uniform number is compared with the keep
    probability bit by bit, so that a mask is exact to 2**-64. Safe to use from many threads: every
    draw number is given once. After a fork both processes continue from the same position; give
    each its own stream by `spawn`.

    References
    ----------
    .. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy
       as 1, 2, 3", SC'11.

    Examples
    --------
    >>> from fastdrop import MaskStream
    >>> stream = MaskStream(0)
    >>> stream.draw((64,), keep_prob=0.5).bits.tobytes().hex()
    '135cb8e044850e70'
    >>> stream.position
    1
    >>> first, second = stream.spawn(2)
    """

    __slots__ = ("__weakref__", "_key0", "_key1", "_position", "_seed_sequence")

    def __init__(self, seed: Seed = None) -> None:
        self._seed_sequence = seed_sequence(seed, "seed")
        key = self._seed_sequence.generate_state(2, numpy.uint32)
        self._key0, self._key1 = int(key[0]), int(key[1])
        self._position = 0

    @property
    def position(self) -> int:
        """int: number of the next draw."""
        return self._position

    @position.setter
    def position(self, value: int) -> None:
        value = integer(value, "position")
        if not 0 <= value <= END:
            raise ValueError(f"position must be in [0, 2**56], got {value}")
        with _lock:
            self._position = value

    def draw(
        self,
        shape: ShapeLike,
        *,
        rate: float | None = None,
        keep_prob: float | None = None,
        shared_axes: Axes = (),
        rows_per_mask: RowsPerMask = 1,
        exact_count: bool = False,
        window: slice | tuple[slice, ...] | None = None,
        at: int | None = None,
    ) -> Mask:
        """Draw one mask.

        Parameters
        ----------
        shape : int or tuple of int
            Shape of the array the mask is for.
        rate : float
            Probability that an element is dropped, in [0, 1]. Give `rate` or `keep_prob`, not both.
        keep_prob : float
            Probability that an element is kept, ``1 - rate``.
        shared_axes : int or tuple of int, optional
            Axes along which one mask is shared; negative ones count from the end.
        rows_per_mask : int or "batch", optional
            How many consecutive rows (axis 0) share one row of the mask; "batch": all of them.
        exact_count : bool, optional
            Rows along the last axis that is not shared keep exactly
            ``floor(keep_prob * n + 0.5 + 1e-6)`` of their n elements.
        window : tuple of slice, optional
            One slice of step 1 per axis of the mask's own shape (shared axes are 1 long, axis 0 is
            ``ceil(rows / rows_per_mask)``): only this part is drawn, bit for bit as in the whole.
        at : int, optional
            Draw this number, below 2**56, and leave the position alone.

        Returns
        -------
        Mask
            Of the mask's own shape, or the window's.

        Raises
        ------
        TypeError, ValueError
            For an argument that cannot be, by name, and when all 2**56 draws are used up; the
            position then stays.

        Examples
        --------
        >>> from fastdrop import MaskStream
        >>> MaskStream(7).draw((128, 1024), rate=0.5, rows_per_mask=32).shape
        (4, 1024)
        """
        keep = keep_probability(rate, keep_prob)
        plan = mask_plan(shape, shared_axes, rows_per_mask)
        starts, stops = (0,) * len(plan.shape), plan.shape
        if window is not None:
            starts, stops = window_bounds(window, plan.shape)
        drawn = tuple(map(operator.sub, stops, starts))
        if at is not None:
            at = integer(at, "at")
            if not 0 <= at < END:
                raise ValueError(f"at must be in [0, 2**56), got {at}")
        bits = numpy.empty(-(-math.prod(drawn) // 8), numpy.uint8)
        if exact_count:
            row_axis, kept, scale = plan.exact_count(keep)
            rows = slice(0, row_axis + 1)
            draw = kernels.draw_exact_count
            arguments = (kept, plan.shape[rows], starts[rows], stops[rows], bits)
        else:
            scale = inverse(keep)
            draw = kernels.draw_bernoulli
            arguments = (threshold(keep), plan.shape, starts, stops, bits)
        if at is None:
            draw_with(self, draw, *arguments)
        else:
            draw(self._key0, self._key1, at, *arguments)
        return new_mask(bits, drawn, plan.rows_per_mask, keep, scale)

    def spawn(self, n: int) -> "list[MaskStream]":
        """Return `n` independent streams; spawning again gives others.

        Parameters
        ----------
        n : int
            Number of streams, 0 or more; in all less than 2**32.

        Returns
        -------
        list of MaskStream
        """
        n = integer(n, "n")
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        with _lock:
            left = MOST_CHILDREN - self._seed_sequence.n_children_spawned
            if n > left:  # NumPy's count would start again from 0, and so would the children
                raise ValueError(f"n must be at most {left}, a stream has 2**32 - 1, got {n}")
            children = self._seed_sequence.spawn(n)
        return [MaskStream(child) for child in children]

    @property
    def state(self) -> dict[str, Any]:
        """dict: seed sequence and position, which determine all draws and children; settable."""
        sequence = self._seed_sequence
        return {
            "entropy": sequence.entropy,
            "spawn_key": tuple(sequence.spawn_key),
            "pool_size": sequence.pool_size,
            "n_children_spawned": sequence.n_children_spawned,
            "position": self._position,
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        other = MaskStream.from_state(state)
        with _lock:
            for name in ("_seed_sequence", "_key0", "_key1", "_position"):
                setattr(self, name, getattr(other, name))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "MaskStream":
        """Return a stream that draws and spawns as the one whose `state` was read.

        Parameters
        ----------
        state : dict
            As `state` returns it.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is not such a state.

        Examples
        --------
        >>> from fastdrop import MaskStream
        >>> stream = MaskStream(0)
        >>> MaskStream.from_state(stream.state) == stream
        True
        """
        names = ("entropy", "spawn_key", "pool_size", "n_children_spawned")
        arguments = {name: state[name] for name in names}
        for name, most in (("pool_size", LARGEST_POOL), ("n_children_spawned", MOST_CHILDREN)):
            if not 0 <= integer(arguments[name], name) <= most:
                raise ValueError(f"{name} must be in [0, {most}], got {arguments[name]}")
        sequence = numpy.random.SeedSequence(**arguments)
        stream = cls(sequence)
        stream.position = state["position"]
        return stream

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskStream):
            return NotImplemented
        return _comparable(self.state) == _comparable(other.state)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskStream.from_state, (self.state,)

    def __repr__(self) -> str:
        spawned = f", spawn_key={key}" if (key := self._seed_sequence.spawn_key) else ""
        return (
            f"MaskStream(entropy={self._seed_sequence.entropy}{spawned}, position={self._position})"
        )

    def _repr_html_(self) -> str:
        """Notebooks show seed and position, and a picture of the next mask, which is not taken."""
        from fastdrop.display import stream_html  # imported for notebooks only

        return stream_html(self, (self._key0, self._key1))


def _comparable(state: dict[str, Any]) -> dict[str, Any]:
    """Entropy may be an int or any sequence of ints."""
    entropy = state["entropy"]
    entropy = tuple(entropy) if numpy.ndim(entropy) else entropy
    return {**state, "entropy": entropy}


# What the argument `rng` of a function may be.
RandomSource: TypeAlias = "MaskStream | Seed"


def as_stream(rng: RandomSource) -> MaskStream:
    """The stream that an `rng` argument stands for; see `fastdrop.dropout`.

    Raises
    ------
    TypeError
        If it stands for none.
    """
    if isinstance(rng, MaskStream):
        return rng
    if rng is None:
        return process_stream()
    return MaskStream(seed_sequence(rng, "rng"))


def stream_key(stream: MaskStream) -> tuple[int, int]:
    """The key of a stream's generator, two ints of 32 bits each."""
    return stream._key0, stream._key1


def child_sequence(stream: MaskStream, number: int) -> "numpy.random.SeedSequence":
    """Return the seed sequence of one child by its number, whatever has been spawned."""
    seed = stream._seed_sequence
    return numpy.random.SeedSequence(
        seed.entropy, spawn_key=(*seed.spawn_key, number), pool_size=seed.pool_size
    )


def take_position(stream: MaskStream) -> int:
    """Take a stream's position for a mask that is drawn later, by ``draw(..., at=position)``.

    Raises
    ------
    ValueError
        If all draws are used up.
    """
    with _lock:
        position = stream._position
        if position >= END:
            raise ValueError("position must be below 2**56 to draw, the stream is used up")
        stream._position = position + 1
    return position


def draw_with(stream: MaskStream, kernel: Callable[..., _Result], *arguments: Any) -> _Result:
    """Return ``kernel(key0, key1, number, *arguments)`` for the next draw of a stream.

    If the kernel fails, the stream stands where it stood before, unless another thread has drawn
    from it meanwhile.

    Raises
    ------
    ValueError
        If all draws are used up.
    """
    number = take_position(stream)
    try:
        return kernel(stream._key0, stream._key1, number, *arguments)
    except BaseException:
        with _lock:
            if stream._position == number + 1:
                stream._position = number
        raise


def process_stream() -> MaskStream:
    """The stream of ``rng=None``: one per process, seeded by the operating system."""
    global _process_stream
    stream = _process_stream
    if stream is None:
        fresh = MaskStream()
        with _lock:
            if _process_stream is None:
                _process_stream = fresh
            stream = _process_stream
    return stream
