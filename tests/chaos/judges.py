"""Judges of faults that cost events: what is lost must be what was destroyed or dropped, to the event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.chaos.fault import Settled

#: What a fault counts at its house: events that it destroys, and those that may have been sent before.
DESTROYED: Final = "events destroyed"
PERHAPS_SENT: Final = "events perhaps sent"
#: And threads that it kills where events are dropped.
THREADS_KILLED: Final = "threads killed while dropping"

#: What is said of a loss: keys that differ, and books that say so.
_OF_A_LOSS: Final = ("CHAOS_", "status does not balance")


def judge_destroyed(settled: Settled) -> list[str]:
    """What a fault destroyed is lost, no event more, and named; nothing is billed twice."""
    house, lost = settled.house, settled.verdict.lost
    destroyed, perhaps_sent = house.counts[DESTROYED], house.counts[PERHAPS_SENT]
    wrong = _besides(settled)
    if not destroyed - perhaps_sent <= lost <= destroyed:
        wrong.append(f"{lost} lost; {destroyed} were destroyed, of which {perhaps_sent} may have been sent")
    if lost and settled.status["balanced"]:
        wrong.append("the books balance though something is lost")
    return wrong


def judge_dropped(settled: Settled) -> list[str]:
    """What is lost is what `status` says was dropped, to the event; the books balance."""
    house, lost, dropped = settled.house, settled.verdict.lost, settled.status["events"]["dropped"]
    wrong = _besides(settled)
    # A call that was cut off after it had counted its event has not returned.
    if not 0 <= dropped - lost <= house.counts[THREADS_KILLED]:
        wrong.append(f"{lost} lost; {dropped} were dropped")
    if not settled.status["balanced"]:
        wrong.append(f"the books do not balance: {settled.status['faults']}")
    return wrong


def _besides(settled: Settled) -> list[str]:
    """Everything that is wrong besides the loss; what is said of that is as it should be."""
    house, verdict = settled.house, settled.verdict
    house.complaints[:] = [each for each in house.complaints if not each.startswith(_OF_A_LOSS)]
    wrong = [each for each in verdict.complaints if not each.startswith(_OF_A_LOSS)]
    return [f"{verdict.twice} twice: {verdict.complaints}", *wrong] if verdict.twice else wrong
