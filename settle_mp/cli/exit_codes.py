"""What each exit code of settle-mp means, for scripts and supervisors.

3 and 4 are never used: gunicorn halts when any child of its arbiter ends with one of them.
"""

from __future__ import annotations

from typing import Final

#: Done, and everything that was asked for holds.
OK: Final = 0

#: It ran, and what was asked for does not hold (books that do not balance, a flush with something pending).
FAILED: Final = 1

#: The command line itself is wrong; click's own code for that.
USAGE: Final = 2

#: `settle-mp doctor` found something that should be mended, and nothing that must be.
WARNED: Final = 10

#: Another collector holds the state folder. sysexits.h EX_TEMPFAIL: it may work later.
ALREADY_RUNNING: Final = 75

#: A setting cannot be used. sysexits.h EX_CONFIG: trying again without a change is of no use.
CONFIG: Final = 78

#: Ctrl-C, as shells write it: 128 + SIGINT.
INTERRUPTED: Final = 130
