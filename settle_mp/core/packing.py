"""msgpack with exact decimals: how an event's values look as bytes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgpack

#: msgpack's extension code for a Decimal, written as its decimal string.
DECIMAL_CODE: Final = 1
#: Bytes of a Decimal's string: 50 digits, a sign, a point and an exponent take 57.
DECIMAL_BYTES_MAX: Final = 64


def pack(value: object) -> bytes:
    """Encode plain values and Decimals."""
    packed: bytes = msgpack.packb(value, default=_pack_decimal)
    return packed


def unpack(data: bytes) -> Any:
    """The inverse of `pack`; raises whatever msgpack does for bytes that are none."""
    return msgpack.unpackb(data, ext_hook=_unpack_ext, strict_map_key=True)


def _pack_decimal(value: object) -> msgpack.ExtType:
    return msgpack.ExtType(DECIMAL_CODE, str(value).encode())


def _unpack_ext(code: int, data: bytes) -> Decimal:
    if code != DECIMAL_CODE or len(data) > DECIMAL_BYTES_MAX:
        msg = f"unknown extension {code}"
        raise ValueError(msg)
    return Decimal(data.decode("ascii"))
