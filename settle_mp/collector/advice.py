"""What `status` advises: the rules that would mend metadata which defeat folding."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from settle_mp.core.rules import MetadataRule
from settle_mp.core.unfolded import Unfolded, proposed_rule, rule_text

if TYPE_CHECKING:
    from collections.abc import Mapping


def advise(listed: object, rules: Mapping[str, MetadataRule]) -> list[dict[str, Any]]:
    """By event type: what defeats folding, and the rule with which it would not.

    Args:
        listed: What the running collector says of it; one of another version may say something else.
        rules: The rules as the settings have them now.
    """
    by_type: dict[str, list[Unfolded]] = {}
    with contextlib.suppress(TypeError):
        for each in listed if isinstance(listed, list) else ():
            unfolded = Unfolded(**each)
            by_type.setdefault(unfolded.event_type, []).append(unfolded)
    return [_advice(kind, found, rules.get(kind, MetadataRule())) for kind, found in by_type.items()]


def _advice(event_type: str, found: list[Unfolded], rule: MetadataRule) -> dict[str, Any]:
    return {
        "event_type": event_type,
        "metadata": [{"name": each.name, "share": each.share} for each in found],
        "rule": rule_text(event_type, proposed_rule(rule, found)),
    }
