"""Idempotency and misbehaviour on the way of a write, over real HTTP."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from settle_mp.sandbox.faults import Fault
from tests.sandbox.posting import batch, error_of, get, post, row
from tests.upstreams import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstreams import Upstream


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for clients that wait."""
    with ThreadPoolExecutor(8) as running:
        yield running


class TestIdempotency:
    """Keys, as draft-ietf-httpapi-idempotency-key-header-07 has them."""

    def test_same_key_and_body_get_the_stored_answer(self, upstream: Upstream) -> None:
        """A repeat is answered alike, says that it is one, and applies nothing."""
        first, second = post(upstream, key="k"), post(upstream, key="k")
        assert (first.status_code, first.content) == (second.status_code, second.content)
        assert "idempotency-replayed" not in first.headers
        assert second.headers["idempotency-replayed"] == "true"
        assert upstream.usage()["AI_QUERY"].rows_count == 1
        assert upstream.requests()["replayed"] == 1

    def test_without_a_key_every_request_counts(self, upstream: Upstream) -> None:
        """No key, no deduplication; nor between keys."""
        post(upstream)
        post(upstream)
        post(upstream, key="a")
        post(upstream, key="b")
        assert upstream.quantity() == 4

    def test_refusals_are_stored_too(self, upstream: Upstream) -> None:
        """What was refused stays refused under its key, byte for byte, even once it would be taken."""
        upstream.fault(Fault.refuse("u1"))
        first = post(upstream, key="k")
        upstream.clear_faults()
        second = post(upstream, key="k")
        assert (first.status_code, second.status_code) == (400, 400)
        assert first.content == second.content
        assert second.headers["idempotency-replayed"] == "true"
        assert post(upstream, key="fresh").status_code == 200

    def test_another_body_under_a_key_is_422(self, upstream: Upstream) -> None:
        """The fingerprint is over the exact bytes: even a space makes another body."""
        post(upstream, key="k")
        answer = post(upstream, batch() + b" ", key="k")
        assert answer.status_code == 422
        error_of(answer)
        assert post(upstream, batch(), key="k", path="/v1/events").status_code == 422
        assert upstream.quantity() == 1

    def test_a_key_in_progress_is_409(self, upstream: Upstream, pool: ThreadPoolExecutor) -> None:
        """While the first is at work a repeat gets 409, another body 422, and it meets no fault."""
        upstream.hold(when="before")
        first = pool.submit(post, upstream, key="k")
        upstream.wait_held(1)
        repeat = post(upstream, key="k")
        assert repeat.status_code == 409
        error_of(repeat)
        assert post(upstream, batch(row(quantity=2)), key="k").status_code == 422
        assert upstream.release() == 1
        assert first.result().status_code == 200
        assert post(upstream, key="k").headers["idempotency-replayed"] == "true"
        assert upstream.quantity() == 1

    def test_an_unquoted_key_is_400(self, upstream: Upstream) -> None:
        """The header is a structured string; anything else is refused and applies nothing."""
        answer = post(upstream, headers={"Idempotency-Key": "bare"})
        assert answer.status_code == 400
        assert list(error_of(answer)["data"]["fields"]) == ["Idempotency-Key"]
        assert upstream.rows() == []

    def test_forgotten_keys_apply_again(self, upstream: Upstream) -> None:
        """A server forgets its keys after a while, and then a repeat counts."""
        post(upstream, key="k")
        assert upstream.forget_keys() == 1
        assert "idempotency-replayed" not in post(upstream, key="k").headers
        assert upstream.quantity() == 2

    def test_keys_can_be_ignored(self) -> None:
        """Told to ignore keys, it applies every repeat and takes any header."""
        with sandbox(ignores_idempotency_keys=True) as upstream:
            assert [post(upstream, key="k").status_code for _ in range(2)] == [200, 200]
            assert post(upstream, headers={"Idempotency-Key": "bare"}).status_code == 200
            assert upstream.quantity() == 3
            assert upstream.rows()[0].idempotency_key is None
            assert upstream.log()[0]["idempotencyKey"] == "k"

    def test_a_stampede_under_one_key_counts_once(self, upstream: Upstream, pool: ThreadPoolExecutor) -> None:
        """Repeats that race are applied once, and each is answered 200 or 409."""
        racing = [pool.submit(post, upstream, key="k") for _ in range(40)]
        assert {each.result().status_code for each in racing} <= {200, 409}
        assert upstream.quantity() == 1


