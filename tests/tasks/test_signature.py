"""The arguments of a task: bound, converted, stored and read back; what is injected."""

from __future__ import annotations

import dataclasses
import functools
import json
import socket
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field

from jobqueue.errors import InvalidArgumentError, SerializationError
from jobqueue.tasks.depends import Depends
from jobqueue.tasks.signature import TaskSignature
from jobqueue.worker.job import Job


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


class Movie(TypedDict):
    title: str
    year: int


class Pair(NamedTuple):
    left: int
    right: str


class Colour(Enum):
    RED = "red"


class Struct(msgspec.Struct):
    ids: set[int]


class Model(BaseModel):
    when: date
    tags: tuple[str, ...] = ()


NOON = datetime(2026, 2, 3, 12, tzinfo=UTC)


def called(signature: TaskSignature, stored: Any, injected: dict[str, Any]) -> Any:
    return signature.call(**signature.read(stored), injected=injected)


def there_and_back(
    signature: TaskSignature, *args: Any, **kwargs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    stored = json.loads(json.dumps(signature.written(args, kwargs)))
    return called(signature, stored, {})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "text"), (int, 7), (float, 1.5), (bool, True), (None, None), (list[int], [1, 2]),
        (dict[str, float], {"a": 1.5}), (dict[int, str], {1: "a"}),
        (tuple[int, str], (1, "a")), (set[str], {"a"}),
        (Point, Point(1, NOON)), (list[Point], [Point(1, NOON)]), (Movie, {"title": "M", "year": 1931}),
        (Pair, Pair(1, "a")), (Colour, Colour.RED), (datetime, NOON), (date, NOON.date()),
        (timedelta, timedelta(days=2, seconds=3)), (UUID, UUID(int=5)), (Decimal, Decimal("1.10")),
        (bytes, b"\x00\xff"), (Struct, Struct({1, 2})), (Model, Model(when=NOON.date(), tags=("a",))),
        (Model | None, None), (int | str, "a"), (Any, {"a": [1, None]}), (object, [1]),
    ],
)  # fmt: skip
def test_a_value_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    def task(value):  # type: ignore[no-untyped-def]
        pass

    task.__annotations__ = {"value": annotation, "return": annotation}
    signature = TaskSignature(task, "task")
    assert there_and_back(signature, value) == ((value,), {})
    assert signature.result.read(json.loads(json.dumps(signature.result.written(value)))) == value


def test_every_kind_of_parameter_keeps_its_place() -> None:
    def task(a: int, /, b: date, *rest: UUID, c: Decimal = Decimal(1), **more: Colour) -> None: ...

    args = (1, NOON.date(), UUID(int=1), UUID(int=2))
    kwargs = {"c": Decimal(2), "x": Colour.RED}
    assert there_and_back(TaskSignature(task, "task"), *args, **kwargs) == (args, kwargs)
    assert there_and_back(TaskSignature(task, "task"), 1, b=NOON.date()) == ((1, NOON.date()), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"send\(\): missing a required argument: 'to'"),
        (("a", "b", "c"), {}, r"send\(\): too many positional arguments"),
        (("a",), {"cc": "b"}, r"send\(\): got an unexpected keyword argument 'cc'"),
        (("a",), {"to": "b"}, r"send\(\): multiple values for argument 'to'"),
    ],
)
def test_arguments_that_do_not_fit_the_parameters(args: Any, kwargs: Any, message: str) -> None:
    def send(to: str, subject: str = "hi") -> None: ...

    with pytest.raises(TypeError, match=message):
        TaskSignature(send, "send").written(args, kwargs)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(str, 1), (int, "1"), (list[int], ["a"]), (Point, {"x": 1}), (Model, {"when": "never"}), (Any, object()),
     (Any, socket.socket), (Annotated[int, msgspec.Meta(ge=1)], 0)],
)  # fmt: skip
def test_a_value_that_does_not_fit_its_annotation_is_named(annotation: Any, value: Any) -> None:
    def send(to):  # type: ignore[no-untyped-def]
        pass

    send.__annotations__ = {"to": annotation}
    with pytest.raises(InvalidArgumentError, match=r"^send\(to\): "):
        TaskSignature(send, "send").written((value,), {})


