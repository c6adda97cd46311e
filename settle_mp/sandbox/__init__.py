"""A local stand-in for the upstream API."""
