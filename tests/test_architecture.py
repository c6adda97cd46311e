"""The house holds: who may import whom, what core may touch, how large a file may be.

Read from the sources with `ast`, so that nothing has to be installed or run for a direction to be checked.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata

import pytest

import settle_mp
from tests.sources import IMPORTS, MODULES, Import, cycle, imports, reached_at_import

#: Lines of a file and of a function; more is a sign of two ideas.
FILE_LINES_MAX = 350
FUNCTION_LINES_MAX = 70

EVERYTHING = {"settle_mp", "core", "between", "worker", "collector", "sandbox", "integrations"}

#: What each part may import of settle_mp, itself included. What is in no part stands between the wings.
MAY_IMPORT = {
    "core": {"core"},
    "between": {"core", "between"},
    "worker": {"core", "between", "worker"},
    "collector": {"core", "between", "collector"},
    "sandbox": {"core", "between", "sandbox"},
    "integrations": {"core", "between", "worker", "integrations"},
    "testing": {"core", "between", "worker", "testing"},
    "settle_mp": {"core", "between", "worker"},
    # These two start the others and are started by nobody.
    "demo": EVERYTHING | {"demo"},
    "cli": EVERYTHING | {"demo", "cli"},
}

#: Not for core: what has an effect, or an answer that differs from call to call.
EFFECTS = {
    "asyncio", "click", "fcntl", "httpx", "io", "logging", "mmap", "multiprocessing", "os", "random",
    "secrets", "select", "shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading",
    "time", "uuid", "zmq",
}  # fmt: skip
EFFECTFUL_CALLS = {"open", "print", "input", "now", "utcnow", "today"}

#: Not for what a worker imports when the application is loaded and when it tracks.
NOT_IN_A_WORKER = {"httpx", "sqlite3", "click", "fastapi", "uvicorn", "settle_mp.collector", "settle_mp.cli"}


def part_of(module: str) -> str:
    """Return the part of the house that a module is in."""
    top = module.split(".")[1] if "." in module else "settle_mp"
    return top if top in MAY_IMPORT else "between"


def wrong_directions(module: str, found: list[Import]) -> list[str]:
    """Return what a module imports of settle_mp and may not, for types and in functions too."""
    allowed = MAY_IMPORT[part_of(module)]
    ours = [each.target for each in found if each.target.split(".")[0] == "settle_mp"]
    return [target for target in ours if part_of(target) not in allowed]


def effects(source: str, found: list[Import]) -> list[str]:
    """Return what a core module touches and may not."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls]
    modules = [each.target.split(".")[0] for each in found if not each.is_typing]
    return [name for name in modules if name in EFFECTS] + [name for name in names if name in EFFECTFUL_CALLS]


# The house.


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_part_may(module: str) -> None:
    """The wings stand side by side on core and never meet; nothing imports cli."""
    assert wrong_directions(module, IMPORTS[module]) == []


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) == "core"])
def test_core_is_pure(module: str) -> None:
    """No socket, file, clock, thread, environment or log: callers pass what differs."""
    assert effects(MODULES[module].read_text(encoding="utf-8"), IMPORTS[module]) == []


def test_there_is_no_import_cycle() -> None:
    """Each module can be read with what it imports and nothing else in mind."""
    assert cycle(IMPORTS) == []


def test_importing_settle_mp_stays_light() -> None:
    """A worker pays for no HTTP client, database or command line; the wallet imports its own on use."""
    reached = reached_at_import("settle_mp", IMPORTS)
    assert {name: reached[name] for name in NOT_IN_A_WORKER if name in reached} == {}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_owns(module: str) -> None:
    """The first line of every file is its reason to be there."""
    assert ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8")))


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_short(module: str) -> None:
    """One idea a file, one step a function."""
    source = MODULES[module].read_text(encoding="utf-8")
    lines_count = len(source.splitlines())
    assert lines_count <= FILE_LINES_MAX
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}


def test_the_public_names_are_those_promised() -> None:
    """A name that appears or goes is a decision, and this line is where it is made."""
    assert sorted(settle_mp.__all__) == sorted(
        [
            "ApiError",
            "AsyncSettle",
            "AsyncSettleSettle",
            "AuthenticationError",
            "FlushReport",
            "InsufficientCreditsError",
            "RateLimitError",
            "SettingsError",
            "Settle",
            "SettleSettle",
            "SettleSettleError",
            "TimeoutError",
            "UsageSummary",
            "UsageTotal",
            "ValidationError",
            "WalletBalance",
            "WalletHistory",
            "WalletTransaction",
            "__version__",
            "attach",
        ]
    )
    assert [name for name in settle_mp.__all__ if not hasattr(settle_mp, name)] == []


def test_the_version_is_written_the_same_twice() -> None:
    """What the package says is what was installed."""
    assert importlib.metadata.version("settle-mp") == settle_mp.__version__


# The tests of the house can fail.


def found(source: str, module: str = "settle_mp.worker.x") -> list[Import]:
    """Read imports as for a module of the wing."""
    return list(imports(source, module))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("import settle_mp.collector", "settle_mp.collector"),
        ("from settle_mp.collector.ledger import Ledger", "settle_mp.collector.ledger"),
        ("from settle_mp import cli", "settle_mp.cli"),
        ("from ..collector import x", "settle_mp.collector"),
        ("from .. import collector", "settle_mp.collector"),
        ("def f():\n    import settle_mp.cli.main", "settle_mp.cli.main"),
        ("if TYPE_CHECKING:\n    from settle_mp.integrations import gunicorn", "settle_mp.integrations"),
    ],
)
def test_every_way_of_importing_is_seen(source: str, target: str) -> None:
    """A wrong direction cannot hide in a relative import, a function or a type."""
    wrong = wrong_directions("settle_mp.worker.x", found(source))
    assert len(wrong) == 1
    assert wrong[0].startswith(target)


def test_the_right_directions_are_not_wrong() -> None:
    """Core, what stands between, and the wing itself."""
    source = (
        "import os, zmq\nfrom settle_mp.core import wire\nfrom settle_mp import config\nfrom . import journal"
    )
    assert wrong_directions("settle_mp.worker.x", found(source)) == []


@pytest.mark.parametrize("source", ["import time", "from os import path", "open('x')", "datetime.now()"])
def test_effects_in_core_are_seen(source: str) -> None:
    """A module or a call is enough."""
    assert len(effects(source, found(source, "settle_mp.core.x"))) == 1


def test_cycles_and_heavy_imports_are_seen() -> None:
    """A cycle through a function is one, an import for types is none; imports are followed all the way."""
    a_to_b, b_to_a = Import("b", is_lazy=False, is_typing=False), Import("a", is_lazy=True, is_typing=False)
    assert cycle({"a": [a_to_b], "b": [b_to_a]}) == ["a", "b", "a"]
    assert cycle({"a": [a_to_b], "b": [b_to_a._replace(is_typing=True)]}) == []
    heavy = Import("httpx", is_lazy=False, is_typing=False)
    assert reached_at_import("a", {"a": [a_to_b], "b": [heavy]}) == {"b": "a", "httpx": "b"}
    assert "httpx" not in reached_at_import("a", {"a": [a_to_b], "b": [heavy._replace(is_lazy=True)]})
