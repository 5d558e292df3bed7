"""The tables of known answers are what is measured today, and every cell of them is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from weakorder.reports.pages.known import ORDERS, SIZES, orders, row_of, sizes
from weakorder.reports.pages.orders import with_table
from weakorder.verification.unmodified import KNOWN, SIZED, slopes_of

PAGE = (Path(__file__).parents[3] / "docs" / "gallery" / "known.md").read_text()
LMS = next(known for known in KNOWN if known.name == "sample_lms")


def test_the_row_of_lms_is_not_stale_and_another_order_makes_it_stale() -> None:
    rows = PAGE.splitlines()
    assert row_of(LMS) in rows
    assert row_of(replace(LMS, settings={"order": 3})) not in rows
    assert row_of(replace(LMS, prototype=2.19)).endswith("| agrees |")


def test_every_known_answer_has_a_row() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == len(KNOWN) + len(SIZED) + 2
    for known in KNOWN:
        assert sum(row.startswith(f"| {known.said} | {known.grid} | {known.prototype:g} |") for row in rows) == 1
    for sized in SIZED:
        assert sum(row.startswith(f"| {sized.said} | {sized.prototype} |") for row in rows) == 1


def test_a_slope_that_rounded_timesteps_hide_is_left_out() -> None:
    """From 1e-6 on the timesteps of UniPC-3, rows of a table, are what is seen; k-diffusion's are not rounded."""
    (hidden,) = (row for row in PAGE.splitlines() if row.startswith("| UniPC-3 "))
    assert ", - from 20 on" in hidden
    assert np.isfinite(slopes_of(replace(LMS, steps=(320, 640))).together).all()


def test_what_differs_has_a_reason() -> None:
    for row in PAGE.splitlines():
        if row.startswith("| ") and "---" not in row and len(cells := row.strip("| ").split(" | ")) == 8:
            assert cells[-1].strip()


def test_the_tables_stand_between_their_marks() -> None:
    assert with_table(with_table(PAGE, "T", ORDERS), "U", SIZES).count("T\n" + ORDERS[1]) == 1


@pytest.mark.nightly
def test_the_table_of_known_orders_is_not_stale() -> None:
    assert orders() in PAGE


@pytest.mark.nightly
def test_the_table_of_known_sizes_is_not_stale() -> None:
    assert sizes() in PAGE
