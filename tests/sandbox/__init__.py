"""Tests of settle_mp/sandbox/."""
