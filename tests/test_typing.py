"""What type checkers tell our users: mypy and pyright, each on one file of right and wrong lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

#: A line that ends in `# wrong` must be an error, no other line may be one. StrEnum came with Python 3.11.
PROGRAM = """\
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Literal, get_args

from typing_extensions import assert_type

import settle_mp
from settle_mp import AsyncSettle, AsyncSettleSettle, FlushReport, Settle, SettleSettle, WalletTransaction

AppEvent = Literal["AI_QUERY", "PDF_EXPORT"]


class Named(StrEnum):
    AI_QUERY = "AI_QUERY"


class Mixed(str, Enum):
    AI_QUERY = "AI_QUERY"


class Plain(Enum):
    AI_QUERY = "AI_QUERY"


any_text = Settle()
any_text.events.track("user_123", "ANYTHING", 1.5, {"model": "gpt-4"})
any_text.events.track(user_id="user_123", event_type="ANYTHING", quantity=Decimal("0.1"), metadata=None)
any_text.events.track("user_123", Named.AI_QUERY)
any_text.events.track("user_123", Mixed.AI_QUERY)
any_text.events.track("user_123")  # wrong
any_text.events.track(123, "AI_QUERY")  # wrong
any_text.events.track("user_123", "AI_QUERY", "1")  # wrong
any_text.events.track("user_123", "AI_QUERY", 1, ["a"])  # wrong
any_text.events.track("user_123", "AI_QUERY", amount=1)  # wrong
any_text.events.track("user_123", Plain.AI_QUERY)  # wrong

literal = Settle[AppEvent]()
literal.events.track("user_123", "AI_QUERY")
literal.events.track("user_123", "AI_QUERRY")  # wrong
name = str(literal)
literal.events.track("user_123", name)  # wrong
Settle[AppEvent](event_types=get_args(AppEvent)).events.track("user_123", "NO")  # wrong
Settle[AppEvent](event_types=["NO"])  # wrong

named = Settle[Named]()
named.events.track("user_123", Named.AI_QUERY)
named.events.track("user_123", "AI_QUERY")  # wrong

mixed = Settle[Mixed](event_types=Mixed)
mixed.events.track("user_123", Mixed.AI_QUERY)
mixed.events.track("user_123", Named.AI_QUERY)  # wrong

plain = Settle(event_types=Plain)
assert_type(plain, Settle[Plain])
plain.events.track("user_123", Plain.AI_QUERY)
plain.events.track("user_123", "AI_QUERY")  # wrong
plain.events.track("user_123", Named.AI_QUERY)  # wrong

numbers = Settle[int]()  # wrong


def takes_any_text(settle: Settle) -> None: ...
def takes_app_events(settle: Settle[AppEvent]) -> None: ...


takes_app_events(any_text)
takes_any_text(literal)  # wrong

Settle(flush_interval_s=5, journal_bytes_max="64MiB", on_invalid="count", api_key="ss_test_1", group=None)
Settle(flush_interval_s="5")  # wrong
Settle(on_invalid="no")  # wrong
Settle(flush_interval="5")  # wrong

with Settle[AppEvent]() as entered:
    entered.events.track("user_123", "NO")  # wrong
    assert_type(entered.events.flush(timeout=1), FlushReport)
    assert_type(entered.wallet.debit("user_123", amount=10), WalletTransaction)
    entered.wallet.debit("user_123", amount="10")  # wrong

renamed = SettleSettle[AppEvent]()
renamed.events.track("user_123", "NO")  # wrong
SettleSettle().events.track("user_123", "ANYTHING")


async def main() -> None:
    settle = AsyncSettle()
    settle.events.track("user_123", "AI_QUERY")
    await settle.events.track("user_123", "AI_QUERY")  # wrong
    assert_type(await settle.events.flush(), FlushReport)
    async with AsyncSettleSettle[AppEvent]() as typed:
        typed.events.track("user_123", "AI_QUERY")
        typed.events.track("user_123", "NO")  # wrong
        await typed.events.track("user_123", "AI_QUERY")  # wrong
        assert_type(await typed.wallet.debit("user_123", amount=10), WalletTransaction)
        async for transaction in typed.wallet.iter_history("user_123"):
            assert_type(transaction, WalletTransaction)
    AsyncSettle(event_types=Plain).events.track("user_123", "AI_QUERY")  # wrong
"""


def wrong_lines() -> set[int]:
    """The lines that are marked."""
    lines = enumerate(PROGRAM.splitlines(), start=1)
    return {number for number, line in lines if line.endswith("# wrong")}


def run(*command: str) -> str:
    """Run a checker of this environment, which finds its Python by the PATH."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=ROOT, check=False).stdout


@pytest.fixture
def program(tmp_path: Path) -> str:
    """The program as a file."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return str(path)


def test_mypy_rejects_what_is_wrong_and_nothing_else(program: str) -> None:
    """In its strict mode."""
    cache = ["--cache-dir", str(ROOT / ".mypy_cache")]
    output = run(
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-version",
        "3.11",
        "--output",
        "json",
        *cache,
        program,
    )
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    errors = {each["line"]: each["message"] for each in found if each["severity"] == "error"}
    assert errors.keys() == wrong_lines(), output


def test_every_type_that_users_can_meet_is_known() -> None:
    """What pyright's `--verifytypes` counts is complete: no checker has to guess a type of ours.

    In a module whose name has no underscore everything public counts, so a new attribute without an
    annotation (`self.name = make()`) is named here: give it one (`self.name: Name = make()`).
    """
    output = run("pyright", "--verifytypes", "settle_mp", "--ignoreexternal", "--outputjson")
    found = json.loads(output)["typeCompleteness"]
    incomplete = {
        each["name"]: [said["message"] for said in each["diagnostics"]]
        for each in found["symbols"]
        if each["isExported"] and (each["isTypeAmbiguous"] or not each["isTypeKnown"])
    }
    assert incomplete == {}
    assert found["completenessScore"] == 1
    assert found["exportedSymbolCounts"]["withKnownType"] > 3000


def test_pyright_rejects_what_is_wrong_and_nothing_else(program: str) -> None:
    """In its default mode, as editors run it."""
    report = json.loads(run("pyright", "--pythonversion", "3.11", "--outputjson", program))
    found: list[dict[str, Any]] = report["generalDiagnostics"]
    lines = {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}
    assert lines == wrong_lines(), found
