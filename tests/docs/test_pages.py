"""Every code block that a reader sees does what the page says: it is run, or checked, or says why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs import page as running
from tests.docs.blocks import CHECKED, ROOT, RUN, blocks, fault, pages, run_by
from tests.upstreams import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXTS = {str(path): (ROOT / path).read_text(encoding="utf-8") for path in pages()}
RUN_HERE = [
    name
    for name, text in TEXTS.items()
    if run_by(text) is None and any(each.language in RUN | CHECKED for each in blocks(text))
]

#: Warnings are errors, but for what the vendor's SDK says of each test key.
STRICT = ("-W", "error", "-W", "ignore:[SettleSettle] Running in SANDBOX mode")


@pytest.fixture
def environ(state_dir: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Make what a page finds around it: a sandbox in which a user has credits, no home, our programs."""
    with sandbox(seeds={"user_123": 1_000}) as upstream:
        yield {
            **os.environ,
            "HOME": str(tmp_path),
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",  # noqa: PTH120 - Not resolved.
            "PYTHONPATH": str(ROOT),
            "SETTLE_MP_STATE_DIR": str(state_dir / "state"),
            "SETTLESETTLE_API_KEY": upstream.api_key,
            "SETTLESETTLE_BASE_URL": upstream.base_url,
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_HERE)
def test_a_page_does_what_it_says(name: str, environ: dict[str, str], tmp_path: Path) -> None:
    """From its first block to its last."""
    done = subprocess.run(
        [sys.executable, *STRICT, "-m", "tests.docs.page", name],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", TEXTS)
def test_each_block_is_run_or_says_why_not(name: str) -> None:
    """No block is left out without a word."""
    faults = {f"{name}:{block.line}": fault(block) for block in blocks(TEXTS[name])}
    assert {where: each for where, each in faults.items() if each} == {}


@pytest.mark.parametrize("name", [name for name in TEXTS if run_by(TEXTS[name])])
def test_a_page_that_is_run_by_another_test_is(name: str) -> None:
    """The test is there, and names the example."""
    test = ROOT / str(run_by(TEXTS[name]))
    assert f'"{Path(name).parent.name}"' in test.read_text(encoding="utf-8")


# --- These tests can fail ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "```python\nx = 1\n```\n\n- a list:\n\n  ```python\n  assert x == 2\n  ```\n",
            "page.md:8: Assertion",
        ),
        ("<!-- run python\nraise KeyError\n-->\n", "page.md:2: KeyError"),
        ("```python\ndef test_x(settle_events):\n    settle_events.assert_tracked('u')\n```", "page.md:2"),
        ("```python\nasync def test_x():\n    raise KeyError\n```", "page.md:2: KeyError"),
        ("```sh\nexport X=1\n```\n```sh\ntest $X = 2\n```", "page.md:5: PageError: exit code 1"),
        ("```sh\nmake nothing\n```", "there is no `make nothing`"),
        ("```sh\npip install 'settle-mp[nothing]'\n```", "'settle-mp[nothing]' is not this package"),
        ('```toml\nflush_interval = "2 s"\n```', "there is no such setting"),
        ('```json\n{"a": }\n```', "JSONDecodeError"),
        ("```ini\nno section\n```", "MissingSectionHeaderError"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```", "UserWarning: old"),
    ],
)
def test_a_block_that_is_wrong_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    """In each language, with its place in the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("X", "0")
    with pytest.raises(running.PageError) as wrong:
        running.Page(Path("page.md"), text).run()
    assert said in str(wrong.value)


def test_a_block_that_nobody_runs_is_found() -> None:
    """Without a language, or of one that is not known; a visible line before it says why."""
    (unnamed, foreign, marked) = blocks(
        "```\nx\n```\n\n```rust\nx\n```\n\n*Not run by the tests: it needs\nCelery.*\n\n```rust\nx\n```\n"
    )
    assert fault(unnamed) == "it has no language; drawings and output are `text`"
    assert fault(foreign) == "rust is neither run nor checked; say why in the line before it"
    assert (fault(marked), marked.not_run) == (None, "it needs Celery")


def test_indented_code_is_a_block_as_well() -> None:
    """It has no language, and so it is not allowed."""
    (block,) = blocks("text\n\n    x = 1\n")
    assert fault(block) is not None


def test_ports_are_free_and_the_same_all_over() -> None:
    """A number that follows no address is left alone."""
    text = running._with_free_ports("--port 8080 127.0.0.1:8080 2026 127.0.0.1:8081").replace(
        "127.0.0.1:", ""
    )
    _, first, second, year, third = text.split()
    assert (first == second, year) == (True, "2026"), text
    assert third not in {first, "8081"}
