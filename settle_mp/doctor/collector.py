"""The running collector: is there one, does it answer, what does it say of itself and of those that wait."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, Final

from settle_mp import control, statedir
from settle_mp.core import wire
from settle_mp.doctor.finding import Finding, error, ok, warning
from settle_mp.transport import AddressError
from settle_mp.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settle_mp.config import Settings

#: How long it gets to answer, in seconds.
ASK_S: Final = 3.0
#: The share of its descriptors that may be open before it is worth a word.
DESCRIPTORS_SHARE: Final = 0.8


def ask(settings: Settings) -> dict[str, Any] | None:
    """What a running collector says of itself; None when none answers."""
    try:
        answer = control.ask(settings, lambda _: wire.Ping(), wire.Pong, timeout_s=ASK_S)
    except AddressError:  # which is a finding of its own
        return None
    if answer is None:
        return None
    try:
        said = json.loads(answer.report)
    except ValueError:  # another version's
        return {}
    return said if isinstance(said, dict) else {}


def look(settings: Settings, said: dict[str, Any] | None) -> Iterator[Finding]:
    """Judge what it says, or that it says nothing."""
    if said is None:
        yield silence(settings)
        return
    yield ok("collector", f"it answers, pid {said.get('pid', 'unknown')}")
    yield version("collector", str(said.get("version", "older than 0.1")), "restart the collector")
    if said.get("trouble"):
        yield error("ledger", str(said["trouble"]), "see the collector's log; events wait in the journals")
    if said.get("state") == "no_key":
        yield error(
            "collector's key",
            "the collector has no API key, so it collects and does not ship",
            "set SETTLESETTLE_API_KEY_FILE or SETTLESETTLE_API_KEY where it is started, and restart it; for "
            "a key in settle-mp.toml or in a file `kill -HUP` is enough",
        )
    for reason in said.get("refusals") or []:
        yield error("refused", str(reason), "as it says; the events wait in their journal")
    yield from descriptors(said)
    yield from unseen(settings, said)


def silence(settings: Settings) -> Finding:
    """Why nobody answers."""
    if statedir.is_locked(statedir.StateDir(settings.state_dir).collector_lock):
        return error(
            "collector",
            f"one has the state folder, and does not answer within {ASK_S:.0f} s",
            "see its log; give workers, commands and collector the same `endpoint`; else restart it",
        )
    start = "`settle-mp collector` (docs/hosts/systemd.md has a unit), or run_collector() in gunicorn.conf.py"
    text = "none runs: events wait in the journals, and nothing is billed"
    if settings.endpoint is not None and settings.endpoint.startswith("tcp://"):
        return error(
            "collector",
            f"none answers at {settings.endpoint}",
            f"start it there; if it runs, see its log for `stranger_turned_away`; or start {start}",
        )
    return error("collector", text, f"start {start}")


def version(what: str, theirs: str, mend: str) -> Finding:
    """Whether somebody runs the version that this command is of."""
    if theirs == __version__:
        return ok("version", f"{what} {theirs}")
    return warning("version", f"the {what} is of version {theirs}, this command of {__version__}", mend)


def descriptors(said: dict[str, Any]) -> Iterator[Finding]:
    """Whether the collector has descriptors left: libzmq aborts without."""
    try:
        used, most = (int(each) for each in said["descriptors"])
    except (KeyError, TypeError, ValueError):
        return
    text = f"the collector has {used} of {most} descriptors open"
    if used > DESCRIPTORS_SHARE * most:
        mend = "raise its limit of open files (LimitNOFILE=65536 in the unit); each worker takes two"
        yield warning("descriptors", f"{text}, and lets nobody new in when they are short", mend)
    else:
        yield ok("descriptors", text)


def unseen(settings: Settings, said: dict[str, Any]) -> Iterator[Finding]:
    """Workers of the collector's own host whose journals it does not see."""
    for each in said.get("unseen") or []:
        name, theirs = each.get("name", "a worker"), each.get("state_dir") or "another folder"
        if each.get("host") == socket.gethostname() and theirs != str(settings.state_dir):
            yield warning(
                "another state folder",
                f"{name} journals into {theirs}, the collector looks at {settings.state_dir}",
                f"set SETTLE_MP_STATE_DIR={settings.state_dir} where the worker is started, unless it is in "
                "a container with a folder of its own (docs/operating/tcp.md)",
            )
