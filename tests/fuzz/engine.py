"""One target under atheris: `python -m tests.fuzz.engine TARGET [libFuzzer's options] [corpus folders]`."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Run until libFuzzer ends the process."""
    with atheris.instrument_imports(include=["settle_mp.core", "settle_mp.collector.decoder"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
