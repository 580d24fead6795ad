"""Records are the standard library's dataclasses in all that can be seen of them."""

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, asdict, field, fields, replace
from inspect import signature
from threading import Barrier, Thread
from typing import Any, ClassVar

import pytest

from localinfer.records import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A place."""

    x: float
    y: float = 0.0
    name: str = field(default="", compare=False)
    tags: tuple[str, ...] = field(default=(), repr=False)
    extra: list[int] = field(default_factory=list, hash=False)
    KIND: ClassVar[str] = "point"


@dataclass(frozen=True, slots=True)
class Solid(Point):
    """A place with a height."""

    z: float = 1.0


@dataclass(slots=True, kw_only=True)
class Count:
    number: int
    seen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.number += 1


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """A place."""

    x: float
    y: float = 0.0
    name: str = field(default="", compare=False)
    tags: tuple[str, ...] = field(default=(), repr=False)
    extra: list[int] = field(default_factory=list, hash=False)


def test_values_fields_and_words_are_those_of_the_standard_one() -> None:
    ours: Any = Point(1, name="a", extra=[3])
    theirs = Standard(1, name="a", extra=[3])
    assert asdict(ours) == asdict(theirs)
    assert repr(ours) == repr(theirs).replace("Standard", "Point") == "Point(x=1, y=0.0, name='a', extra=[3])"
    assert [one.name for one in fields(Point)] == [one.name for one in fields(Standard)]
    assert str(signature(Point)) == str(signature(Standard))
    assert ours.KIND == "point"
    assert not hasattr(ours, "__dict__")
    assert Point.__match_args__ == Standard.__match_args__
    assert Point.__doc__ == "A place."


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert Point(1, name="a") == Point(1, name="b")
    assert Point(1) != Point(2)
    assert Point(1) != Solid(1)
    assert Point(1) != Standard(1)
    assert hash(Point(1, extra=[1])) == hash(Point(1, extra=[2]))
    nan = float("nan")
    assert Point(nan) == Point(nan)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Count(number=1))


def test_frozen_ones_stay_as_they_are() -> None:
    point: Any = Point(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert replace(point, x=3) == Point(3)


def test_a_derived_record_adds_its_fields() -> None:
    assert asdict(Solid(1, 2)) == asdict(Point(1, 2)) | {"z": 1.0}
    assert Solid(1, 2) == Solid(1, 2)


def test_words_after_the_star_and_what_comes_after() -> None:
    assert Count(number=1).number == 2
    assert Count(number=1).seen is not Count(number=1).seen
    unnamed: Any = Count
    with pytest.raises(TypeError):
        unnamed(1)
    with pytest.raises(TypeError, match="number"):
        unnamed()


@pytest.mark.parametrize("one", [Point(1, name="a", extra=[1]), Solid(1), Count(number=1, seen=[2])])
def test_copies_and_pickles(one: Any) -> None:
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert asdict(other) == asdict(one)


def test_threads_that_make_the_first_together() -> None:
    @dataclass(frozen=True, slots=True)
    class New:
        x: int

    ready, made = Barrier(8), list[object]()

    def make() -> None:
        ready.wait()
        made.append(New(1))

    threads = [Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [New(1)] * 8


def test_a_field_that_would_be_left_without_a_value_is_refused() -> None:
    class Loop:
        ended: bool = field(default=False, init=False)

    with pytest.raises(TypeError, match="class attribute"):
        dataclass(slots=True)(Loop)
