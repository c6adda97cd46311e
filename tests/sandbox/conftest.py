"""A sandbox a test."""

from tests.upstreams import upstream

__all__ = ["upstream"]
