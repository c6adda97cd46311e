"""pytest finds the fixtures by itself in a user's project, and pays nothing where nobody asks for them."""

from __future__ import annotations

import importlib.metadata

import pytest

pytest_plugins = ["pytester"]

APP = """
import os
from settle_mp import InsufficientCreditsError, Settle

settle = Settle()  # at import, as applications do
track = settle.events.track


def answer(user_id, question):
    try:
        settle.wallet.debit(user_id, amount=10)
    except InsufficientCreditsError as error:
        return f"{error.current_balance} credits left"
    track(user_id, "AI_QUERY", metadata={"model": "gpt-4"})
    return question.upper()


def in_a_worker(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
"""

TESTS = """
import asyncio
import multiprocessing
import pytest
from settle_mp import AsyncSettle, InsufficientCreditsError
from app import answer, in_a_worker, settle, track


def test_an_answer_is_billed(settle_events, settle_wallet):
    settle_wallet.balances["ada"] = 15
    assert answer("ada", "why?") == "WHY?"
    assert answer("ada", "why?") == "5 credits left"
    settle_events.assert_tracked("ada", "AI_QUERY", metadata={"model": "gpt-4"}, times=1)
    assert settle_wallet.balances["ada"] == 5


def test_each_test_begins_anew(settle_events, settle_wallet):
    assert len(settle_events) == 0
    assert settle_wallet.balances == {}


def test_workers_are_recorded(settle_events):
    in_a_worker(lambda: track("bob", "PDF_PAGE", quantity=3))
    process = multiprocessing.get_context("fork").Process(target=track, args=("bob", "PDF_PAGE"))
    process.start()
    process.join()
    assert settle_events.total("bob") == 4


def test_asynchronous_code(settle_events, settle_wallet):
    settle_wallet.balances["eve"] = 5

    async def main():
        async with AsyncSettle() as client:
            with pytest.raises(InsufficientCreditsError):
                await client.wallet.debit("eve", amount=10)
            client.events.track("eve", "AI_QUERY")
            assert await client.events.flush()

    asyncio.run(main())
    settle_events.assert_tracked("eve", times=1)


def test_what_goes_wrong_is_shown(settle_events):
    track("ada", "AI_QUERY")
    settle_events.assert_tracked("ada", "PDF_PAGE")
"""

NOT_ASKED = """
import sys


def test_nothing_of_it_is_loaded():
    names = {name.partition(".")[0] for name in sys.modules}
    assert "_settle_mp_pytest" in names
    assert not names & {"settle_mp", "msgpack", "zmq", "httpx", "click"}
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Make a project of somebody whose home is empty."""
    monkeypatch.setenv("HOME", str(pytester.mkdir("home")))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    # A plugin of ours that takes most of a second to start.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:schemathesis")
    return pytester


def test_a_users_tests(project: pytest.Pytester) -> None:
    """Clients made at import, forks, asyncio and the wallet; the one test that is wrong says why."""
    project.makepyfile(app=APP, test_app=TESTS)
    result = project.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["*track('ada', 'PDF_PAGE') should have been tracked at least once, not 0 times; recorded: 1 events"]
    )
    assert list((project.path / "home").iterdir()) == []


def test_it_can_be_for_all_tests(project: pytest.Pytester) -> None:
    """So that no test ever bills anything."""
    conftest = """
        import pytest

        @pytest.fixture(autouse=True)
        def never_bill(settle_events, settle_wallet):
            pass
    """
    tests = """
        import pytest
        from app import answer, settle

        @pytest.mark.parametrize("number", range(4))
        def test_answer(number, settle_events):
            assert answer("ada", "why?") == "0 credits left"
            settle.events.track("ada", "CALL")
            assert len(settle_events) == 1
    """
    project.makepyfile(app=APP, conftest=conftest, test_app=tests)
    result = project.runpytest_subprocess("-W", "error")
    result.assert_outcomes(passed=4)
    assert list((project.path / "home").iterdir()) == []


def test_a_run_that_does_not_ask_loads_nothing(project: pytest.Pytester) -> None:
    """Neither the package nor what it stands on."""
    project.makepyfile(NOT_ASKED)
    project.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


def test_that_would_be_seen(project: pytest.Pytester) -> None:
    """The test above can fail."""
    project.makepyfile("import settle_mp\n" + NOT_ASKED)
    project.runpytest_subprocess("-W", "error").assert_outcomes(failed=1)


def test_pytest_lists_them(project: pytest.Pytester) -> None:
    """With what they do."""
    result = project.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(
        ["settle_events -- *", "*every settle-mp client tracks*", "settle_wallet -- *"]
    )


def test_the_package_says_where_the_plugin_is() -> None:
    """The entry point leads to the module."""
    (found,) = (
        each for each in importlib.metadata.entry_points(group="pytest11") if each.name == "settle_mp"
    )
    assert found.load().settle_events
