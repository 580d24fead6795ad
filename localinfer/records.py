"""`dataclass` for classes with slots, put together when they are first used, not when a module is read.

The standard one compiles six functions for each class at once. A command reads some 130 such classes and makes objects
of half of them. What a class means stays the standard library's: fields and `__init__` come from there, and type
checkers are shown nothing else. From Python 3.14 on it is the standard one.
"""

import dataclasses
import sys
from inspect import get_annotations
from operator import attrgetter
from reprlib import recursive_repr
from threading import RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or sys.version_info >= (3, 14):
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, slots, frozen=False, kw_only=False):
        """As `dataclasses.dataclass(slots=True, …)`."""
        if not slots:
            raise TypeError("a record has slots; without them, take the standard dataclass")
        return lambda written: _made(written, frozen, kw_only)


_SAID = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")
_unfinished: dict[type, tuple[Any, bool, bool]] = {}
_getters: dict[tuple[type, bool], Any] = {}
_lock = RLock()


class _Later:
    """Stands for something that the standard library says of a class, until it is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, _one: object, kind: type) -> Any:
        return getattr(_finished(kind), self.name)


_LATER = {name: _Later(name) for name in _SAID}


def _made(written: type, frozen: bool, kw_only: bool) -> type:
    """The class that is used; `written` stays, for the standard library to read."""
    mine = [name for name, kind in get_annotations(written).items() if "ClassVar" not in str(kind)]
    if any(isinstance(one := written.__dict__.get(name), dataclasses.Field) and not one.init for name in mine):
        raise TypeError("the standard library gives such a field its default in a class attribute, which slots take")
    left_out = {*mine, "__dict__", "__weakref__"}
    space: dict[str, Any] = {name: value for name, value in written.__dict__.items() if name not in left_out}
    inherited = {slot for base in written.__mro__[1:-1] for slot in base.__dict__.get("__slots__", ())}
    methods = {"__init__": _first_init, "__repr__": _repr, "__eq__": _eq}
    if frozen:
        methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete, "__setstate__": _restore}
    space = methods | space
    if space.get("__hash__") is None:  # also where a class has an `__eq__` of its own
        space["__hash__"] = _hash if frozen else None
    slots = {"__slots__": tuple(name for name in mine if name not in inherited)}
    made = type(written)(written.__name__, written.__bases__, space | _LATER | slots)
    _unfinished[made] = written, frozen, kw_only
    return made


def _finished(kind: type) -> Any:
    """The record that `kind` is, or comes from, with what the standard library makes of it."""
    owner: Any = next(base for base in kind.__mro__ if "__dataclass_fields__" in base.__dict__)
    with _lock:
        if owner in _unfinished:
            written, frozen, kw_only = _unfinished[owner]
            written.__doc__ = written.__doc__ or owner.__name__  # else one is made of the signature
            dataclasses.dataclass(repr=False, eq=False, frozen=frozen, kw_only=kw_only)(written)
            if owner.__dict__["__init__"] is _first_init:
                owner.__init__ = written.__init__
            for name in _SAID:
                setattr(owner, name, written.__dict__[name])
            del _unfinished[owner]
    return owner


def _first_init(self: Any, *given: Any, **named: Any) -> None:
    _finished(type(self)).__init__(self, *given, **named)


def _values(one: Any, *, hashed: bool) -> Any:
    """The values of the fields that are compared, or hashed."""
    kind = type(one)
    if (get := _getters.get((kind, hashed))) is None:
        fields = dataclasses.fields(kind)
        names = [field.name for field in fields if (field.hash if hashed and field.hash is not None else field.compare)]
        # with one name it would give the value itself, which need not equal itself, as a tuple of it does
        get = _getters[kind, hashed] = attrgetter(*names, *names[:1]) if names else lambda _: ()
    return get(one)


def _eq(self: Any, other: object) -> Any:
    return _values(self, hashed=False) == _values(other, hashed=False) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self, hashed=True))


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({shown})"


def _refuse_to_set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _restore(self: Any, state: tuple[None, dict[str, Any]]) -> None:
    """From a pickle, or a copy."""
    for name, value in state[1].items():
        object.__setattr__(self, name, value)
