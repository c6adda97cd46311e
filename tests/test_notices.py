"""Every line of the log says what happened, what it means for the bill and what to do, as the docs do."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest

from settle_mp.notices import NOTICES, Teller, notice
from tests.sources import MODULES

DOCS = Path(__file__).parent.parent / "docs/operating/when-something-is-off.md"
#: Methods whose first arguments name what is logged: logging's own, and those that lead to them.
LOGGING = {"debug", "info", "warning", "error", "exception", "log", "tell", "_tell", "_back_off", "drop"}
TROUBLE = {"warning", "error", "exception", "log"}
NAME = re.compile(r"[a-z]+(_[a-z]+)+")
#: They print, or log into a log that is not ours: gunicorn's.
NOT_OURS = ("settle_mp.cli", "settle_mp.demo", "settle_mp.sandbox", "settle_mp.integrations.gunicorn")


def calls() -> list[tuple[str, ast.Call]]:
    """Every call that may log, by module."""
    return [
        (module, node)
        for module, path in MODULES.items()
        if not module.startswith(NOT_OURS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOGGING
    ]


def logged_names() -> set[str]:
    """The event names that stand in the sources; a name of a choice stands in a variable beside its call."""
    found = {
        part.value
        for _, call in calls()
        for argument in call.args[:2]
        for part in ast.walk(argument)
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and NAME.fullmatch(part.value)
    }
    return found | {name for name in NOTICES if any(f'"{name}"' in text for text in _sources())}


def _sources() -> list[str]:
    return [
        path.read_text(encoding="utf-8") for module, path in MODULES.items() if module != "settle_mp.notices"
    ]


def rows() -> dict[str, tuple[str, ...]]:
    """The rows of the docs' tables: what happened, the bill, what to do."""
    text = DOCS.read_text(encoding="utf-8")
    found = re.findall(r"^\| `([a-z_]+)` \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert len(found) == len({name for name, *_ in found})
    return {name: tuple(cells) for name, *cells in found}


def ordinary() -> set[str]:
    """The names that the docs call ordinary."""
    _, _, rest = DOCS.read_text(encoding="utf-8").partition("## Lines of ordinary life")
    return set(re.findall(r"`([a-z]+_?[a-z_]*)`", rest))


def test_every_logged_name_is_in_the_docs() -> None:
    """And the docs have no others: who finds a line finds its row."""
    assert logged_names() | {"decided"} == rows().keys() | ordinary()
    assert not rows().keys() & ordinary()


def test_the_docs_say_what_the_lines_say() -> None:
    """Word by word, so that neither is changed alone."""
    assert {name: cells[1:] for name, cells in rows().items()} == {
        name: (each.bill, each.mend) for name, each in NOTICES.items()
    }
    assert all(cells[0].endswith(".") for cells in rows().values())


def test_every_trouble_is_logged_as_a_notice() -> None:
    """What is more than information carries reason, bill and mend."""
    bare = []
    for module, call in calls():
        assert isinstance(call.func, ast.Attribute)
        is_log = ast.unparse(call.func.value) in {"log", "_log", "self._log"}
        if not is_log or call.func.attr not in TROUBLE:
            continue
        extras = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
        text = ast.unparse(extras[0]) if extras else ""
        if not (text.startswith("notice(") or text == "extra"):
            bare.append(f"{module}:{call.lineno}")
    assert bare == []


@pytest.mark.parametrize("name", NOTICES)
def test_a_notice_has_all_three(name: str) -> None:
    """Short enough for one line; `none` is an answer."""
    texts = notice(name, "it happened")
    assert texts["reason"] == "it happened"
    for each in (texts["bill"], texts["mend"]):
        assert isinstance(each, str)
        assert 4 <= len(each) <= 200
        assert "\n" not in each


def test_figures_take_the_place_of_the_general_text() -> None:
    """And a name that nobody knows is no error: what logs must not raise."""
    assert notice("batch_held", "r", bill="7 events", key="k") == {
        "reason": "r",
        "bill": "7 events",
        "mend": NOTICES["batch_held"].mend,
        "key": "k",
    }
    assert notice("no_such_name", "r") == {"reason": "r"}


def test_a_trouble_is_told_again_only_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """Each name has its own time."""
    log = logging.getLogger("settle_mp")
    teller = Teller(log)
    for _ in range(3):
        teller.tell("batch_in_doubt", "one")
        teller.tell("batch_divided", "two", level=logging.ERROR)
    assert [(each.message, each.levelno) for each in caplog.records] == [
        ("batch_in_doubt", logging.WARNING),
        ("batch_divided", logging.ERROR),
    ]
    Teller(log, again_s=0.0).tell("batch_in_doubt", "again")
    assert len(caplog.records) == 3
