"""What people pass and JSON does not have becomes what a reader expects, the same in every process."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import os
import subprocess
import sys
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.event import pack_event
from settle_mp.core.fold import fold_payload, json_text
from settle_mp.core.values import plain_number
from tests.core.packed import refusal, through_bytes, typed
from tests.core.strategies import VALUES

UTC = dt.timezone.utc
LAGOS = dt.timezone(dt.timedelta(hours=1))


class Tier(enum.Enum):
    """Values of any kind."""

    PRO = "pro"
    SINCE = dt.date(2026, 1, 2)
    LIMITS = (1, 2)


class Size(str, enum.Enum):
    """Text with another str()."""

    SMALL = "small"


class Flag(enum.Flag):
    """A number."""

    A = 1
    B = 2


@dataclasses.dataclass
class Model:
    """A dataclass with something of everything."""

    name: str
    price: Decimal
    tier: Tier = Tier.PRO
    tags: frozenset[str] = frozenset({"b", "a"})
    kind: ClassVar[str] = "no field"
    later: dataclasses.InitVar[int] = 0


class Answer(pydantic.BaseModel):
    """A pydantic model with the same."""

    at: dt.datetime
    cost: Decimal
    parts: list[Tier] = []
    inner: Model | None = None


class Point(NamedTuple):
    """A tuple with names is a list in JSON all the same."""

    x: int
    y: int


FORMS: list[tuple[Any, Any]] = [
    (dt.datetime(2026, 11, 22, 8, 0, tzinfo=UTC), "2026-11-22T08:00:00Z"),
    (dt.datetime(2026, 11, 22, 8, 0, 1, 500, tzinfo=LAGOS), "2026-11-22T08:00:01.000500+01:00"),
    (dt.datetime(2026, 11, 22, 8, 0), "2026-11-22T08:00:00"),  # noqa: DTZ001
    (dt.date(2026, 11, 22), "2026-11-22"),
    (dt.time(8, 30), "08:30:00"),
    (Decimal("0.10"), 0.1),
    (Decimal("12.00"), 12),
    (Decimal("1E+3"), 1000),
    (Decimal("-0.0"), 0),
    (Decimal("0.1234567890123456789"), Decimal("0.1234567890123456789")),
    (Decimal(10**30), Decimal(10**30)),
    (uuid.UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
    (Tier.PRO, "pro"),
    (Tier.SINCE, "2026-01-02"),
    (Tier.LIMITS, [1, 2]),
    (Size.SMALL, "small"),
    (Flag.A | Flag.B, 3),
    (b"gpt-4", "gpt-4"),
    ("naïve ✓\n".encode(), "naïve ✓\n"),
    (bytearray(b"text"), "text"),
    (memoryview(b"text"), "text"),
    (b"\xff\x00", "base64:/wA="),
    (b"\x00", "base64:AA=="),
    (b"", ""),
    ((1, (2,)), [1, [2]]),
    (Point(1, 2), [1, 2]),
    ({10, 9, 2.5, Decimal("2.25")}, [2.25, 2.5, 9, 10]),
    ({"b", "a", "B"}, ["B", "a", "b"]),
    (frozenset({("b", 1), ("a", 2)}), [["a", 2], ["b", 1]]),
    ({1, "1", None, b"z"}, [1, "1", "z", None]),
    (Model("m", Decimal("1.5")), {"name": "m", "price": 1.5, "tier": "pro", "tags": ["a", "b"]}),
    (
        Answer(at=dt.datetime(2026, 1, 1, tzinfo=UTC), cost=Decimal("0.1"), parts=[Tier.PRO]),
        {"at": "2026-01-01T00:00:00Z", "cost": 0.1, "parts": ["pro"], "inner": None},
    ),
    (np.int64(5), 5),
    (np.uint8(5), 5),
    (np.float64(0.1), 0.1),
    (np.float32(0.1), 0.1),
    (np.float16(0.1), 0.1),
    (np.bool_(True), True),  # noqa: FBT003
    (np.str_("text"), "text"),
    (np.bytes_(b"text"), "text"),
    (np.datetime64("2026-11-22T08:00:00.123456789"), "2026-11-22T08:00:00.123456789"),
]


@pytest.mark.parametrize(("value", "form"), FORMS, ids=lambda value: type(value).__name__)
def test_a_value_has_its_form(value: Any, form: Any) -> None:
    """In exact built-in types, at any depth."""
    metadata = through_bytes(metadata={"a": value, "b": [{"c": value}]}).metadata
    assert typed(metadata) == typed({"a": form, "b": [{"c": form}]})


@pytest.mark.parametrize(
    "value",
    [
        dt.timedelta(1),
        np.timedelta64(1, "s"),
        np.array([1, 2]),
        np.complex128(1),
        1j,
        object(),
        Model,
        Tier,
        pydantic.SecretStr("x"),
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_is_an_error_that_names_the_key(value: Any) -> None:
    """Wherever it stands, in a model as well; what it says is not repeated, as it may be a secret."""
    message = refusal(TypeError, metadata={"a": {"b": [0, value]}})
    assert message.startswith("metadata['a']['b'][1] must be what JSON has")
    assert refusal(TypeError, metadata={"m": Point(1, value)}).startswith("metadata['m'][1] must be")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Decimal("NaN"), "must be a finite number, not Decimal('NaN')"),
        (Decimal("sNaN"), "must be a finite number"),
        (Decimal("-Infinity"), "must be a finite number"),
        (Decimal("1E+309"), "must be a Decimal of at most 50 digits between 1E-324 and 1E308"),
        (Decimal("1E+999999999"), "must be a Decimal of at most 50 digits"),
        (Decimal("1E-325"), "must be a Decimal of at most 50 digits"),
        (Decimal("1" * 51), "must be a Decimal of at most 50 digits"),
        (np.float32("nan"), "must be a finite number, not nan"),
    ],
)
def test_numbers_that_can_not_be_are_refused(value: Any, words: str) -> None:
    """By key, at once, whatever their exponent."""
    assert refusal(ValueError, metadata={"a": {"b": value}}).startswith(f"metadata['a']['b'] {words}")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=20) | st.decimals("-1e30", "1e30"))
def test_a_decimal_is_carried_exactly_and_as_json_reads_it(value: Decimal) -> None:
    """As an int or a float where that is exact, and with every digit where it is not."""
    try:
        plain = plain_number(value)
    except ValueError:
        assert len(value.as_tuple().digits) > 50
        return
    assert Fraction(value) == Fraction(repr(plain) if isinstance(plain, float) else plain)
    assert Fraction(json.loads(json_text({"a": plain}), parse_float=Decimal)["a"]) == Fraction(value)
    folded = fold_payload(pack_event("u", "E", 1, {"a": value}), {})
    assert folded.key.metadata == json_text({"a": plain})


def test_the_applications_decimal_context_changes_nothing() -> None:
    """Neither its precision nor its traps."""
    value = Decimal("0.12345678901234567890")
    with decimal.localcontext(decimal.Context(prec=1, traps=[decimal.Inexact, decimal.FloatOperation])):
        assert through_bytes(metadata={"a": value, "b": {value, 1, 0.5}}).metadata == {
            "a": value,
            "b": [value, 0.5, 1],
        }


def test_equal_numbers_are_one_key() -> None:
    """What is written the same is the same: 1.50 and 1.5, a whole Decimal and an int."""
    keys = [
        fold_payload(pack_event("u", "E", 1, {"a": value}), {}).key
        for value in (Decimal("1.50"), Decimal("1.5"), 1.5, np.float32(1.5))
    ]
    assert len(set(keys)) == 1


def test_a_model_inside_of_a_model() -> None:
    """Dataclasses and pydantic models hold each other; pydantic gives the inner one as a dict."""
    answer = Answer(at=dt.datetime(2026, 1, 1, tzinfo=UTC), cost=Decimal(1), inner=Model("m", Decimal("0.5")))
    metadata = through_bytes(metadata={"a": answer}).metadata
    assert metadata is not None
    assert metadata["a"]["inner"] == {"name": "m", "price": 0.5, "tier": "pro", "tags": ["a", "b"]}
    assert metadata["a"]["cost"] == 1


def test_forms_nest_no_deeper_than_anything_else() -> None:
    """A dataclass that holds itself ends at the depth limit, an Enum that stands for itself at once."""

    @dataclasses.dataclass
    class Circle:
        inner: Any = None

    circle = Circle()
    circle.inner = circle
    assert "16 levels" in refusal(ValueError, metadata={"a": circle})

    class Mirror(enum.Enum):
        SELF = 1

        @property
        def value(self) -> Any:
            return self

    assert "not Mirror" in refusal(TypeError, metadata={"a": Mirror.SELF})


SETS = """
import datetime, enum, uuid
from decimal import Decimal
from settle_mp.core.event import pack_event

