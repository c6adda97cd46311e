"""Tests of settle_mp/core/."""
