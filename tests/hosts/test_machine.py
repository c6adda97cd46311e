"""What a host's programs may not say, and what of it is their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hosts.machine import complaints_in

if TYPE_CHECKING:
    from tests.hosts.machine import Host

_BEGIN = "Traceback (most recent call last):\n"
_ERROR = f'{_BEGIN}  File "app.py", line 3, in answer\n    1 / 0\nZeroDivisionError: 0'
_QUIT = f'{_BEGIN}  File "base.py", line 9, in handle_quit\n    sys.exit(0)\nSystemExit: 0'


@pytest.mark.parametrize(
    ("said", "complaints"),
    [
        ("All is well\n", []),
        (f"Error handling request /\n{_ERROR}\nAnd on\n", [_ERROR]),
        ("app.py:3: ResourceWarning: unclosed file\n", ["app.py:3: ResourceWarning: unclosed file"]),
        ("app.py:3: ResourceWarning: unclosed <socket.socket fd=3>\n", []),
        (f"{_QUIT}\n{_ERROR}\n{_QUIT}\n", [_ERROR]),
        (_QUIT.replace("SystemExit: 0", "SystemExit: 3"), [_QUIT.replace("SystemExit: 0", "SystemExit: 3")]),
        (_QUIT.replace("handle_quit", "track"), [_QUIT.replace("handle_quit", "track")]),
    ],
)
def test_tracebacks_and_warnings_are_complaints(said: str, complaints: list[str]) -> None:
    """All but what gunicorn says of itself."""
    assert complaints_in(said) == complaints


@pytest.mark.slow
def test_a_worker_that_is_told_to_quit_in_the_midst_of_a_request_is_no_complaint(host: Host) -> None:
    """The worker's own exit is logged as an error of the request."""
    hook = "import os, signal\npre_request = lambda worker, request: os.kill(worker.pid, signal.SIGQUIT)\n"
    server = host.gunicorn("tests.integrations.tracking_app:app", conf=hook)
    assert not server.ask("1")
    assert "SystemExit: 0" in server.end()
    assert server.complaints == []
