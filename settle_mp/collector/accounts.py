"""Double entry: each bucket as a running total, and added up from its rows.

Rule: whoever adds or takes away a row that holds events carries its bucket's total in the same transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from settle_mp.collector import schema
from settle_mp.collector.ledger_error import LedgerDamagedError
from settle_mp.core.books import Amount, amount_of
from settle_mp.core.fold import number_text, parse_number, total

if TYPE_CHECKING:
    from settle_mp.collector.database import Database
    from settle_mp.collector.schema import Table

#: Receipts of single hours are kept for so long; older ones are merged into one row a bucket.
RECEIPT_HOURS: Final = 30 * 24
_MERGED_HOUR: Final = -1

# Integers of up to nine digits are added up by SQLite: 2**63 is far, and a ledger may hold a million rows.
_IS_SHORT: Final = "length(quantity) <= 9 AND quantity NOT GLOB '*[^0-9]*'"

_BUCKET_ROWS: Final[dict[str, tuple[tuple[Table, str], ...]]] = {
    "committed": ((schema.PRODUCERS, "1"), (schema.DEPARTED, "1")),
    "confirmed": ((schema.RECEIPTS, "bucket = 'confirmed'"),),
    "pending": ((schema.FRAMES, "1"), (schema.SUMS, "1"), (schema.BATCHES, "first_in_doubt_s IS NULL")),
    "in_doubt": ((schema.BATCHES, "first_in_doubt_s IS NOT NULL"),),
    "dead_lettered": ((schema.DEAD_LETTERS, "1"),),
    "discarded": ((schema.RECEIPTS, "bucket = 'discarded'"),),
}


def carry(database: Database, bucket: str, amount: Amount) -> None:
    """Add to a bucket's running total."""
    rows = database.select(schema.TOTALS, "WHERE bucket = ?", (bucket,))
    if not rows:
        msg = f"the total of {bucket} is missing"
        raise LedgerDamagedError(msg)
    new = Amount(rows[0][1], parse_number(rows[0][2])) + amount
    database.replace(schema.TOTALS, [(bucket, new.events, number_text(new.quantity))])


def move(database: Database, source: str, target: str, amount: Amount) -> None:
    """Carry what went from one bucket to another."""
    carry(database, source, Amount() - amount)
    carry(database, target, amount)


def receipt(database: Database, bucket: str, hour: int, amount: Amount) -> None:
    """Add to the row of an hour that stands for what is no longer here."""
    where = "WHERE bucket = ? AND hour = ?"
    rows = database.select(schema.RECEIPTS, where, (bucket, hour))
    known = Amount(rows[0][2], parse_number(rows[0][3])) if rows else Amount()
    new = known + amount
    row = (bucket, hour, new.events, number_text(new.quantity))
    if rows:
        database.replace(schema.RECEIPTS, [row])
    else:
        database.insert(schema.RECEIPTS, [row])


def merge_receipts(database: Database, hour: int) -> None:
    """Merge the receipts of hours long before `hour`."""
    condition = "hour > ? AND hour < ?"
    bounds = (_MERGED_HOUR, hour - RECEIPT_HOURS)
    old = database.select(schema.RECEIPTS, f"WHERE {condition}", bounds)
    if not old:
        return
    database.delete(schema.RECEIPTS, condition, bounds)
    for bucket in {row[0] for row in old}:
        amount = amount_of(Amount(row[2], parse_number(row[3])) for row in old if row[0] == bucket)
        receipt(database, bucket, _MERGED_HOUR, amount)


def amount_in(database: Database, table: Table, where: str = "1") -> Amount:
    """What the rows of a table hold, added up exactly."""
    sql = (
        f"SELECT COALESCE(SUM(events), 0), COALESCE(SUM(CASE WHEN {_IS_SHORT} THEN CAST(quantity AS INTEGER)"  # noqa: S608  our own text
        f" ELSE 0 END), 0) FROM {table.name} WHERE {where}"
    )
    ((events_count, short),) = database.rows(sql)
    others = database.rows(f"SELECT quantity FROM {table.name} WHERE ({where}) AND NOT ({_IS_SHORT})")  # noqa: S608
    return Amount(events_count, total([short, *(parse_number(text) for (text,) in others)]))


def totals(database: Database) -> dict[str, Amount]:
    """The running totals that are there, `in_doubt_ever` included."""
    rows = database.select(schema.TOTALS)
    return {bucket: Amount(events, parse_number(quantity)) for bucket, events, quantity in rows}


def bucket_rows(database: Database) -> dict[str, Amount]:
    """`committed` and each bucket, from their own rows."""
    return {
        bucket: amount_of(amount_in(database, table, where) for table, where in sources)
        for bucket, sources in _BUCKET_ROWS.items()
    }


def missing_rows(database: Database) -> list[str]:
    """Each row that every ledger has, and this one lost."""
    faults = []
    for table, names in (
        (schema.META, schema.META_NAMES),
        (schema.TOTALS, schema.TOTAL_NAMES),
        (schema.ROW_COUNTS, [table.name for table in schema.COUNTED]),
    ):
        there = {row[0] for row in database.select(table)}
        faults += [f"{table.name}: the row of {name} is missing" for name in names if name not in there]
    return faults


def row_faults(database: Database) -> list[str]:
    """Each table that lost or gained a row by other hands than ours."""
    faults = missing_rows(database)
    counts = dict(database.select(schema.ROW_COUNTS))
    for table in schema.COUNTED:
        found = database.value(f"SELECT COUNT(*) FROM {table.name}")  # noqa: S608  our own text
        if found != counts.get(table.name, found):
            faults.append(f"{table.name}: {found} rows, {counts[table.name]} were written")
    return faults


def counters(database: Database) -> dict[str, int]:
    """Small counts that survive."""
    return dict(database.select(schema.COUNTERS))


def set_counter(database: Database, name: str, value: int) -> None:
    """Write a small count."""
    if name in counters(database):
        database.replace(schema.COUNTERS, [(name, value)])
    else:
        database.insert(schema.COUNTERS, [(name, value)])
