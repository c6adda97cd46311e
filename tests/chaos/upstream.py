"""The upstream's faults: every way in which it, or the way to it, can be of no use, under load.

The collector's address and key stand in the settings file, so that both can be wrong and mended while it
runs; its tries end after TRY_S. Rounds that put batches in doubt or hold them end when nothing is held: an
operator looks into the sandbox's own log whether a batch was applied, as one would into the upstream's usage.
"""

from __future__ import annotations

import json
import signal
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from settle_mp.sandbox.faults import Fault
from tests import rawserver
from tests.chaos.fault import FAULTS, Settled, fault
from tests.chaos.fault import Fault as Played
from tests.chaos.traffic import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.house import House

    #: Sends the collector to an address with a key (None for the right ones), and waits until it notices.
    Wrong = Callable[..., None]  # address, key, faults
    Lead = Callable[[House, Wrong], None]

#: Seconds of a whole try, in the place of 30: a round is short.
TRY_S: Final = 1.0
#: Seconds that anything here may take.
DEADLINE_S: Final = 60.0
#: Where address and key come from the settings file.
AIMED: Final = {
    "SETTLESETTLE_BASE_URL": "",
    "SETTLESETTLE_API_KEY": "",
    "CHAOS_TRY_TIMEOUT_S": str(TRY_S),
}
PINNED: Final = {"api_key": "ss_test_right"}


def at_most_in_doubt(settled: Settled) -> list[str]:
    """Repeats are possible, and are at most what the count of doubts says; nothing is lost."""
    verdict, doubts = settled.verdict, settled.status["in_doubt_ever"]["events"]
    twice = [f"{verdict.twice} twice, {doubts} in doubt"] if verdict.twice > doubts else []
    lost = [f"{verdict.lost} lost"] if verdict.lost else []
    return [*lost, *twice, *settled.house.complaints]


# --- What rounds do ---


def aim(house: House, base_url: str | None = None, api_key: str | None = None) -> None:
    """Let the collector send elsewhere, or where it should, without a restart."""
    text = f'base_url = "{base_url or house.upstream.base_url}"\napi_key = "{api_key or PINNED["api_key"]}"\n'
    path = house.folder / "settle-mp.toml"
    if house.collector is None or path.read_text() == text + SETTINGS:
        return
    building = path.with_suffix(".new")
    building.write_text(text + SETTINGS)
    building.replace(path)  # at once, since a worker may just begin
    listening = f"pid={house.collector.pid}".encode()
    wait_so(house, lambda: listening in house.log("collector"), "the collector listens")
    house.collector.signal(signal.SIGHUP)


def wait_so(house: House, is_so: Callable[[], object], what: str) -> None:
    """Wait for a claim about the upstream or the books."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_so():
        if time.monotonic() > deadline_s:
            house.complaints.append(f"after {DEADLINE_S} s still not: {what}; {house.said('collector')}")
            return
        time.sleep(0.02)


class Log:
    """What the collectors of a house say from now on: looking at it costs nothing, and disturbs nobody."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._begin = len(house.log("collector"))

    def wait(self, name: str, times: int = 1) -> None:
        """Wait until a line of this name has come so often."""
        word = name.encode()
        wait_so(self._house, lambda: self._said().split().count(word) >= times, f"{times} {name}")

    def _said(self) -> bytes:
        return self._house.log("collector")[self._begin :]


def meet(house: House, *faults: Fault) -> None:
    """Queue faults, and wait until requests have met them all."""
    house.upstream.fault(*faults)
    wait_so(house, lambda: not house.upstream.faults(), f"{faults} are met")


def go_on(house: House) -> None:
    """Mend everything, and wait until sending goes on."""
    log = Log(house)
    house.upstream.clear_faults()
    aim(house)
    if house.collector is not None:
        house.collector.signal(signal.SIGHUP)
        log.wait("settings_reloaded")


def held(house: House) -> list[dict[str, Any]]:
    """The batches that wait for a person."""
    found: list[dict[str, Any]] = json.loads(house.command("indoubt", "list", "--json"))
    return found


def decide_by_the_log(house: House) -> None:
    """An operator settles whatever is held by what the upstream knows of it."""
    log = house.upstream.log()
    applied = {each["idempotencyKey"] for each in log if each["isApplied"]}
    for batch in held(house):
        actions = ["confirm", "retry"] if batch["idempotency_key"] in applied else ["renew"]
        action = house.random.choice(actions)
        house.command("indoubt", action, str(batch["id"]))
        house.count(action)


