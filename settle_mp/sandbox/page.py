"""The usage page, for people: `page.html` with what is known now put in; nothing is loaded from elsewhere.

Rule 1: whatever came from a request is escaped.
"""

from __future__ import annotations

import html
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from settle_mp.sandbox import usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from settle_mp.sandbox.pipeline import Sandbox

#: Rows shown.
LATEST_ROWS: Final = 12
#: Characters of metadata shown.
METADATA_CHARS_MAX: Final = 160
# The page's own style and script, and nothing from elsewhere.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:"
)

_NOW: Final = "<!-- now -->"
_PAGE: Final = resources.files("settle_mp.sandbox").joinpath("page.html").read_text(encoding="utf-8")


def response(sandbox: Sandbox) -> Response:
    """Make the page as it is now."""
    body = _PAGE.replace(
        _NOW, _overview(sandbox) + _types(sandbox) + _requests(sandbox) + _latest(sandbox), 1
    )
    headers = {
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-store",
        "content-security-policy": _POLICY,
    }
    return Response(body, headers=headers)


def _overview(sandbox: Sandbox) -> str:
    totals = usage.totals(sandbox.store)
    figures = {
        "Rows applied": totals["rows"],
        "Requests that applied any": totals["requests"],
        "Requests since start": sandbox.log.received_count,
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{count:,}</dd></div>" for name, count in figures.items())
    return f"<section><dl>{listed}</dl></section>"


def _types(sandbox: Sandbox) -> str:
    rows = [
        (
            f"<code>{_escaped(name)}</code>",
            _quantity(each["quantity"]),
            f"{each['rows']:,}",
            f"{each['requests']:,}",
        )
        for name, each in usage.by_type(sandbox.store).items()
    ]
    return _section(
        "Usage", ("Event type", "Quantity", "Rows", "Requests"), rows, "Nothing yet.", numbers_from=1
    )


def _latest(sandbox: Sandbox) -> str:
    rows = [
        (
            f"<code>{_escaped(str(received_at)[11:19])}</code>",
            f"<code>{_escaped(user_id)}</code>",
            f"<code>{_escaped(event_type)}</code>",
            _quantity(quantity),
            f'<code class="long">{_escaped(_short(metadata))}</code>',
        )
        for received_at, user_id, event_type, quantity, metadata in usage.latest_rows(
            sandbox.store, LATEST_ROWS
        )
    ]
    heads = ("Time (UTC)", "User", "Event type", "Quantity", "Metadata")
    return _section("Latest rows", heads, rows, "Nothing yet.")


def _requests(sandbox: Sandbox) -> str:
    counts = sandbox.log.counts()["byStatus"]
    rows = [
        (f'<span class="{_tone(status)}">{status}</span>', f"{count:,}") for status, count in counts.items()
    ]
    if sandbox.faults.held_count:
        rows.append(("held", f"{sandbox.faults.held_count:,}"))
    answers = _section("Answers", ("Status", "Requests"), rows, "No requests yet.", numbers_from=1)
    faults = [
        (
            f'<code class="long">{_escaped(_told(each["fault"]))}</code>',
            "until cleared" if each["left"] is None else each["left"],
        )
        for each in sandbox.faults.standing()
    ]
    if not faults:
        return answers
    return answers + _section("Faults it was told", ("Fault", "Requests left"), faults, "", numbers_from=1)


def _section(
    title: str,
    heads: tuple[str, ...],
    rows: Iterable[tuple[Any, ...]],
    empty: str,
    numbers_from: int | None = None,
) -> str:
    def line(tag: str, cells: Iterable[Any]) -> str:
        classes = (
            "" if numbers_from is None or index < numbers_from else ' class="n"'
            for index in range(len(heads))
        )
        return "<tr>" + "".join(
            f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(classes, cells, strict=True)
        )

    listed = "".join(line("td", row) for row in rows)
    table = f"<table>{line('th', heads)}{listed}</table>" if listed else f'<p class="none">{empty}</p>'
    return f"<section><h2>{title}</h2>{table}</section>"


def _told(fault: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}: {value}" for name, value in fault.items() if value not in (None, {}, False, 0.0)
    )


def _tone(status: str) -> str:
    return "good" if status.startswith("2") else "bad"


def _quantity(text: Any) -> str:
    whole, point, rest = str(text).partition(".")
    return f"{int(whole):,}{point}{rest}"


def _short(metadata: Any) -> str:
    text = "" if metadata == "null" else str(metadata)
    return text if len(text) <= METADATA_CHARS_MAX else text[:METADATA_CHARS_MAX] + "…"


def _escaped(text: Any) -> str:
    return html.escape(str(text))
