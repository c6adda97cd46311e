"""Tests of settle_mp/collector/."""