# --- Answers that come from the sandbox ---


def answered(name: str, what: str, *faults: Callable[[], Fault], counted: str, times: int = 2) -> None:
    """Register a fault that some requests meet, and that needs nobody to mend it."""

    def play(house: House) -> None:
        go_on(house)
        for make in faults:
            meet(house, *(make() for _ in range(times)))
        house.count(counted)
        # What was put off goes at once, or the same batch would meet all rounds, and wait longer for each.
        go_on(house)

    FAULTS[name] = Played(
        name=name,
        group="upstream",
        what=what,
        play=play,
        counted=counted,
        share=0.1,
        settings=AIMED,
        upstream=PINNED,
    )


def _in_a_second() -> str:
    return formatdate(time.time() + 1.5, usegmt=True)


answered(
    "timeout-applied",
    "read timeout after applying",
    lambda: Fault.delay(TRY_S + 0.5, when="after"),
    counted="timeout",
)
answered(
    "timeout-not-applied",
    "read timeout before applying, the request gone with it",
    lambda: Fault.reset(when="before", delay_s=TRY_S + 0.5),
    counted="timeout",
)
answered("reset-applied", "reset after applying", lambda: Fault.reset(when="after"), counted="reset")
answered(
    "reset-not-applied",
    "reset after the body was sent, not applied",
    lambda: Fault.reset(when="before"),
    counted="reset",
)
answered("500-applied", "500 after applying", lambda: Fault.answering(500, when="after"), counted="500")
answered("500-not-applied", "500 before applying", lambda: Fault.answering(500, when="before"), counted="500")
answered(
    "429",
    "429 with `Retry-After` in seconds, as a date, and without",
    lambda: Fault.answering(429, when="before", headers={"Retry-After": "1"}),
    lambda: Fault.answering(429, when="before", headers={"Retry-After": _in_a_second()}),
    lambda: Fault.answering(429, when="before"),
    counted="429",
    times=1,
)
answered(
    "503",
    "503 with `Retry-After` in seconds, as a date, and without; applied and not",
    lambda: Fault.answering(503, when="before", headers={"Retry-After": "1"}),
    lambda: Fault.answering(503, when="after", headers={"Retry-After": _in_a_second()}),
    lambda: Fault.answering(503, when="before"),
    counted="503",
    times=1,
)
answered(
    "not-json",
    "2xx with a page in HTML, applied and not",
    lambda: Fault.html(when="after"),
    lambda: Fault.html(when="before"),
    counted="HTML",
    times=1,
)
answered("drip", "an answer that drips one byte a second", lambda: Fault.drip(1.0), counted="drip", times=1)


# --- Ways that lead nowhere, until the address or the key is mended ---


def misaimed(name: str, what: str, *, counted: str, state: str) -> Callable[[Lead], Lead]:
    """Register a fault of the address or the key; the function gives what is wrong while it is played."""

    def register(lead: Lead) -> Lead:
        def play(house: House) -> None:
            go_on(house)

            def wrong(base_url: str | None, api_key: str | None, *faults: Fault) -> None:
                log = Log(house)
                if faults:
                    house.upstream.fault(*faults)
                aim(house, base_url, api_key)
                log.wait(f"upstream_{state}")
                house.count(counted)

            lead(house, wrong)
            go_on(house)

        FAULTS[name] = Played(
            name=name,
            group="upstream",
            what=what,
            play=play,
            counted=counted,
            share=0.1,
            settings=AIMED,
            upstream=PINNED,
        )
        return lead

    return register


@misaimed("refused", "connection refused", counted="refused", state="down")
def refused(_: House, wrong: Wrong) -> None:
    """Nobody listens there."""
    with rawserver.refusing_port() as port:
        wrong(f"http://127.0.0.1:{port}", None)


@misaimed("no-name", "name not found", counted="no name", state="down")
def no_name(_: House, wrong: Wrong) -> None:
    """The top-level domain is reserved for having no names (RFC 6761)."""
    wrong("http://nobody.invalid", None)


@misaimed("no-tls", "TLS failure", counted="TLS", state="down")
def no_tls(_: House, wrong: Wrong) -> None:
    """An https address of a server that speaks none."""
    with rawserver.raw_server(rawserver.knows_no_tls) as raw:
        wrong(f"https://127.0.0.1:{raw.port}", None)


