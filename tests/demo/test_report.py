"""What is told at the end: the right figures, readable in any terminal."""

from __future__ import annotations

import io
from decimal import Decimal
from fractions import Fraction

import pytest
from rich.console import Console

from settle_mp.demo import report
from settle_mp.demo.screen import Screen
from settle_mp.demo.traffic import KINDS
from settle_mp.demo.verdict import TypeVerdict, Verdict


def a_verdict(*faults: str, cut_off: int = 6, size: int = 60_000) -> Verdict:
    """Make the verdict of a large run."""
    types = tuple(
        TypeVerdict(
            kind,
            answered_count=size + number,
            cut_off_count=cut_off,
            cut_off_billed_count=cut_off // 2,
            billed=(size + 3) * kind.quantity,
            lost_count=len(faults),
            rows_count=1_000,
            http_requests=Fraction(21, 2),
        )
        for number, kind in enumerate(KINDS)
    )
    return Verdict(types=types, faults=faults)


def printed(table: report.Table, width: int) -> str:
    """Print a table as a terminal of this width would."""
    file = io.StringIO()
    Screen(Console(file=file, width=width, highlight=False)).table(table)
    return file.getvalue()


def test_the_bill_has_all_figures() -> None:
    """A row each type and a total; what a client that batches by 50 would have sent is beside it."""
    table = report.bill_table(a_verdict(), 34)
    assert [len(row) for row in table.rows] == [len(table.heads)] * 4
    assert table.rows[1] == ("VIDEO_MINUTES", "60,001", "6", "6,000.3", "0", "0", "10", "1,201")
    assert table.rows[3] == ("all", "180,003", "18", "126,006.3", "0", "0", "34", "3,601")
    assert "18" in table.note
    assert "9 had tracked" in table.note


def test_nothing_is_said_of_requests_cut_off_when_there_are_none() -> None:
    """A kill can hit a worker between two requests."""
    assert "cut off" not in report.bill_table(a_verdict(cut_off=0), 1).note


def test_more_than_kills_explain_is_said() -> None:
    """Some gunicorns cut requests off without any kill, and the column's name would be wrong then."""
    few, many = (report.bill_table(a_verdict(cut_off=each), 1).note for each in (6, 60))
    assert "recycles" not in few
    assert "recycles" in many


def test_folding_is_shown_with_the_rule_and_without() -> None:
    """Without its rule, an event type whose events all differ is not folded at all."""
    with_rule, no_metadata, without_rule = report.folding_table(a_verdict()).rows
    assert with_rule[2:] == ("60,003", "1,000", "60,003")
    assert no_metadata[2:] == without_rule[2:] == ("60,003", "1,000", "")
    assert 'drop = ["request_id"]' in report.rule_text()


@pytest.mark.parametrize("table", [report.bill_table(a_verdict(), 34), report.folding_table(a_verdict())])
def test_tables_fit_into_80_columns(table: report.Table) -> None:
    """With ten times the usual requests, too."""
    lines = printed(table, 80).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    for row in table.rows:
        assert any(all(cell in line for cell in row) for line in lines), row


def test_no_figure_is_cut_short() -> None:
    """However many there are, and however narrow the terminal is."""
    table = report.bill_table(a_verdict(size=6_000_000), 34)
    lines = printed(table, 40).splitlines()
    for row in table.rows:
        assert any(all(cell in line for cell in row) for line in lines), row


def test_the_prologue_says_what_will_happen() -> None:
    """In lines that fit anywhere."""
    text = report.prologue(20_000, 4)
    assert "20,000" in text
    assert "SIGKILL" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_last_line_says_whether_it_holds() -> None:
    """And in which way not."""
    right, wrong = report.result_line(a_verdict()), report.result_line(a_verdict("a", "b"))
    assert right.startswith("EXACT: 180,003 ")
    assert wrong.startswith("WRONG: 180,003 ")
    assert "6 lost" in wrong
    assert max(len(right), len(wrong)) <= 80


def test_faults_are_told_up_to_a_bound() -> None:
    """A thousand of them are not a thousand lines."""
    verdict = a_verdict(*(f"fault {number}" for number in range(1_000)))
    lines = report.fault_lines(verdict)
    assert lines[0] == "fault 0"
    assert lines[-1] == f"and {1_000 - report.FAULTS_SHOWN} more like these"
    assert len(lines) == report.FAULTS_SHOWN + 1
    assert report.fault_lines(a_verdict("a")) == ["a"]


def test_no_units_are_a_plain_zero() -> None:
    """Not 0E-1 or 0.0."""
    verdict = Verdict(types=(TypeVerdict(KINDS[1], billed=Decimal("0.0")),), faults=())
    assert report.bill_table(verdict, 0).rows[0][3] == "0"
