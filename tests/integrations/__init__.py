"""Tests of settle_mp/integrations/."""