class Tier(enum.Enum):
    A = "a"; B = "b"; C = "c"

words = {f"word-{n}" for n in range(50)}
mixed = {1, 2.5, "x", None, *Tier, uuid.UUID(int=1), datetime.date(2026, 1, 1), b"q", (1, "t")}
nested = {frozenset({frozenset({"a", "b", "c"}), frozenset({"d", "e"})}), frozenset({"f", "g"})}
print(pack_event("u", "E", 1, {"words": words, "mixed": mixed, "nested": nested}).hex())
"""


def test_it_is_the_same_in_every_process() -> None:
    """Hashes, and with them the order of sets, differ from process to process; time zones may."""
    found = set()
    for seed in ("0", "1", "77"):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "TZ": f"XXX{int(seed) % 12}"}
        done = subprocess.run([sys.executable, "-c", SETS], env=environ, capture_output=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


@given(
    st.sets(
        st.integers() | st.text(max_size=3) | st.floats(allow_nan=False, allow_infinity=False), max_size=6
    )
)
def test_a_set_is_a_list_of_what_is_in_it(values: set[Any]) -> None:
    """Nothing is lost, and the order says nothing about the set's own."""
    try:
        listed = through_bytes(metadata={"a": values}).metadata
    except ValueError as error:
        assert "must be an int from" in str(error) or "surrogate" in str(error)  # noqa: PT017
        return
    assert listed is not None
    assert set(listed["a"]) == values


@given(VALUES)
def test_what_json_has_is_left_alone(value: Any) -> None:
    """Values that need no form come back as they are."""
    assert typed(through_bytes(metadata={"a": value}).metadata) == typed({"a": value})