@misaimed("deaf", "connect timeout", counted="connect timeout", state="down")
def deaf(_: House, wrong: Wrong) -> None:
    """Connections neither open nor fail."""
    with rawserver.deaf_port() as port:
        wrong(f"http://127.0.0.1:{port}", None)


@misaimed("401", "401 until the key is mended", counted="401", state="paused")
def unauthorized(_: House, wrong: Wrong) -> None:
    """A key that the upstream does not know."""
    wrong(None, "ss_test_wrong")


@misaimed("404", "404 until the address is mended", counted="404", state="paused")
def not_found(house: House, wrong: Wrong) -> None:
    """A path that leads nowhere."""
    wrong(f"{house.upstream.base_url}/elsewhere", None)


@misaimed("403", "403 until the account is mended", counted="403", state="paused")
def forbidden(_: House, wrong: Wrong) -> None:
    """The key is right and may not."""
    wrong(None, None, Fault.answering(403, when="before", times=None))


@misaimed("redirect", "a redirect, until the address is mended", counted="redirect", state="paused")
def redirect(_: House, wrong: Wrong) -> None:
    """It is not followed: the key would go to whoever is there."""
    wrong(None, None, Fault.redirect("https://example.invalid/", times=None))


@fault(
    "restart",
    group="upstream",
    what="SIGKILL of the upstream, and its return",
    counted="restart",
    share=0.1,
    settings=AIMED,
    upstream=PINNED,
)
def restart(house: House) -> None:
    """What was under way is reset, applied or not; then nobody listens for a while."""
    go_on(house)
    log = Log(house)
    with house.upstream_away():
        log.wait("upstream_down")
        house.count("restart")
    log.wait("upstream_ok")


# --- Refusals ---


def refusals(house: House) -> None:
    """Mend, wait until all that may have been refused is decided, and send what was refused again."""
    go_on(house)
    mended_s = time.monotonic()
    wait_so(
        house,
        lambda: house.status()["oldest_pending_age_s"] < time.monotonic() - mended_s,
        "all that came before is decided",
    )
    if house.status()["events"]["dead_lettered"]:
        house.command("deadletter", "replay", "--all")


@fault(
    "400-one",
    group="upstream",
    what="400 for one bad row in fifty; replayed when it is mended",
    counted="dead letter",
    share=0.1,
    settings=AIMED,
    upstream=PINNED,
)
def one_bad_row(house: House) -> None:
    """The guilty row is found and kept, the others are billed."""
    go_on(house)
    log = Log(house)
    house.upstream.fault(Fault.refuse(f"slot-{house.any_slot()}"))
    log.wait("events_dead_lettered")
    house.count("dead letter")
    refusals(house)


@fault(
    "400-all",
    group="upstream",
    what="400 for all: sending pauses, no batch becomes dead letters",
    counted="400",
    share=0.1,
    settings=AIMED,
    upstream=PINNED,
)
def all_bad(house: House) -> None:
    """The fault lies elsewhere when no row is taken; only a batch of one row can't show that."""
    go_on(house)
    log = Log(house)
    house.upstream.fault(Fault.answering(400, when="before", times=None))
    log.wait("upstream_paused")
    house.count("400")
    refusals(house)


@fault(
    "413-rows",
    group="upstream",
    what="413 for more than seven rows, and for more than 2,000 bytes",
    counted="413",
    share=0.1,
    settings=AIMED,
    upstream={**PINNED, "rows_max": 7, "body_bytes_max": 2_000},
)
def too_large(house: House) -> None:
    """Batches are cut until they fit."""
    aim(house)
    wait_so(house, lambda: house.upstream.requests()["byStatus"].get("413"), "413 was answered")
    house.count("413")
    house.wait_s(0.2, 0.5)


@fault(
    "refused-in-doubt",
    group="upstream",
    what="400 or 413 after a try in doubt, applied or not; an operator decides",
    counted="held",
    share=0.1,
    settings=AIMED,
    upstream=PINNED,
)
def refused_in_doubt(house: House) -> None:
    """Nobody can know by itself: it is held, and settled by what the upstream's usage shows."""
    go_on(house)
    log = Log(house)
    user = f"slot-{house.any_slot()}"
    when = house.random.choice(["before", "after"])
    status = house.random.choice([400, 413])
    # A key that is known is answered as it was: the refusal must come before that.
    house.upstream.fault(
        Fault.reset(when=when, user_id=user), Fault.answering(status, when="before", user_id=user, times=None)
    )
    log.wait("batch_held")
    house.count("held")
    go_on(house)
    decide_by_the_log(house)
    if house.status()["events"]["dead_lettered"]:
        house.command("deadletter", "replay", "--all")


