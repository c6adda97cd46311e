"""The version, for those who may not import the package itself; pyproject.toml has the same."""

from __future__ import annotations

__version__ = "0.1.0"
