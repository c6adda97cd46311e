"""Logging, set up here and nowhere else: one line a record, its `extra=` fields as key=value."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone
from typing import Final

from settle_mp.core.secret import hide_keys

#: What `--log-level` may be.
LEVELS: Final = ("debug", "info", "warning", "error")

#: What logging itself puts into a record; everything else came through `extra=`.
_OWN_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_PLAIN: Final = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f]+")


class LineFormatter(logging.Formatter):
    """Time in UTC, level, event name, fields; a traceback becomes two more fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line without API keys."""
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields = {name: value for name, value in record.__dict__.items() if name not in _OWN_FIELDS}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = repr(record.exc_info[1])
            fields["traceback"] = self.formatException(record.exc_info)
        words = [time.replace("+00:00", "Z"), record.levelname, _one_line(record.getMessage())]
        words += [f"{name}={_quoted(value)}" for name, value in fields.items()]
        return hide_keys(" ".join(words))


def configure(level: str) -> None:
    """Send what settle_mp logs at the level or above, and warnings of everybody else, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("settle_mp").setLevel(level.upper())


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
