"""The benchmark of the algebra of small matrices: its candidates are one function each, and it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from benchmarks import algebra


@pytest.mark.parametrize("batch", [(1,), (5,), (3, 4)], ids=str)
@pytest.mark.parametrize("function", [*algebra.FUNCTIONS, "law"])
def test_the_candidates_have_the_same_answers(function: str, batch: tuple[int, ...]) -> None:
    if function == "law" and len(batch) > 1:
        batch = batch[:1]
    algebra.check(function, algebra.candidates(function, batch))


def test_a_candidate_that_is_another_function_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = algebra.TwoByTwo.matmul
    monkeypatch.setattr(algebra.TwoByTwo, "matmul", staticmethod(lambda a, b: right(b, a)))
    with pytest.raises(ValueError, match=r"2x2 written out: matmul differs by .*: it is another function"):
        algebra.measured("matmul", (5,), 1, "cpu")
    with pytest.raises(ValueError, match="congruence differs"):
        algebra.measured("congruence", (5,), 1, "cpu")
    algebra.measured("inverse", (5,), 1, "cpu")


def test_the_benchmark_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(algebra, "BATCHES", ((2,), (2, 3)))
    monkeypatch.setattr(algebra, "ENOUGH", 1)
    monkeypatch.setattr(sys, "argv", ["algebra.py", "--repetitions", "1", "--json", str(tmp_path / "a.json")])
    algebra.main()
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert len(rows) == 3 * (2 * len(algebra.FUNCTIONS) + 1)
    assert {row["name"] for row in rows} == {algebra.OURS, algebra.PEER, algebra.NUMPY}
    assert all((row["ratio"] is None) == (row["name"] == algebra.OURS) for row in rows)
    assert capsys.readouterr().out.count("\n") == 2 * len(algebra.FUNCTIONS) + 2
