"""What Hypothesis draws for the core's tests: anything that `pack_event` takes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from settle_mp.core.event import QUANTITY_MAX, pack_event
from settle_mp.core.metadata import RESERVED_NAME

#: Any text that UTF-8 can hold, control characters, quotes and other planes included.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)

INTS = st.integers(1, QUANTITY_MAX)
FLOATS = st.floats(1e-9, 1e12)
DECIMALS = st.decimals("1e-9", QUANTITY_MAX, places=27) | st.decimals("1e-9", QUANTITY_MAX, places=2)
QUANTITIES: st.SearchStrategy[int | float | Decimal] = st.one_of(INTS, st.integers(1, 5), FLOATS, DECIMALS)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    # Close neighbours, so that examples meet: these are one value in Python and four in JSON.
    st.sampled_from([1, 1.0, True, "1", 0, 0.0, -0.0, False, None]),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
METADATA: st.SearchStrategy[dict[str, Any] | None] = st.none() | st.dictionaries(
    TEXTS.filter(lambda name: name != RESERVED_NAME), VALUES, max_size=4
)
PAYLOADS = st.builds(pack_event, NAMES, NAMES, QUANTITIES, METADATA)


def exact(quantity: float | Decimal) -> int | Decimal:
    """What a tracked quantity counts as: a float is the decimal number that Python prints for it."""
    return Decimal(repr(quantity)) if isinstance(quantity, float) else quantity
