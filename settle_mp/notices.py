"""Notices: what is logged when something is off, what it means for the bill, and what to do about it.

Each has a fixed name, a reason that says what happened, and the two texts below. A text given where it is
logged, with figures in it, takes the place of the one here.

Rule: `docs/operating/when-something-is-off.md` has a row for each, with the same texts.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long the same kind of trouble is not logged again, in seconds.
TELL_AGAIN_S: Final = 60.0


class Notice(NamedTuple):
    """What a line of the log means."""

    bill: str
    mend: str


_KEPT: Final = "nothing is lost: journals keep all events"
_KEPT_WHILE_THEY_GROW: Final = (
    "journals keep all events for as long as they can grow; what workers drop then, `settle-mp status` counts"
)
_UNTOUCHED: Final = "none"
_BY_ITSELF: Final = "none is needed; it is tried again by itself"

NOTICES: Final[Mapping[str, Notice]] = {
    # The collector, about the upstream.
    "no_api_key": Notice(
        "events are collected and kept, nothing is billed",
        "set api_key or api_key_file in settle-mp.toml, then SIGHUP; or SETTLESETTLE_API_KEY, then restart",
    ),
    "upstream_down": Notice("events are kept, and billed when it is back", _BY_ITSELF),
    "upstream_paused": Notice(
        "events are kept, and billed once it is mended",
        "mend what the reason names; then wait, or send SIGHUP",
    ),
    "batch_in_doubt": Notice(
        "they may have been billed; sent again with the same key, they are billed once where the upstream "
        "honours idempotency keys, and may be billed twice where it does not",
        "none is needed where it honours them; else set on_in_doubt to hold and decide yourself",
    ),
    "batch_held": Notice(
        "its events may or may not have been billed",
        "look at `settle-mp indoubt list`, then retry, renew, confirm or discard it",
    ),
    "batch_divided": Notice(
        "its rows are billed in smaller batches", "lower batch_rows_max if this goes on: it costs requests"
    ),
    "batch_damaged": Notice(
        "it is held and not sent; its events may or may not have been billed",
        "check the disk; then `settle-mp indoubt confirm` or `discard` it",
    ),
    "events_dead_lettered": Notice(
        "its events are not billed", "look at `settle-mp deadletter list`, then replay or discard them"
    ),
    "events_refused": Notice(
        "they are dead letters and not billed",
        "mend the code or the metadata rule, then `settle-mp deadletter replay` or `discard` them",
    ),
    "delivery_defect": Notice(
        "the batch is in doubt, and treated so", "report it, with the lines around this one"
    ),
    # The collector, about itself.
    "settings_not_reloaded": Notice(
        "events go on as before", "mend the setting that the reason names, and send SIGHUP again"
    ),
    "collector_not_listening": Notice(_KEPT, "raise the hard limit of open files of the collector"),
    "ledger_failed": Notice(
        _KEPT_WHILE_THEY_GROW, "free space on the disk, or check it; it is tried again by itself"
    ),
    "ledger_not_read": Notice(_KEPT_WHILE_THEY_GROW, "check the disk; it is tried again by itself"),
    "ledger_put_aside": Notice(
        "events that it had taken and not shipped are not billed",
        "look at it in the quarantine; then `settle-mp residue acknowledge`",
    ),
    "stranger_turned_away": Notice(
        "a worker that is not admitted keeps its events",
        "put its public key into the collector's keys folder, if it is one of yours, and send SIGHUP",
    ),
    # The collector, about workers and their journals.
    "metadata_defeat_folding": Notice(
        "none: each event is a row of its own", "take up the rule, if those metadata tell nothing apart"
    ),
    "producer_refused": Notice(
        "its events wait in its journal, and are not billed meanwhile", "do what the reason says"
    ),
    "frame_refused": Notice(
        "what no worker of yours has sent is not billed; a worker sends again what is not acknowledged",
        "find out who writes to the collector's socket, if the count in `settle-mp status` goes up",
    ),
    "header_not_written": Notice(_UNTOUCHED, "check the rights and the space of the state folder"),
    "journal_not_read": Notice(
        "its events wait in it, and are not billed meanwhile", "check its rights and the disk"
    ),
    "journals_not_listed": Notice(
        "what dead workers left waits there", "check the rights of the folder, and the disk"
    ),
    "journal_not_removed": Notice(
        "none: what is in it is committed, and not taken again", "check the rights of the folder"
    ),
    "journal_damaged": Notice(
        "events in the damaged bytes are not billed, all others are",
        "check the disk; then `settle-mp residue acknowledge`",
    ),
    # Workers.
    "events_dropped": Notice(
        "dropped events are not billed; `settle-mp status` counts them",
        "start the collector, or raise the bound that the reason names",
    ),
    "event_refused": Notice(
        "it is not billed; `settle-mp status` counts it as dropped", "mend the call that the reason names"
    ),
    "event_type_ill_named": Notice(_UNTOUCHED, "name it like AI_QUERY"),
    "journal_not_durable": Notice(
        "events are kept in memory until the collector has them; a killed worker loses what it still had",
        "give the worker's user a state folder on a local disk that it can write",
    ),
    "events_in_memory": Notice(
        "they are gone, not billed and in no count, when the process ends before a collector has taken them",
        "start the collector, and give the worker's user a state folder that it can write",
    ),
    "courier_not_started": Notice(
        "none: the collector reads the journal itself, some seconds later", _UNTOUCHED
    ),
    "courier_failed": Notice("none: events stay in the journal, and it begins again", _BY_ITSELF),
    "courier_waits": Notice("none: events stay in the journal", "raise `ulimit -n` of the worker"),
    "collector_not_heard": Notice(
        "nothing is lost: events stay in the journal, and are billed once a collector runs",
        "start `settle-mp collector` on this state folder",
    ),
    "collector_refuses": Notice(
        "events stay in the journal, and are not billed meanwhile", "do what the reason says"
    ),
    "collector_asks_for_the_past": Notice(
        "events stay in the journal; what it asks for was acknowledged before",
        "look at the collector's log: its ledger may be another or an older one",
    ),
    "journal_not_carried": Notice(
        "what a dead worker of this host left stays there, and is not billed meanwhile",
        "do what the reason says; the next worker here tries again",
    ),
    "heir_failed": Notice("none: the journals of the dead have everything", _BY_ITSELF),
    "wallet_call_in_doubt": Notice(
        "the credits may or may not have moved",
        "ask again with the same idempotency_key, or look at the history",
    ),
    # Who runs the collector as a child.
    "collector_not_spawned": Notice(_KEPT, "mend what the reason names; it is tried again by itself"),
    "collector_died": Notice(_KEPT, "look at its last lines; it is started again by itself"),
    "collector_killed": Notice("none: what it had under way is in doubt, and treated so", _UNTOUCHED),
    "collector_not_started": Notice(
        _KEPT, "mend what the reason names, or run `settle-mp collector` by itself"
    ),
    "collector_not_ended": Notice("none: it goes on to its own end", _UNTOUCHED),
}


def notice(name: str, reason: str, **more: object) -> dict[str, object]:
    """The `extra=` of a line of the log.

    Args:
        name: The line's event name.
        reason: What happened.
        more: Further fields; `bill` and `mend` with figures in them take the place of the texts above.
    """
    known = NOTICES.get(name)
    texts: dict[str, object] = {} if known is None else known._asdict()
    return {"reason": reason, **texts, **more}


class Teller:
    """Logs each kind of trouble, and again only after a while: it may come with every batch."""

    def __init__(self, log: logging.Logger, again_s: float = TELL_AGAIN_S) -> None:
        self._log = log
        self._again_s = again_s
        self._not_before_s: dict[str, float] = {}

    def tell(self, name: str, reason: str, *, level: int = logging.WARNING, **more: object) -> None:
        """Log a line, unless one of its name came a moment ago."""
        now_s = time.monotonic()
        if now_s >= self._not_before_s.get(name, float("-inf")):
            self._not_before_s[name] = now_s + self._again_s
            self._log.log(level, name, extra=notice(name, reason, **more))
