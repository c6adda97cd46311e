"""The site is built without a warning, loads nothing from elsewhere, and its tables are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from settle_mp import config
from settle_mp.cli import main as program
from tests.docs.blocks import ROOT, pages

if TYPE_CHECKING:
    from pathlib import Path

#: What a browser loads by itself, and by which attribute.
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "audio": "src"}


class Links(HTMLParser):
    """What a page loads, links to, and can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag in LOADED:
            self.loaded.append(given.get(LOADED[tag], ""))
        if tag == "a":
            self.linked.append(given.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.mark.slow
def test_it_has_every_page(site: Path) -> None:
    """The README is its home, and each example has a page."""
    assert "counted exactly once" in (site / "index.html").read_text(encoding="utf-8")
    for page in pages():
        name = {"README.md": "index"}.get(str(page), str(page.with_suffix("")).removeprefix("docs/"))
        name = re.sub(r"^(examples/\w+)/README$", r"\1", name).replace("/README", "/index")
        assert (site / f"{name}.html").exists(), name


@pytest.mark.slow
def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    """No font, script or picture: it can be read without a network."""
    for page in site.rglob("*.html"):
        far = [each for each in Links(page.read_text(encoding="utf-8")).loaded if urlsplit(each).netloc]
        assert far == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?https?:|@import", style.read_text(encoding="utf-8")), style


@pytest.mark.slow
def test_its_links_lead_somewhere(site: Path) -> None:
    """Within the site, to pages and to places in them."""
    found = {page: Links(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    lost = []
    for page, links in found.items():
        for href in links.linked:
            parts = urlsplit(href)
            if parts.scheme or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            place = unquote(parts.fragment)
            if not target.exists() or (place and target in found and place not in found[target].ids):
                lost.append(f"{page.relative_to(site)} -> {href}")
    assert lost == []


@pytest.mark.slow
def test_its_tables_are_those_of_the_code(site: Path) -> None:
    """Every setting, and the help of every command."""
    settings = (site / "settings.html").read_text(encoding="utf-8")
    for name, variable in config._VARIABLES.items():
        assert f"<code>{name}</code>" in settings
        assert f"<code>{variable}</code>" in settings
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for name in program._COMMANDS:
        assert f">settle-mp {name}<" in commands
        assert f"Usage: settle-mp {name} " in commands


# --- The README's table, which is written by hand ---


def rows() -> dict[str, tuple[str, str]]:
    """The README's settings: variable and default by name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## Settings") : text.index("### Metadata rules")]
    found = re.findall(r"^\| `(\w+)` \| `(\w+)`[^|]* \| (.+) \|$", table, re.MULTILINE)
    return {name: (variable, default) for name, variable, default in found}


def test_the_readme_has_every_setting() -> None:
    """In the order of the code, under the variable that is read."""
    assert {name: variable for name, (variable, _) in rows().items()} == config._VARIABLES


def spelled(name: str, value: object) -> str:
    """How the README writes a default."""
    if value is None:
        return {"endpoint": "a socket in the state folder", "keys_dir": "`keys` in the state folder"}.get(
            name, "none"
        )
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
            if name.endswith("_bytes_max") and value >= size:
                return f"{value // size} {unit}"
        return f"{value:,.0f}"
    return f"`{value}`"


@pytest.mark.parametrize("name", [name for name in config._VARIABLES if name != "state_dir"])
def test_the_readmes_defaults_are_the_codes(name: str) -> None:
    """What stands there first is what holds when nothing is set."""
    _, default = rows()[name]
    value = getattr(config.load(environ={"HOME": "/home/nobody"}), name)
    assert default.startswith(spelled(name, value))
