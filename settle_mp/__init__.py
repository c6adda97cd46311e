"""Usage events from prefork servers, counted exactly once."""

__version__ = "0.1.0"
