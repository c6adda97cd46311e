"""Tests of settle_mp/demo/."""
