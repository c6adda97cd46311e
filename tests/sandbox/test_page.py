"""The usage page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

from settle_mp.sandbox.faults import Fault
from tests.sandbox.posting import batch, get, post, row

if TYPE_CHECKING:
    from tests.upstreams import Upstream


class _Seen(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_empty_page(upstream: Upstream) -> None:
    """Before anything has come it says so."""
    assert "Nothing yet." in _Seen(get(upstream, "/").text).text


def test_usage_is_shown(upstream: Upstream) -> None:
    """Event types, quantities, users, metadata, answers and standing faults can be read on it."""
    post(upstream, batch(row("user_123", quantity=1234567.5, metadata={"model": "gpt-4"})))
    upstream.fault(Fault.answering(503, times=3))
    post(upstream)
    text = _Seen(get(upstream, "/").text).text
    for expected in ("AI_QUERY", "1,234,568.5", "user_123", '{"model":"gpt-4"}', "503", "action: answer"):
        assert expected in text


def test_what_was_sent_is_escaped(upstream: Upstream) -> None:
    """Names and metadata with markup in them add no element to the page."""
    bad = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
    clean = [tag for tag, _ in _Seen(get(upstream, "/").text).tags]
    post(upstream, batch(row(bad, bad, metadata={bad: bad})))
    upstream.fault(Fault.delay(1, user_id=bad))
    seen = _Seen(get(upstream, "/").text)
    tags = [tag for tag, _ in seen.tags]
    assert "img" not in tags
    assert tags.count("script") == clean.count("script")
    assert bad in seen.text


def test_nothing_is_loaded_from_elsewhere(upstream: Upstream) -> None:
    """One file: no address of another host in it, and the browser is told to load none."""
    answer = get(upstream, "/")
    links = [
        value
        for _, names in _Seen(answer.text).tags
        for name, value in names.items()
        if name in {"src", "href"}
    ]
    assert links == ["data:,"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_long_metadata_are_cut(upstream: Upstream) -> None:
    """One event with much metadata doesn't push everything else away."""
    post(upstream, batch(row(metadata={"text": "x" * 5_000})))
    text = _Seen(get(upstream, "/").text).text
    assert "x" * 200 not in text
    assert "…" in text
