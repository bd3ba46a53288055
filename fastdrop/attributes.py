"""Attributes of objects that live on: none is set without a check, and none without an effect."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

__all__ = ["Sealed", "read_only"]


_Value = TypeVar("_Value")

if TYPE_CHECKING:

    class ReadOnly(Generic[_Value]):
        """A property that cannot be set, to a checker of types."""

        def __get__(self, obj: Any, owner: Any = None) -> _Value: ...
        def __set__(self, obj: Any, value: Any) -> NoReturn: ...


class Sealed:
    """Base of classes to whose objects no attribute is added by a slip of the pen.

    It holds for classes that say ``_sealed = True`` themselves, not for those derived from them,
    which may keep what they like.

    Examples
    --------
    >>> class Knob(Sealed):
    ...     _sealed = True
    ...     @property
    ...     def angle(self):
    ...         return 0
    >>> Knob().angel = 5  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AttributeError: Knob has no attribute 'angel', nothing was set; it has: angle...
    """

    def __setattr__(self, name: str, value: object) -> None:
        cls = type(self)
        if not name.startswith("_") and "_sealed" in vars(cls) and not hasattr(cls, name):
            known = [each for each in dir(cls) if isinstance(getattr(cls, each), property)]
            raise AttributeError(
                f"{cls.__name__} has no attribute {name!r}, nothing was set; it has: "
                f"{', '.join(known)}",
                name=name,
                obj=self,
            )
        super().__setattr__(name, value)


def read_only(instead: str) -> "Callable[[Callable[[Any], _Value]], ReadOnly[_Value]]":
    """Decorate a method as a property that cannot be set, and say what to do instead.

    Parameters
    ----------
    instead : str

    Examples
    --------
    >>> class Wheel:
    ...     @read_only("make a new wheel")
    ...     def spokes(self):
    ...         return 36
    >>> Wheel().spokes = 32
    Traceback (most recent call last):
    AttributeError: spokes of Wheel cannot be set: make a new wheel
    """

    def decorate(get: Callable[[Any], _Value]) -> "ReadOnly[_Value]":
        def refuse(self: object, value: object) -> None:
            raise AttributeError(
                f"{get.__name__} of {type(self).__name__} cannot be set: {instead}"
            )

        return cast("ReadOnly[_Value]", property(get, refuse))

    return decorate
