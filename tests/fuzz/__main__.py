"""`make fuzz`: every target under libFuzzer, guided by coverage, from the corpus on.

    python -m tests.fuzz                               # 1,000,000 inputs a target
    python -m tests.fuzz --runs 50000 segment message
    python -m tests.fuzz --keep                        # and add what reached new code to the corpus

An input that fails is written to `.fuzz/`, and printed. Where atheris has no wheel nothing is done, with exit
code 0: the same targets meet the corpus and mutations of it in `make test`.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.fuzz.corpus import CORPUS, inputs, keep
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

ROOT: Final = Path(__file__).parent.parent.parent
#: What libFuzzer finds stays here between runs.
FOUND: Final = ROOT / ".fuzz"
#: Bytes of an input: a header has 4,096, and some more to be too long.
INPUT_BYTES_MAX: Final = 4300
#: Bytes of an input that is kept in the corpus at most, the seeds aside.
KEPT_BYTES_MAX: Final = 400
#: Seconds that one input may take: it is hung then.
HANG_S: Final = 10


def main() -> int:
    """Run the targets one after the other; 1 when an input fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help="default: all")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs a target")
    parser.add_argument("--keep", action="store_true", help="add what reached new code to the corpus")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        say(f"skipped: atheris has no wheel for Python {sys.version.split()[0]} on {sys.platform}")
        return 0
    codes = [fuzz(target, options.runs) for target in options.targets]
    if options.keep:
        for target in options.targets:
            keep_found(target)
    return max(codes)


def fuzz(target: str, runs: int) -> int:
    """Give a target so many inputs, and say how it went."""
    found = FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    ended = engine(target, f"-runs={runs}", str(found), str(CORPUS / target))
    figures = dict(re.findall(r"^stat::(\w+):\s+(\d+)$", ended.stderr, re.MULTILINE))
    covered = re.findall(r"cov: (\d+) ft: (\d+)", ended.stderr)[-1:] or [("?", "?")]
    fate = "no crash, no hang, no forgery" if ended.returncode == 0 else "FAILED"
    say(
        f"{target:<8} {int(figures.get('number_of_executed_units', 0)):>9,} inputs"
        f" {time.monotonic() - started_s:>5.0f} s  {covered[0][0]:>4} branches  {fate}"
    )
    if ended.returncode:
        say(ended.stdout + ended.stderr)
    return int(ended.returncode != 0)


def engine(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run libFuzzer on a target until it ends."""
    command = [sys.executable, "-m", "tests.fuzz.engine", target, *arguments]
    command += [f"-timeout={HANG_S}", f"-max_len={INPUT_BYTES_MAX}", "-print_final_stats=1"]
    command += [f"-artifact_prefix={FOUND}/{target}-"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def keep_found(target: str) -> None:
    """Add to the corpus the smallest found inputs that go where none in the corpus went."""
    # libFuzzer's own merge starts itself anew, which it can't as a module of Python's.
    been = {step for data in inputs(target) for step in steps(target, data)}
    found = sorted((path.read_bytes() for path in (FOUND / target).iterdir()), key=len)
    kept_count = 0
    for data in found:
        new = steps(target, data) - been
        if new and len(data) <= KEPT_BYTES_MAX:
            keep(target, data)
            been |= new
            kept_count += 1
    say(f"{target:<8} {kept_count} inputs kept, {len(inputs(target))} in all")


def steps(target: str, data: bytes) -> set[tuple[str, int, int]]:
    """Which line of the product followed which while a target had an input."""
    taken: set[tuple[str, int, int]] = set()

    def trace(frame: FrameType, _event: str, _value: object) -> Callable[..., Any] | None:
        path = frame.f_code.co_filename
        if "settle_mp" not in path:
            return None
        last = 0

        def step(inner: FrameType, _event: str, _value: object) -> Callable[..., Any]:
            nonlocal last
            taken.add((path, last, inner.f_lineno))
            last = inner.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        TARGETS[target](data)
    finally:
        sys.settrace(None)
    return taken


def say(text: str) -> None:
    """Print at once, whoever reads it."""
    sys.stdout.write(text.rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