@pytest.mark.parametrize("annotation", [socket.socket, list[socket.socket], dict[str, socket.socket | None]])
def test_annotations_that_cannot_be_stored_are_refused_where_they_stand(annotation: Any) -> None:
    def send(to):  # type: ignore[no-untyped-def]
        pass

    send.__annotations__ = {"to": annotation}
    with pytest.raises(InvalidArgumentError, match=r"send\(to\).*socket\.socket"):
        TaskSignature(send, "send")
    send.__annotations__ = {"return": annotation}
    with pytest.raises(InvalidArgumentError, match=r"the result of send\(\)"):
        TaskSignature(send, "send")


def test_an_annotation_that_cannot_be_resolved_is_refused() -> None:
    def send(to: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(InvalidArgumentError, match=r"send: has annotations.*Nowhere"):
        TaskSignature(send, "send")


@pytest.mark.parametrize(
    "payload",
    [
        None, [], {}, {"args": "ab", "kwargs": {}}, {"args": [], "kwargs": []}, {"args": [], "kwargs": {}},
        {"args": [], "kwargs": {"to": 1}}, {"args": ["a", "b"], "kwargs": {}}, {"args": [{}], "kwargs": {}},
    ],
)  # fmt: skip
def test_stored_arguments_of_somebody_else_are_a_serialization_error(payload: Any) -> None:
    def send(to: str) -> None: ...

    with pytest.raises(SerializationError, match="send"):
        TaskSignature(send, "send").read(payload)


def test_what_is_injected_is_no_argument() -> None:
    def get_pool() -> str:
        return "pool"

    def send(
        job: Job[Any], to: str, subject: str = "hi", pool: str = Depends(get_pool), *rest: int
    ) -> None: ...

    signature = TaskSignature(send, "send")
    stored = signature.written(("a",), {})
    assert stored == {"args": ["a"], "kwargs": {}}
    assert called(signature, stored, {"job": "J", "pool": "P"}) == (
        ("J", "a"), {"pool": "P"},
    )  # fmt: skip
    stored = signature.written(("a", "b", 3, 4), {})
    assert called(signature, stored, {"job": "J", "pool": "P"}) == (
        ("J", "a", "b", "P", 3, 4),
        {},
    )
    assert signature.text(lambda to, subject, *rest: f"{to} {subject} {rest}", ("a",), {}) == "a hi ()"


def test_a_direct_call_passes_its_dependencies() -> None:
    class Pool: ...

    def send(to: str, pool: Pool = Depends(Pool)) -> None: ...

    signature = TaskSignature(send, "send")
    signature.check_called_directly(("a", Pool()), {})
    with pytest.raises(TypeError, match="'pool' is missing"):
        signature.check_called_directly(("a",), {})


def test_a_dependency_that_nothing_provides_for_is_refused() -> None:
    def needs(host: str) -> None: ...

    def send(pool: None = Depends(needs)) -> None: ...

    with pytest.raises(InvalidArgumentError, match=r"pool.*'host'"):
        TaskSignature(send, "send")


def test_partials_and_callable_objects_are_described() -> None:
    def send(to: date, cc: date) -> None: ...

    class Sender:
        def __call__(self, to: date) -> None: ...

    day = NOON.date()
    assert there_and_back(TaskSignature(functools.partial(send, cc=day), "send"), day) == ((day,), {})
    assert there_and_back(TaskSignature(Sender(), "send"), day) == ((day,), {})


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=False)
    number: int = Field(0, alias="numberOf")
    items: list[int] = Field(default_factory=list, validation_alias="itemsOf")


class Excluding(BaseModel):
    secret: int = Field(0, exclude=True)


def test_models_are_stored_by_the_names_of_their_fields() -> None:
    def task(value: Aliased) -> None: ...

    value = Aliased(numberOf=5, itemsOf=[1])
    assert there_and_back(TaskSignature(task, "task"), value) == ((value,), {})


def test_a_model_that_would_come_back_as_another_is_refused() -> None:
    def task(value: Excluding) -> None: ...

    with pytest.raises(InvalidArgumentError, match="another"):
        TaskSignature(task, "task").written((Excluding(secret=5),), {})
