"""The code blocks of a page, and what its author says of them; docs/writing.md has the conventions.

Rule 1: whatever is fenced is a block, in lists and quotes as well, and so is hidden code.
Rule 2: a block is run or checked by its language, or says in a line that readers see why it is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[2]

#: Languages whose blocks are run, and those that are checked in another way.
RUN: Final = frozenset({"python", "sh"})
CHECKED: Final = frozenset({"toml", "json", "ini"})
#: No code: what a program prints, and drawings.
TEXT: Final = "text"

_HIDDEN: Final = re.compile(r"<!--\s*run (python|sh)\n(.*?)-->", re.DOTALL)
_NOT_RUN: Final = re.compile(r"\*Not run by the tests: (.+)\.\*")
_RUN_BY: Final = re.compile(r"<!--\s*run by (\S+)\s*-->")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block.

    Attributes:
        language: The first word behind its fence.
        text: What it holds.
        line: Where its text begins in the page, from 1.
        not_run: Why it is not run, if the line before it says so.
        is_hidden: Whether readers don't see it.
    """

    language: str
    text: str
    line: int
    not_run: str | None = None
    is_hidden: bool = False


def pages() -> list[Path]:
    """Every page that readers see, relative to the repository."""
    found = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")]
    return sorted(path.relative_to(ROOT) for path in found)


def run_by(text: str) -> str | None:
    """The test that runs a page's blocks in its own way, where the page names one."""
    found = _RUN_BY.match(text)
    return found and found[1]


def blocks(text: str) -> list[Block]:
    """All blocks of a page, in order."""
    found: list[Block] = []
    before = ""
    for token in MarkdownIt("commonmark").parse(text):
        start = token.map[0] + 1 if token.map else 0
        if token.type in {"fence", "code_block"}:
            found.append(_fenced(token.info, token.content, start + (token.type == "fence"), before))
        elif token.type == "html_block" and (hidden := _HIDDEN.match(token.content)):
            found.append(Block(language=hidden[1], text=hidden[2], line=start + 1, is_hidden=True))
        if token.content:
            before = token.content
    return found


def _fenced(info: str, text: str, line: int, before: str) -> Block:
    language = (info.split() or [""])[0]
    mark = _NOT_RUN.fullmatch(" ".join(before.split("\n")))
    return Block(language=language, text=text, line=line, not_run=mark and mark[1])


def fault(block: Block) -> str | None:
    """Say what keeps a block from being run, if its author does not."""
    if block.language in RUN | CHECKED | {TEXT} or block.not_run:
        return None
    if not block.language:
        return "it has no language; drawings and output are `text`"
    return f"{block.language} is neither run nor checked; say why in the line before it"