class TestFaults:
    """What it can be told to do wrong."""

    def test_a_status_before_applies_nothing(self, upstream: Upstream) -> None:
        """The answer is as told, with its headers; nothing is applied, and the key stays fresh."""
        upstream.fault(Fault.answering(429, when="before", headers={"Retry-After": "7"}))
        answer = post(upstream, key="k")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        error_of(answer)
        assert upstream.rows() == []
        assert "idempotency-replayed" not in post(upstream, key="k").headers
        assert upstream.quantity() == 1

    def test_a_status_after_has_applied(self, upstream: Upstream) -> None:
        """The client sees an error, the rows are there, and the repeat replays the true answer."""
        upstream.fault(Fault.answering(503, times=2))
        assert post(upstream, key="k").status_code == 503
        assert post(upstream, key="k").status_code == 503
        assert post(upstream, key="k").headers["idempotency-replayed"] == "true"
        assert upstream.quantity() == 1

    def test_a_stored_status_is_replayed(self, upstream: Upstream) -> None:
        """Some servers keep refusals that were not the request's fault; it does so when told."""
        upstream.fault(Fault.answering(403, when="before", is_stored=True))
        assert [post(upstream, key="k").status_code for _ in range(2)] == [403, 403]
        assert post(upstream, key="fresh").status_code == 200
        assert upstream.quantity() == 1

    @pytest.mark.parametrize(("when", "units"), [("before", 0), ("after", 1)])
    def test_a_reset_is_a_reset(self, upstream: Upstream, when: str, units: int) -> None:
        """The client's socket reports ECONNRESET, not an ordinary end; applied only where told so."""
        upstream.fault(Fault.reset(when=when))
        with pytest.raises(httpx.ReadError) as caught:
            post(upstream, key="k")
        assert _os_error(caught.value) is ConnectionResetError
        assert upstream.quantity() == units
        assert upstream.requests()["byStatus"] == {"reset": 1}
        assert post(upstream, key="k").status_code == 200
        assert upstream.quantity() == 1

    def test_a_held_answer_comes_when_released(self, upstream: Upstream, pool: ThreadPoolExecutor) -> None:
        """Held after applying: the rows are there, the answer is not, until it is released."""
        upstream.hold()
        waiting = [pool.submit(post, upstream, key=f"k{n}") for n in range(3)]
        upstream.wait_held(3)
        assert upstream.quantity() == 3
        assert not any(each.done() for each in waiting)
        assert upstream.requests()["ended"] == 0
        assert upstream.release() == 3
        assert [each.result().status_code for each in waiting] == [200, 200, 200]
        assert post(upstream).status_code == 200

    def test_a_client_that_goes_is_applied_all_the_same(self, upstream: Upstream) -> None:
        """A request held before applying is applied on release although its client has timed out."""
        upstream.hold(when="before")
        with pytest.raises(httpx.ReadTimeout):
            post(upstream, key="k", timeout=2.0)
        assert upstream.rows() == []
        assert upstream.held_count == 1
        upstream.release()
        upstream.wait_quantity(1)
        assert post(upstream, key="k").headers["idempotency-replayed"] == "true"

    @pytest.mark.parametrize(("when", "units"), [("before", 0), ("after", 1)])
    def test_a_delay_is_where_it_was_told(self, upstream: Upstream, when: str, units: int) -> None:
        """A client that gives up during the delay finds its rows applied, or not yet."""
        upstream.fault(Fault.delay(30, when=when))
        with pytest.raises(httpx.ReadTimeout):
            post(upstream, key="k", timeout=2.0)
        assert upstream.quantity() == units

    def test_a_delay_ends(self, upstream: Upstream) -> None:
        """After its delay the request goes on as if nothing were."""
        upstream.fault(Fault.delay(0.2))
        began = time.monotonic()
        assert post(upstream).status_code == 200
        assert time.monotonic() - began >= 0.2

    def test_an_answer_drips(self, upstream: Upstream) -> None:
        """The head comes at once, the body byte by byte, and complete in the end."""
        upstream.fault(Fault.drip(0.01))
        headers = {"X-API-Key": upstream.api_key}
        url = upstream.base_url + "/v1/events/batch"
        with httpx.stream("POST", url, content=batch(), headers=headers, trust_env=False) as got:
            pieces = list(got.iter_raw())
        assert b"".join(pieces) == b'{"data":{"accepted":1}}'
        assert len(pieces) > 5

    def test_a_dripping_answer_ends_with_its_client(
        self, upstream: Upstream, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A client that goes ends the drip, so that none is left when the sandbox ends."""
        upstream.fault(Fault.drip(30))
        with pytest.raises(httpx.ReadTimeout):
            post(upstream, timeout=2.0)
        upstream.stop()
        # The server says so when it has to cancel what does not end.
        assert caplog.records == []

    def test_a_page_instead_of_json(self, upstream: Upstream) -> None:
        """A proxy's page comes with 200, although the rows were applied."""
        upstream.fault(Fault.html())
        answer = post(upstream)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html"
        assert answer.text.startswith("<!doctype html>")
        assert upstream.quantity() == 1

    def test_a_redirect(self, upstream: Upstream) -> None:
        """The client is sent elsewhere, and nothing was applied."""
        upstream.fault(Fault.redirect("https://elsewhere.example/v1"))
        answer = post(upstream)
        assert (answer.status_code, answer.headers["location"]) == (307, "https://elsewhere.example/v1")
        assert answer.content == b""
        assert upstream.rows() == []

    def test_the_rows_of_one_user_are_refused(self, upstream: Upstream) -> None:
        """Batches with a row of that user are refused, rows named; others meet later faults or pass."""
        upstream.fault(Fault.refuse("bad"), Fault.answering(503, when="before"))
        refused = post(upstream, batch(row("good"), row("bad"), row("bad")))
        assert refused.status_code == 400
        assert list(error_of(refused)["data"]["fields"]) == ["events[1].userId", "events[2].userId"]
        assert post(upstream, batch(row("good"))).status_code == 503
        assert post(upstream, batch(row("good"))).status_code == 200
        assert post(upstream, batch(row("bad"))).status_code == 400
        assert upstream.quantity() == 1

    def test_reading_meets_faults_too(self, upstream: Upstream) -> None:
        """A fault of a path meets only that, and the summary can fail like anything else."""
        upstream.fault(Fault.answering(500, path="/v1/events/summary"))
        assert post(upstream).status_code == 200
        assert get(upstream, "/v1/events/summary?userId=u").status_code == 500
        assert get(upstream, "/v1/events/summary?userId=u").status_code == 200

    def test_the_end_does_not_wait_for_who_waits(
        self, upstream: Upstream, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
    ) -> None:
        """At the end, held and delayed requests are cut off, and what was not applied never is."""
        upstream.fault(Fault.hold(when="before", times=1), Fault.delay(3_000, when="before"))
        waiting = [pool.submit(post, upstream, key=f"k{n}") for n in range(2)]
        upstream.wait_requests(2)
        upstream.wait_held(1)
        upstream.stop()
        for each in waiting:
            with pytest.raises(httpx.TransportError):
                each.result()
        assert caplog.records == []
        upstream.start()
        assert upstream.rows() == []


def test_a_keep_alive_connection_survives_refusals(upstream: Upstream) -> None:
    """Refusals, too large bodies among them, do not cost the client its connection."""
    headers = {"X-API-Key": upstream.api_key}
    with httpx.Client(base_url=upstream.base_url, headers=headers, trust_env=False) as client:
        statuses = [
            client.post("/v1/events/batch", content=body).status_code
            for body in (b"{", b" " * (2**20 + 1), batch())
        ]
    assert statuses == [400, 413, 200]


def test_the_event_loop_is_not_held_up(upstream: Upstream, pool: ThreadPoolExecutor) -> None:
    """While many requests are held, others are served."""
    upstream.hold(user_id="held")
    gate = threading.Barrier(7)

    def held(number: int) -> int:
        gate.wait(20)
        return post(upstream, batch(row("held")), key=f"h{number}").status_code

    waiting = [pool.submit(held, number) for number in range(7)]
    upstream.wait_held(7)
    assert post(upstream, batch(row("free"))).status_code == 200
    upstream.release()
    assert {each.result() for each in waiting} == {200}


def _os_error(error: BaseException) -> type[object]:
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return type(found)
