"""The package's sources as data: every module, what it imports, and what follows from that."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import settle_mp

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(settle_mp.__file__).parent


class Import(NamedTuple):
    """One import statement's target. Lazy ones stand in a function, typing ones under TYPE_CHECKING."""

    target: str
    is_lazy: bool
    is_typing: bool


def module_name(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Find every import in a source text, down to the module where a name is one."""
    base = module if is_package else module.rpartition(".")[0]

    def visit(node: ast.AST, *, is_lazy: bool, is_typing: bool) -> Iterator[Import]:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (Import(target, is_lazy, is_typing) for target in _targets(node, base))
        is_lazy = is_lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        typed = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
        for child in ast.iter_child_nodes(node):
            yield from visit(child, is_lazy=is_lazy, is_typing=is_typing or child in typed)

    yield from visit(ast.parse(source), is_lazy=False, is_typing=False)


def _targets(node: ast.Import | ast.ImportFrom, base: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    parents = base.split(".")
    up = parents[: len(parents) - (node.level - 1)] if node.level else []
    origin = ".".join([*up, node.module] if node.module else up)
    inner = [f"{origin}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else origin for name in inner]


IMPORTS = {
    module: list(imports(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py"))
    for module, path in MODULES.items()
}


def reached_at_import(start: str, graph: dict[str, list[Import]]) -> dict[str, str]:
    """Return everything that importing a module imports, each with the module that does it."""
    reached: dict[str, str] = {}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        for each in graph.get(module, ()):
            if each.is_lazy or each.is_typing:
                continue
            parents = [each.target.rsplit(".", count)[0] for count in range(each.target.count(".") + 1)]
            for target in parents:
                if target != start and target not in reached:
                    reached[target] = module
                    waiting.append(target)
    return reached


def cycle(graph: dict[str, list[Import]]) -> list[str]:
    """Return the modules of one import cycle, lazy imports counted, or nothing."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done or module not in graph:
            return []
        for each in graph[module]:
            found = [] if each.is_typing else walk(each.target, [*path, module])
            if found:
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := walk(module, []))), [])
