"""Pages from templates, and the names that chapters share."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, conjugate_scheme
from weakorder.reports.pages import templates as pages
from weakorder.reports.pages.naming import labels_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose templates a test may write."""
    (tmp_path / "templates").mkdir()
    monkeypatch.setattr(pages.resources, "files", lambda package: tmp_path)
    return tmp_path / "templates"


def test_values_are_escaped_in_html_and_stand_as_they_are_in_markdown(folder: Path) -> None:
    for name in ("page.html.j2", "card.md.j2"):
        (folder / name).write_text("{% include 'part.' + kind %}")
    (folder / "part.html.j2").write_text("{{ value }}")
    (folder / "part.md.j2").write_text("{{ value }}")
    assert pages.template("page.html.j2", {}).render(value="a < b", kind="html.j2") == "a &lt; b"
    assert pages.template("card.md.j2", {}).render(value="a < b", kind="md.j2") == "a < b"


def test_a_name_that_nobody_gave_is_an_error(folder: Path) -> None:
    (folder / "page.html.j2").write_text("{{ vallue }}")
    with pytest.raises(jinja2.UndefinedError, match="vallue"):
        pages.template("page.html.j2", {}).render(value=1)


@pytest.mark.parametrize("package", ["theory", "integrators", "verification"])
def test_no_chapter_imports_what_another_keeps_private(package: str) -> None:
    private = [
        f"{path.name}: {name.name}"
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
        for name in node.names
        if name.name.startswith("_")
    ]
    assert not private


def test_a_scheme_is_called_by_its_name_and_by_what_is_changed_of_it() -> None:
    held, conjugate, roba = EXPONENTIAL["SDE-DPM-Solver++2M"], conjugate_scheme("CSPS-S"), CATALOGUE["ROBA"]
    changed = (
        replace(held, memory=3, order=2),
        replace(conjugate, lambda_s=1.1),
        replace(CATALOGUE["ROBA"], flow="exact"),
    )
    assert labels_of([held, conjugate, roba]) == ["SDE-DPM-Solver++2M", "CSPS-S", "ROBA"]
    assert labels_of(changed) == [
        "SDE-DPM-Solver++2M (exact, data held, memory 3)",
        "CSPS-S λ=1.1 (exact, eps held)",
        "ROBA (exact)",
    ]
    assert labels_of([conjugate_scheme("CSPS-S", 0.2)]) == ["CSPS-S (exact, eps held)"]
