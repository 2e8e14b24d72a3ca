from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from okanjo_conductor._plain import Frozen, Named, Plain, Row, fresh, values_of


class Point(Frozen):
    x: int
    y: int = 0


class Place(Named):
    name: str
    at: Point = Point(1, 2)


class Path(Plain):
    name: str
    points: list[Point] = fresh(factory=list)


class Positive(Frozen):
    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(self.number)


class Nothing(Named):
    pass


def test_fields_are_given_by_place_or_by_name():
    assert Point(1, 2) == Point(x=1, y=2) == Point(1, y=2)
    assert (Point(1).y, Place(name="a").at) == (0, Point(1, 2))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Point, "the field 'x' is missing"),
        (lambda: Point(y=1), "the field 'x' is missing"),
        (lambda: Point(1, 2, 3), "has 2 fields, not 3"),
        (lambda: Point(1, x=2), "'x' is given twice"),
        (lambda: Point(x=1, z=2), "'z' is no field of it"),
        (lambda: Point(1, z=2), "'z' is no field of it"),
    ],
)
def test_wrong_fields_are_refused(make, why):
    with pytest.raises(TypeError, match=why):
        make()


def test_frozen_data_cannot_be_changed():
    point = Point(1, 2)
    with pytest.raises(AttributeError, match="'x' is fixed"):
        point.x = 3
    with pytest.raises(AttributeError, match="'x' is fixed"):
        del point.x
    assert point == Point(1, 2)


def test_frozen_data_is_equal_to_its_like_only():
    assert Point(1, 2) != Point(2, 1)
    assert Point(1, 2) != (1, 2)
    assert Nothing() != Positive(1)
    assert len({Point(1, 2), Point(1, 2), Point(2, 1)}) == 2


def test_data_that_changes_is_equal_to_itself_only():
    path = Path("a")
    path.points.append(Point(1))
    path.name = "b"
    assert path == path  # noqa: PLR0124 - that is the question
    assert path != Path("b", [Point(1)])
    assert Path("c").points == []


def test_a_check_is_made_of_each_object():
    with pytest.raises(ValueError, match="-1"):
        Positive(-1)


def test_it_shows_its_fields():
    assert repr(Place(name="a")) == "Place(name='a', at=Point(x=1, y=2))"
    assert repr(Nothing()) == "Nothing()"


@pytest.mark.parametrize("made", [Point(1, 2), Place(name="a"), Nothing()])
def test_it_is_pickled_and_copied(made):
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made


def test_a_copy_may_have_other_values():
    assert Point(1, 2)._replace(y=3) == Point(1, 3)


def test_it_can_be_matched():
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_dataclasses_know_it():
    assert dataclasses.is_dataclass(Point)
    assert [field.name for field in dataclasses.fields(Path("a"))] == ["name", "points"]
    assert dataclasses.asdict(Place(name="a")) == {"name": "a", "at": {"x": 1, "y": 2}}
    assert dataclasses.replace(Point(1, 2), x=5) == Point(5, 2)


def test_it_has_nothing_but_its_fields():
    assert values_of(Point(1, 2)) == (1, 2)
    assert not hasattr(Point(1), "__dict__")


# Rows


class Spot(Row):
    """A row."""

    x: int
    y: str

    @property
    def both(self):
        return f"{self.x}{self.y}"


def test_a_row_is_a_tuple_with_names():
    spot = Spot(1, y="a")
    assert (spot.x, spot.y, spot.both) == (1, "a", "1a")
    assert spot == Spot._make([1, "a"]) == (1, "a")
    assert repr(spot) == "Spot(x=1, y='a')"
    assert spot._replace(y="b") == Spot(1, "b")
    assert pickle.loads(pickle.dumps(spot)) == spot
    assert type(pickle.loads(pickle.dumps(spot))) is Spot
    assert dataclasses.asdict(spot) == {"x": 1, "y": "a"}


def test_a_row_cannot_be_changed():
    spot = Spot(1, "a")
    with pytest.raises(AttributeError):
        spot.x = 2
    with pytest.raises(AttributeError):
        spot.z = 2


def test_a_row_needs_all_its_fields():
    with pytest.raises(TypeError, match="the field 'y' is missing"):
        Spot(1)
