"""Hosts for these tests."""

from tests.hosts import host
from tests.upstreams import upstream

__all__ = ["host", "upstream"]