# --- Keys ---


@fault(
    "key-too-old",
    group="upstream",
    what="a key that the server has forgotten by the time (`idempotency_ttl_s`); an operator decides",
    counted="held",
    share=0.1,
    settings={**AIMED, "SETTLE_MP_IDEMPOTENCY_TTL_S": "1"},
    upstream=PINNED,
)
def key_too_old(house: House) -> None:
    """A batch in doubt that waited for longer than keys are known is not sent again by itself."""
    go_on(house)
    log = Log(house)
    user = f"slot-{house.any_slot()}"
    when = house.random.choice(["before", "after"])
    wait = {"Retry-After": "2"}
    house.upstream.fault(
        Fault.reset(when=when, user_id=user),
        Fault.answering(429, when="before", user_id=user, headers=wait, times=None),
    )
    log.wait("batch_held")
    house.count("held")
    applied = {each["idempotencyKey"] for each in house.upstream.log() if each["isApplied"]}
    house.upstream.forget_keys()
    go_on(house)
    for batch in held(house):
        # A retry would be a second billing now: who knows it was applied confirms it.
        action = "confirm" if batch["idempotency_key"] in applied else "retry"
        house.command("indoubt", action, str(batch["id"]))


@fault(
    "key-forgotten",
    group="upstream",
    what="a key that the server has forgotten too early",
    counted="forgotten",
    share=0.1,
    judge=at_most_in_doubt,
    settings=AIMED,
    upstream=PINNED,
)
def key_forgotten(house: House) -> None:
    """It promised to know keys for a day."""
    go_on(house)
    meet(house, Fault.reset(when="after"))
    house.upstream.forget_keys()
    house.count("forgotten")
    go_on(house)


@fault(
    "keys-ignored",
    group="upstream",
    what="a server that ignores idempotency keys: resets, timeouts and 500 after applying and before",
    counted="doubts",
    share=0.1,
    judge=at_most_in_doubt,
    settings=AIMED,
    upstream={**PINNED, "ignores_idempotency_keys": True},
)
def keys_ignored(house: House) -> None:
    """Repeats are as many as the tries in doubt at most."""
    aim(house)
    faults = [
        Fault.reset(when="after"),
        Fault.reset(when="before"),
        Fault.answering(500, when="after"),
        Fault.delay(TRY_S + 0.5, when="after"),
    ]
    house.random.shuffle(faults)
    meet(house, *faults)
    house.count("doubts")
    go_on(house)


# --- on_in_doubt = "hold" ---

HOLDING: Final = {**AIMED, "SETTLE_MP_ON_IN_DOUBT": "hold"}


@fault(
    "hold",
    group="upstream",
    what='`on_in_doubt = "hold"`: resets and 500, applied or not; an operator retries, confirms or renews',
    counted="held",
    share=0.1,
    settings=HOLDING,
    upstream=PINNED,
)
def hold(house: House) -> None:
    """Nothing in doubt is sent again by itself; each decision bills each event once."""
    go_on(house)
    log = Log(house)
    faults = [Fault.reset(when="after"), Fault.reset(when="before"), Fault.answering(500, when="after")]
    house.random.shuffle(faults)
    meet(house, *faults)
    log.wait("batch_held", len(faults))
    house.count("held")
    decide_by_the_log(house)


@fault(
    "hold-kill",
    group="upstream",
    what='`on_in_doubt = "hold"`: SIGKILL of the collector with requests under way; an operator decides',
    counted="held",
    share=0.1,
    settings=HOLDING,
    upstream=PINNED,
)
def hold_kill(house: House) -> None:
    """What was under way is held by the next one."""
    go_on(house)
    log = Log(house)
    house.upstream.hold(when=house.random.choice(["before", "after"]))
    wait_so(house, lambda: house.upstream.held_count, "a request is held")
    house.strike(house.collector)
    house.bury(house.collector)
    house.upstream.clear_faults()
    house.start_collector()
    log.wait("batch_held")
    house.count("held")
    # Held requests that are let go may be applied only now.
    wait_so(house, lambda: not house.upstream.held_count, "nothing is under way")
    decide_by_the_log(house)
