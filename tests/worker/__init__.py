"""Tests of settle_mp/worker/."""
