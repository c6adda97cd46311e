"""The groups of faults: importing this registers them all, in the order of the table."""

from __future__ import annotations

from tests.chaos import bounds, disk, hostile, kills, upstream

__all__ = ["bounds", "disk", "hostile", "kills", "upstream"]
