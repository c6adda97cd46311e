"""Decisions: what a person may say about held batches, dead letters and residues; what that does to the bill.

Rule 1: a retry keeps key and bytes (D2); only who says that nothing was applied may have a new key.
Rule 2: what is discarded stays in the books, under its own name.
Rule 3: no clock and no log; callers pass what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from settle_mp.core.fold import fold_payload
from settle_mp.core.window import HOUR_S, Draft, Window, draft_batches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from settle_mp.core.rules import MetadataRule

#: A dead letter goes out again, under a new key (D3).
REPLAY: Final = "replay"
#: A dead letter is given up.
DROP: Final = "drop"
#: A held batch is sent once more, with its key and bytes.
RETRY: Final = "retry"
#: A held batch was not applied, a person says: it is sent like a new one, under a new key.
RENEW: Final = "renew"
#: A held batch was applied, a person says.
CONFIRM: Final = "confirm"
#: A held batch is given up: never sent again, whether it was applied or not.
DISCARD: Final = "discard"
#: A residue is known to a person.
ACKNOWLEDGE: Final = "acknowledge"

LETTER_ACTIONS: Final = frozenset({REPLAY, DROP})
BATCH_ACTIONS: Final = frozenset({RETRY, RENEW, CONFIRM, DISCARD})
RESIDUE_ACTIONS: Final = frozenset({ACKNOWLEDGE})
ACTIONS: Final = LETTER_ACTIONS | BATCH_ACTIONS | RESIDUE_ACTIONS

#: What each does to the bill, in words for a person.
BILL: Final[Mapping[str, str]] = {
    REPLAY: "they are billed when the upstream accepts them",
    DROP: "they are not billed; the books count them as dropped",
    RETRY: "they are billed once where the upstream still knows the batch's key; where it does not, twice if "
    "an earlier try was applied",
    RENEW: "they are billed when the upstream accepts them, twice if an earlier try was applied after all",
    CONFIRM: "the books count them as billed",
    DISCARD: "nothing more is sent; they are billed only if an earlier try was applied, and the books count "
    "them as dropped",
    ACKNOWLEDGE: "the bill stays as it is, without what was destroyed; it is no fault of the books any more",
}


def draft_of_event(payload: bytes, hour: int, rules: Mapping[str, MetadataRule], *, annotate: bool) -> Draft:
    """An event that was refused at intake, as a batch of its own under the rules in force now.

    Raises:
        InvalidEventError: It still is no valid event.
    """
    window = Window(hour)
    # When in that hour it was tracked is not kept with a dead letter.
    window.reach(float(hour * HOUR_S))
    window.reach(float((hour + 1) * HOUR_S - 1))
    window.add([(fold_payload(payload, rules), 1)])
    (draft,) = draft_batches(window, rows_max=1, is_annotated=annotate)
    return draft
