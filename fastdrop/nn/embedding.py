"""Embedding: a vector for each word, with dropout of words."""

from typing import Any

import numpy
from numpy.typing import ArrayLike

from fastdrop.arguments import as_array
from fastdrop.attributes import read_only
from fastdrop.nn.dense import set_gradient
from fastdrop.nn.layer import fitting_gradient
from fastdrop.nn.random import RateLayer
from fastdrop.nn.types import Rate
from fastdrop.nn.weighted import WeightedLayer, at_least_one, weight_of
from fastdrop.stream import RandomSource
from fastdrop.types import Array

__all__ = ["Embedding"]


class Embedding(WeightedLayer, RateLayer):
    """A vector of `units` numbers for each of `words` words, and dropout of whole words [1]_.

    ``y[..., :] = m[x] * weight[x] / keep_prob``, with one bit ``m[w]`` for each word of the
    vocabulary: a word that is dropped is dropped wherever it stands in the batch, so that no
    sentence can be told by it.

    Parameters
    ----------
    words, units : int
        Size of the vocabulary, and length of a vector.
    word_dropout : float, optional
        Probability that a word is dropped in a training forward, in [0, 1]. May be set later, as
        `rate`.
    rng : optional
        As for `fastdrop.dropout`: where the masks come from. By default the network decides.

    Attributes
    ----------
    words, units : int
        Read-only.
    weight : numpy.ndarray, shape (words, units)
        Normal numbers at first. Assigning copies into it.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be, by name, and for input that holds no numbers of words.

    Notes
    -----
    The gradient goes with the words that were there and not dropped: an optimiser of
    `fastdrop.optim` touches no others, and no others' velocities and moments.

    References
    ----------
    .. [1] Y. Gal, Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
       neural networks", NIPS 2016, section 4.2.

    Examples
    --------
    >>> import numpy
    >>> from fastdrop import nn
    >>> layer = nn.Embedding(5, 2, word_dropout=0.5, rng=1)
    >>> layer.weight = numpy.arange(10).reshape(5, 2)
    >>> layer.forward([[1, 4, 1]])
    array([[[2., 3.],
            [8., 9.],
            [2., 3.]]], dtype=float32)
    >>> layer.forward([[1, 4, 1]], training=True)
    array([[[4., 6.],
            [0., 0.],
            [4., 6.]]], dtype=float32)
    """

    _sealed = True
    _kept: tuple[Array, Array | None] | None = None

    def __init__(
        self, words: int, units: int, *, word_dropout: Rate = 0.0, rng: RandomSource = None
    ) -> None:
        RateLayer.__init__(self, word_dropout, None, rng)
        self._words = at_least_one(words, "words")
        self._units = at_least_one(units, "units")

    @read_only("make a new layer")
    def words(self) -> int:
        """int: size of the vocabulary."""
        return self._words

    @read_only("make a new layer")
    def units(self) -> int:
        """int: length of a vector."""
        return self._units

    weight = weight_of("weight", "numpy.ndarray: the vectors, shape (words, units).")

    def _initial(self, generator: "numpy.random.Generator") -> dict[str, Array]:
        return {"weight": generator.standard_normal((self._words, self._units))}

    def _numbers(self, x: ArrayLike) -> Array:
        """The numbers of words, checked; whole floats are such, as networks convert their input."""
        x = as_array(x, "x")
        if x.dtype.kind not in "iuf":
            raise TypeError(f"{self.name}: x must hold numbers of words, got dtype {x.dtype}")
        if x.ndim < 1:
            raise ValueError(f"{self.name}: x must have shape (batch, ...), got {x.shape}")
        if x.size and not (x.min() >= 0 and x.max() < self._words):
            raise ValueError(
                f"{self.name}: x must hold numbers of words from 0 to {self._words - 1}, got "
                f"numbers from {_printed(x.min())} to {_printed(x.max())}"
            )
        numbers = x.astype(numpy.intp)
        if x.dtype.kind == "f" and (numbers != x).any():
            raise ValueError(f"{self.name}: x must hold whole numbers of words, got {x.dtype}")
        return numbers

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the words' vectors.

        Parameters
        ----------
        x : array_like of int, or of whole floats, shape (batch, ...)
            Numbers of words.
        training : bool, optional
            Drop words, and keep what `backward` needs.

        Returns
        -------
        numpy.ndarray, shape (batch, ..., units)
        """
        numbers = self._numbers(x)
        weight: Array = self.weight
        if not training:
            return weight[numbers]
        self.follow_schedule()
        factor = None
        mask = self.stream.draw((self._words,), keep_prob=self.keep_prob)
        if self.keep_prob != 1:
            factor = mask.to_array(weight.dtype) * weight.dtype.type(mask.scale)
        self._kept = numbers, factor
        if factor is None:
            return weight[numbers]
        with numpy.errstate(all="ignore"):
            y: Array = weight[numbers] * factor[numbers][..., None]
        y[factor[numbers] == 0] = 0  # whatever the weight was
        return y

    def backward(self, grad: ArrayLike, input_gradient: bool = True) -> Array | None:
        """Set the gradient of the vectors; numbers of words have none.

        Raises
        ------
        RuntimeError
            Without a training forward before it.
        ValueError
            If `grad` has another shape than the output.
        """
        if self._kept is None:
            raise self._missing_forward()
        numbers, factor = self._kept
        dtype = self._dtype()
        grad = fitting_gradient(grad, (*numbers.shape, self._units), dtype, self.name)
        rows, flat = grad.reshape(-1, self._units), numbers.ravel()
        total = numpy.zeros((self._words, self._units), dtype)
        there = numpy.zeros(self._words, bool)
        if flat.size:
            order = numpy.argsort(flat, kind="stable")
            ordered = flat[order]
            firsts = numpy.flatnonzero(numpy.r_[True, ordered[1:] != ordered[:-1]])
            total[ordered[firsts]] = numpy.add.reduceat(rows[order], firsts, axis=0)
            there[ordered[firsts]] = True
        if factor is not None:
            there &= factor != 0
            total *= factor[:, None]
            total[~there] = 0
        set_gradient(
            self._parameter("weight"), total, rows=numpy.packbits(there, bitorder="little")
        )
        return numpy.zeros(numbers.shape, dtype) if input_gradient else None

    def __repr__(self) -> str:
        return f"Embedding({self._words}, {self._units}, word_dropout={self._chosen_rate()})"


def _printed(number: Any) -> str:
    """A number, as the int that it is where it is whole."""
    return str(int(number)) if float(number).is_integer() else f"{number}"
