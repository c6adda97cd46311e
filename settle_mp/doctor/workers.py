"""Live workers: what each has said of itself in its journal's header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp import journals, leftovers, statedir
from settle_mp.doctor.collector import version
from settle_mp.doctor.finding import Finding, error, ok, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from settle_mp.config import Settings
    from settle_mp.core.record import Identity

#: Descriptors that a worker needs for two sockets, beside the application's own.
DESCRIPTORS_MIN: Final = 256


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something that workers have in common.

    Attributes:
        check: What was looked at.
        is_so: Tells a worker that has it from one that has not.
        find: Makes the finding, given who has it.
    """

    check: str
    is_so: Callable[[Identity, Settings], bool]
    find: Callable[[str, Settings], Finding]


def look(settings: Settings) -> Iterator[Finding]:
    """Look at the headers of all journals that are held by a live process."""
    alive = list(identities(settings))
    if not alive:
        yield ok("workers", "none has tracked anything yet, or all have ended")
        return
    yield ok("workers", ", ".join(sorted({_called(each) for each in alive})[:10]))
    for theirs in sorted({each.facts.get("version", "older than 0.1") for each in alive}):
        yield version("workers", theirs, "restart the workers")
    for symptom in SYMPTOMS:
        ill = [_called(each) for each in alive if symptom.is_so(each, settings)]
        if ill:
            more = f" and {len(ill) - 3} more" if len(ill) > 3 else ""  # noqa: PLR2004  as many as can be read
            yield symptom.find(", ".join(ill[:3]) + more, settings)


def identities(settings: Settings) -> Iterator[Identity]:
    """What the living say of themselves."""
    for folder in statedir.producer_folders(statedir.StateDir(settings.state_dir).journals):
        try:
            if leftovers.producer_of(folder.name) is None or not statedir.is_locked(
                folder / statedir.LOCK_NAME
            ):
                continue
            identity = journals.read_header(folder).identity
        except OSError:  # gone meanwhile, or not ours to read
            continue
        if identity is not None:
            yield identity


def _called(identity: Identity) -> str:
    return f"{identity.name} on {identity.host}" if identity.host else identity.name


def _has_no_thread(identity: Identity, _: Settings) -> bool:
    return identity.facts.get("uwsgi", "").endswith("no threads")


def _has_another_mode(identity: Identity, settings: Settings) -> bool:
    return bool(identity.key_mode and settings.key_mode) and identity.key_mode != settings.key_mode


def _has_another_folder(identity: Identity, settings: Settings) -> bool:
    theirs = identity.facts.get("state_dir", "")
    # Clipped at 80 bytes; a container may have it mounted elsewhere, which is no fault.
    return bool(theirs) and not str(settings.state_dir).startswith(theirs)


def _has_few_descriptors(identity: Identity, _: Settings) -> bool:
    most = identity.facts.get("descriptors", "")
    return most.isdecimal() and int(most) < DESCRIPTORS_MIN


SYMPTOMS: Final = (
    Symptom(
        "uWSGI",
        _has_no_thread,
        lambda who, _: warning(
            "uWSGI",
            f"{who}: no threads, so the collector reads the journal itself, some seconds later, and flush() "
            "can't ask for anything",
            "add `enable-threads = true` to the uWSGI configuration",
        ),
    ),
    Symptom(
        "gevent",
        lambda identity, _: identity.facts.get("gevent") == "late",
        lambda who, _: warning(
            "gevent",
            f"{who}: patched by gevent after the first event was tracked, here or before the fork",
            "patch first: `from gevent import monkey; monkey.patch_all()` at the top of gunicorn.conf.py or "
            "the application",
        ),
    ),
    Symptom(
        "ZeroMQ",
        lambda identity, _: bool(identity.facts.get("zmq")),
        lambda who, _: warning(
            "ZeroMQ",
            f"{who}: the application's own zmq.Context was made before the fork; its sockets lose messages "
            "or hang in the child (settle-mp has a context of its own)",
            "make the application's zmq.Context after the fork, such as at first use",
        ),
    ),
    Symptom(
        "key mode",
        _has_another_mode,
        lambda who, settings: error(
            "key mode",
            f"{who}: tracks for the other kind of key than the {settings.key_mode} key here",
            "give workers and collector the same API key, or two state folders",
        ),
    ),
    Symptom(
        "state folder's name",
        _has_another_folder,
        lambda who, settings: ok(
            "state folder's name", f"{who}: calls {settings.state_dir} by another name (a container's mount?)"
        ),
    ),
    Symptom(
        "descriptors",
        _has_few_descriptors,
        lambda who, _: warning(
            "descriptors",
            f"{who}: may open fewer than {DESCRIPTORS_MIN} files; without free ones its courier waits",
            "raise the limit of open files where the workers are started (`ulimit -n 4096`)",
        ),
    ),
)
