"""Tests of settle_mp/cli/."""
