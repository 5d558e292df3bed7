"""The catalogue's order table is what the proofs and the measurements say today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from selection import is_representative
from weakorder.reports.pages.orders import BEGIN, END, SHOWN, markdown, with_table

TABLE = (Path(__file__).parents[3] / "docs" / "gallery" / "orders.md").read_text()
FEW = [scheme for scheme in SHOWN if is_representative(scheme) or scheme.name in ("DEIS-2", "vp-DDIM")]


@pytest.fixture(scope="module")
def rows() -> list[str]:
    """Of a few schemes; the nightly run makes the whole table."""
    return markdown(FEW).splitlines()


def test_the_order_tables_rows_are_not_stale(rows: list[str]) -> None:
    assert [line for line in rows if line not in TABLE.splitlines()] == []


def test_a_changed_digit_makes_a_row_stale(rows: list[str]) -> None:
    changed = re.sub(r"(\|[^|]*\| 1\.00 \| )(\d)", lambda found: f"{found[1]}{(int(found[2]) + 1) % 10}", TABLE)
    assert len([line for line in rows if line not in changed.splitlines()]) == len(FEW) - 1  # all but that of order 2


@pytest.mark.nightly
def test_the_order_table_is_not_stale() -> None:
    assert with_table(TABLE, markdown(SHOWN)) == TABLE


def test_a_file_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="mark it with"):
        with_table("no marks", "table")
    with pytest.raises(ValueError, match="mark it with"):
        with_table(BEGIN, "table")
    assert with_table(f"a{BEGIN}b{END}c", "T") == f"a{BEGIN}\nT\n{END}c"
