"""What mkdocs asks while it builds the site: pages from elsewhere in the repository, tables from the code.

The home page is the README, and each example's README is a page, so that nothing is written twice. Links are
written as GitHub takes them and turned into the site's here.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import griffe
from mkdocs.structure.files import File

from settle_mp import config as settings
from settle_mp.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]

#: Columns of a command's help.
HELP_COLUMNS: Final = 80

#: For the tests alone (docs/writing.md). One in a page's first line would hide its title as well.
_FOR_TESTS: Final = re.compile(r"^<!-- run .*?-->\n*", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)?(?P<anchor>#[^)\s]+)?\)")


def pages_from_elsewhere() -> dict[str, str]:
    """The site's pages that don't stand in docs/, each with its file in the repository."""
    examples = sorted(ROOT.glob("examples/*/README.md"))
    return {
        "index.md": "README.md",
        "changelog.md": "CHANGELOG.md",
        **{f"examples/{path.parent.name}.md": str(path.relative_to(ROOT)) for path in examples},
    }


# --- What mkdocs calls ---


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder where the navigation names it, and what it does not name at its end."""
    found = [
        *pages_from_elsewhere(),
        *(str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")),
    ]
    found.sort(key=lambda uri: (not uri.endswith("README.md"), uri))
    nav = _expanded(config.nav or [], found)
    named = repr(nav)
    rest = [uri for uri in found if repr(uri) not in named]
    config.nav = [*nav, *([{"More": rest}] if rest else [])]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand elsewhere."""
    for uri, source in pages_from_elsewhere().items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links and placeholders into what the site has."""
    del config, files
    uri = page.file.src_uri
    source = pages_from_elsewhere().get(uri, f"docs/{uri}")
    if uri != "writing.md":
        markdown = _FOR_TESTS.sub("", markdown)
    markdown = _LINK.sub(lambda link: _linked(link, uri, source), markdown)
    for placeholder, made in (
        ("<!-- settings -->", settings_table),
        ("<!-- commands -->", commands_reference),
    ):
        if placeholder in markdown:
            markdown = markdown.replace(placeholder, made())
    return markdown


# --- Navigation and links ---


def _expanded(nav: list[Any], found: list[str]) -> list[Any]:
    expanded: list[Any] = []
    for entry in nav:
        ((title, under),) = entry.items() if isinstance(entry, dict) else ((None, entry),)
        if isinstance(under, list):
            expanded.append({title: _expanded(under, found)})
        elif under.endswith("/"):
            listed = [uri for uri in found if uri.startswith(under)]
            expanded += [{title: listed}] if listed else []
        else:
            expanded.append(entry)
    return expanded


def _linked(link: re.Match[str], uri: str, source: str) -> str:
    target, anchor = link["target"], link["anchor"] or ""
    if target is None or "://" in target or target.startswith(("mailto:", "<")):
        return link[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    of_file = {source: uri for uri, source in pages_from_elsewhere().items()}
    found = of_file.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if found is None:
        # A file of the repository, and no page.
        return f"`{link['text'].strip('`')}`"
    return f"[{link['text']}]({posixpath.relpath(found, posixpath.dirname(uri) or '.')}{anchor})"


# --- Tables from the code ---


def settings_table() -> str:
    """Every setting: its name, variable, meaning and what it may be."""
    parsed = griffe.Docstring(inspect.getdoc(settings.Settings) or "").parse("google")
    (attributes,) = (each.value for each in parsed if each.kind is griffe.DocstringSectionKind.attributes)
    said = {each.name: " ".join(each.description.split()) for each in attributes}
    rows = [
        f"| `{name}` | `{settings._VARIABLES[name]}` | {said[name]} | {kind.allowed} |"
        for name, kind in settings._KINDS.items()
    ]
    return "\n".join(["| setting | environment | what it is | allowed |", "| --- | --- | --- | --- |", *rows])


def commands_reference() -> str:
    """The help of every command."""
    parts = [
        f"{'#' * level} {name}\n\n```text\n{text}\n```" for level, name, text in _helps(cli, "settle-mp", 2)
    ]
    return "\n\n".join(parts)


def _helps(command: click.Command, name: str, level: int) -> Iterator[tuple[int, str, str]]:
    context = click.Context(
        command, info_name=name, terminal_width=HELP_COLUMNS, max_content_width=HELP_COLUMNS
    )
    yield level, name, command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            under = command.get_command(context, each)
            if under is not None:
                yield from _helps(under, f"{name} {each}", min(level + 1, 4))
