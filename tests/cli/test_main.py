"""The program: commands found lazily, and every way of ending an exit code of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from settle_mp.cli import exit_codes
from settle_mp.cli.main import main
from settle_mp.cli.options import with_settings, with_settings_loader
from settle_mp.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.cli.options import SettingsLoader
    from settle_mp.config import Settings

#: Far above what a start takes; only a hang gets there.
DEADLINE_S = 60

COMMANDS = [
    "collector",
    "status",
    "top",
    "flush",
    "deadletter",
    "indoubt",
    "residue",
    "adopt",
    "config",
    "doctor",
    "keys",
    "sandbox",
    "demo",
]


@pytest.fixture(autouse=True)
def _no_logging_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program sets up logging for its process, which here is pytest's."""
    monkeypatch.setattr("settle_mp.cli.logs.configure", lambda _: None)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, click.Command], None]:
    """Put a command of the test's own in place of a real one."""

    def put(name: str, command: click.Command) -> None:
        module = types.ModuleType(f"settle_mp.cli.{name}")
        setattr(module, name, command)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def run(*arguments: str) -> int:
    """Run the program in this process and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def test_the_installed_program_says_its_version() -> None:
    """The console script and `python -m settle_mp.cli` are the same program."""
    installed = Path(sys.executable).with_name("settle-mp")
    for program in ([installed], [sys.executable, "-m", "settle_mp.cli"]):
        output = subprocess.check_output([*program, "--version"], text=True, timeout=DEADLINE_S)
        assert output == f"settle-mp {__version__}\n"


def test_help_lists_every_command_and_imports_none() -> None:
    """A newcomer sees all of it at once, without waiting for a web framework."""
    code = (
        "import sys; from settle_mp.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('settle_mp.cli.')])"
    )
    lines = python(code).stdout.splitlines()
    assert [name for name in COMMANDS if not any(line.split()[:1] == [name] for line in lines)] == []
    assert lines[-1] == "['settle_mp.cli.exit_codes', 'settle_mp.cli.logs', 'settle_mp.cli.main']"


def test_a_command_does_not_pay_for_the_others() -> None:
    """One command imports nothing that only another needs."""
    code = (
        "import sys; from settle_mp.cli.main import main\n"
        "try: main(['config'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'fastapi', 'uvicorn', 'gunicorn', 'rich', 'httpx', 'sqlite3'} & set(sys.modules)))"
    )
    assert python(code).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["config", "--nothing"], ["--log-level", "loud", "config"]]
)
def test_a_wrong_command_line_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what to try instead on standard error."""
    assert run(*arguments) == exit_codes.USAGE == 2
    assert "--help" in capsys.readouterr().err


def test_a_command_that_is_nearly_one_gets_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Still a wrong command line; one that is near to none gets no guess."""
    assert run("statsu") == exit_codes.USAGE
    assert "No such command 'statsu'. Did you mean 'status'?" in capsys.readouterr().err
    assert run("zzz") == exit_codes.USAGE
    assert "Did you mean" not in capsys.readouterr().err


def test_a_wrong_setting_is_one_line_and_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78; the line names the key, its source and what is allowed; there is no traceback."""
    monkeypatch.setenv("SETTLE_MP_FLUSH_INTERVAL_S", "soon")
    assert run("config") == exit_codes.CONFIG == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "settle-mp: flush_interval_s (environment SETTLE_MP_FLUSH_INTERVAL_S): 'soon' is not a number; "
        "allowed: a number of seconds from 0.01 to 3,600\n"
    )


def test_a_wrong_settings_file_is_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--config reaches the loader, and what is wrong in the file ends the same way."""
    file = tmp_path / "x.toml"
    file.write_text("flush = 1", encoding="utf-8")
    assert run("config", "--config", str(file)) == exit_codes.CONFIG
    assert f"flush (file {file}): there is no such setting" in capsys.readouterr().err


def test_gunicorn_never_sees_the_codes_that_halt_it() -> None:
    """An arbiter gives up when a child ends with 3 or 4 (WORKER_BOOT_ERROR, APP_LOAD_ERROR)."""
    codes = [value for name, value in vars(exit_codes).items() if name.isupper()]
    assert len(codes) == len(set(codes)) == 7
    assert not {3, 4} & set(codes)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (75, 75), ("text", 0)])
def test_a_number_that_a_command_returns_is_the_exit_code(
    returned: object, code: int, stand_in: Callable[[str, click.Command], None]
) -> None:
    """Commands say how they ended by returning it; anything else is fine."""
    stand_in("status", click.command()(lambda: returned))
    assert run("status") == code


def test_a_command_gets_the_settings_of_its_options(
    stand_in: Callable[[str, click.Command], None], state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--state-dir comes in as an argument, beside the command's own options."""

    @click.command()
    @with_settings
    @click.option("--times", type=int)
    def status(settings: Settings, *, times: int) -> None:
        click.echo(f"{settings.state_dir} {settings.source('state_dir')} {times}")

    stand_in("status", status)
    assert run("status", "--state-dir", str(state_dir), "--times", "3") == 0
    assert capsys.readouterr().out == f"{state_dir} argument 3\n"


def test_a_command_can_read_its_settings_again(
    stand_in: Callable[[str, click.Command], None], state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loader sees what changed in the file since the last call."""
    file = state_dir / "settle-mp.toml"

    @click.command()
    @with_settings_loader
    def collector(load_settings: SettingsLoader) -> None:
        for rows in (10, 20):
            file.write_text(f"batch_rows_max = {rows}", encoding="utf-8")
            click.echo(load_settings().batch_rows_max)

    stand_in("collector", collector)
    assert run("collector", "--state-dir", str(state_dir)) == 0
    assert capsys.readouterr().out == "10\n20\n"


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [("sandbox", "fastapi", "sandbox"), ("demo", "uvicorn", "demo"), ("status", "rich", "demo")],
)
def test_a_missing_extra_is_asked_for_by_its_pip_command(
    command: str,
    package: str,
    extra: str,
    stand_in: Callable[[str, click.Command], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The reader can copy the line, which names the interpreter that runs the program."""
    monkeypatch.setitem(sys.modules, package, None)
    stand_in(command, click.command()(lambda: __import__(package)))
    assert run(command) == exit_codes.FAILED
    assert f"{sys.executable} -m pip install 'settle-mp[{extra}]'" in capsys.readouterr().err


def test_a_missing_module_of_our_own_is_not_hidden(
    stand_in: Callable[[str, click.Command], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what an extra would bring becomes advice; a fault stays a fault."""
    monkeypatch.setitem(sys.modules, "settle_mp.nothing", None)
    stand_in("status", click.command()(lambda: __import__("settle_mp.nothing")))
    with pytest.raises(ModuleNotFoundError):
        main(["status"])


def test_ctrl_c_ends_with_130_and_no_traceback() -> None:
    """A real SIGINT in the middle of a command."""
    code = (
        "import signal, sys, types, click\n"
        "from settle_mp.cli.main import main\n"
        "module = types.ModuleType('settle_mp.cli.demo')\n"
        "module.demo = click.command()(lambda: (click.echo('ready'), signal.pause()))\n"
        "sys.modules[module.__name__] = module\n"
        "main(['demo'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == exit_codes.INTERRUPTED == 130
    assert b"Traceback" not in err
