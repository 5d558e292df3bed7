"""The table of words of the libraries' samplers is what `identify` says of them today."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from weakorder.integrators.unmodified import SAMPLERS, SCHEDULERS
from weakorder.reports.pages.orders import with_table
from weakorder.reports.pages.words import BEGIN, END, markdown, rows_of
from weakorder.verification.unmodified import SURVEYS, Configuration

TABLE = (Path(__file__).parents[3] / "docs" / "gallery" / "words.md").read_text()
# A word, and one that is none, of the library whose samplers are made at once.
FEW = [Configuration("k-diffusion", name) for name in ("sample_euler_ancestral", "sample_heun")]


@pytest.fixture(scope="module")
def rows() -> list[str]:
    return markdown("k-diffusion", FEW).splitlines()


def test_the_rows_of_a_word_and_of_none_are_not_stale(rows: list[str]) -> None:
    assert len(rows) == 4
    assert [line for line in rows if line not in TABLE.splitlines()] == []


def test_another_word_makes_a_row_stale(rows: list[str]) -> None:
    changed = TABLE.replace("vp-DDPM", "vp-DDIM").replace("asks twice", "asks once").splitlines()
    assert [line for line in rows[2:] if line not in changed] == rows[2:]


def test_every_sampler_of_both_libraries_has_a_row_and_one_alone_a_grid() -> None:
    named = Counter(
        line.split("|")[1].strip(" `").split(" ")[0] for line in TABLE.splitlines() if line.startswith("| `")
    )
    assert set(named) == {*SCHEDULERS, *SAMPLERS}
    rows = [
        tuple(cell.strip() for cell in line.split("|")[1:3]) for line in TABLE.splitlines() if line.startswith("| `")
    ]
    assert len(set(rows)) == len(rows)
    assert len(rows) > sum(map(len, SURVEYS.values()))  # Karras' grid beside


def test_a_sampler_with_other_settings_has_one_row_alone() -> None:
    ships, other = (
        Configuration("k-diffusion", "sample_euler"),
        Configuration("k-diffusion", "sample_euler", (("s_churn", 1.0),)),
    )
    assert [row.grid for row in rows_of(ships)] == [row.grid for row in rows_of(other)] == ["karras"]


@pytest.mark.nightly
@pytest.mark.parametrize("library", SURVEYS)
def test_the_table_of_words_is_not_stale(library: str) -> None:
    assert markdown(library) in TABLE


def test_the_table_stands_between_its_marks() -> None:
    assert with_table(TABLE, "T", (BEGIN, END)).count("T\n" + END) == 1
