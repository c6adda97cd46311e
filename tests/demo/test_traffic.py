"""The traffic: every request is told by its number, and there is some of everything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from settle_mp import config
from settle_mp.demo.traffic import AI_QUERY, FLUSH_INTERVAL_S, KINDS, request, settings_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_request_is_told_by_its_number() -> None:
    """The same number gives the same request, another number another one."""
    assert request(7) == request(7)
    assert len({request(number).id for number in range(2_000)}) == 2_000


def test_there_is_some_of_everything() -> None:
    """Three event types, with metadata and without, over hundreds of users."""
    sent = [request(number) for number in range(20_000)]
    assert {each.kind for each in sent} == set(KINDS)
    assert {each.metadata is None for each in sent} == {True, False}
    assert 200 < len({each.user_id for each in sent}) <= 300


def test_the_body_is_what_the_app_needs() -> None:
    """Who, which request, and the metadata of its event."""
    asked = next(each for each in map(request, range(100)) if each.kind is AI_QUERY)
    assert json.loads(asked.body) == {"user": asked.user_id, "request_id": asked.id, **(asked.metadata or {})}


def test_the_settings_file_has_the_rules(tmp_path: Path) -> None:
    """What the verdict expects of the collector is what the collector is told."""
    path = tmp_path / "settle-mp.toml"
    path.write_text(settings_file())
    settings = config.load(config_path=path)
    assert settings.flush_interval_s == FLUSH_INTERVAL_S
    assert {
        name: (set(rule.keep), set(rule.sum), set(rule.drop)) for name, rule in settings.rules.items()
    } == {kind.event_type: (set(kind.keep), set(kind.sum), set(kind.drop)) for kind in KINDS if kind.has_rule}
