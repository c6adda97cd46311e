"""`python -m settle_mp.cli`: the program for those who start it by interpreter and not by PATH."""

from __future__ import annotations

from settle_mp.cli.main import main

if __name__ == "__main__":
    main()
