"""Work together with other packages; each module here imports the one it is named after."""

import contextlib
from collections.abc import Iterator

__all__ = ["needs"]


@contextlib.contextmanager
def needs(package: str, extra: str, sentence: str) -> Iterator[None]:
    """Say how to install a package, where the imports in the body of the `with` do not find it.

    Parameters
    ----------
    package : str
        Its import name.
    extra : str
        fastdrop's extra that installs it.
    sentence : str
        Who needs it, without the full stop.

    Raises
    ------
    ImportError
        If the package is missing. An installed package that cannot be imported raises what it
        raises.

    Examples
    --------
    >>> from fastdrop.interop import needs
    >>> with needs("a_missing_package", "missing", "fastdrop.missing needs a_missing_package"):
    ...     import a_missing_package
    Traceback (most recent call last):
        ...
    ImportError: fastdrop.missing needs a_missing_package. Install it with
        python -m pip install 'fastdrop-numpy[missing]'
    or, in a checkout of fastdrop, with
        python -m pip install '.[missing]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is there, but broken
        raise ImportError(
            f"{sentence}. Install it with\n    python -m pip install 'fastdrop-numpy[{extra}]'\n"
            f"or, in a checkout of fastdrop, with\n    python -m pip install '.[{extra}]'",
            name=package,
        ) from None
