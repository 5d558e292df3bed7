"""The notebooks run as they are kept, without a warning, and show what their text says that they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def _read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def _run(notebook: Any, folder: Path) -> list[str]:
    """What each code cell shows, its values as HTML where they have it; raises CellExecutionError."""
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [out.text for cell in cells for out in cell.outputs if out.get("name") == "stderr"] == []
    return ["".join(_shown(out) for out in cell.outputs) for cell in cells]


def _shown(output: Any) -> str:
    data = output.get("data", {})
    return output.get("text", "") or data.get("text/html") or data.get("image/png") or data.get("text/plain", "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.nightly
def test_verify_and_explore(tmp_path: Path) -> None:
    shown = _run(_read("verify-and-explore"), tmp_path)
    word, mine, passed, proof, failed, _, buggy, mended, distances, scaled = shown
    for scheme in (word, mine):
        assert "<svg" in scheme
    assert 'PASS">PASS' in passed
    assert proof.startswith("order 1\n")
    assert 'FAIL">FAIL' in failed
    assert "the weights of O sum to 3/4, not 1" in failed
    assert 'FAIL">FAIL' in buggy
    assert "noise covariance" in buggy
    assert 'PASS">PASS' in mended
    rows = re.findall(r"<tr><td>lambda_s = .*</tr>", distances)
    table = np.array([re.findall(r"<td>([\d.]+)</td>", row) for row in rows], dtype=float)
    assert table.shape == (4, 4)
    assert (np.diff(table, axis=0) < 0).all(), "more noise does not end nearer"
    assert "<svg" in distances
    assert 'FAIL">FAIL' in scaled
    assert "lambda_s = 1.2 changes the noise" in scaled


@pytest.mark.nightly
def test_a_users_own_data_set(tmp_path: Path) -> None:
    _, size, picture, distances, best, least = _run(_read("your-own-data"), tmp_path)
    assert size.startswith("1000 images, 768 eigenvalues")
    assert len(picture) > 10_000
    assert "<svg" in distances
    assert len(best.splitlines()) == 4
    assert "steps" in least


@pytest.mark.nightly
def test_a_cell_that_fails_is_an_error(tmp_path: Path) -> None:
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)\n1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        _run(broken, tmp_path)
