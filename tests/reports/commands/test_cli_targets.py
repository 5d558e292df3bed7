"""`verify --target` and `report --self-test` on the command line: which method runs, what it says, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from weakorder.reports.commands import cli


def _run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["weakorder", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), *capsys.readouterr()


def test_one_dimension_is_computed_without_sampling(monkeypatch, capsys) -> None:
    arguments = ("verify", "RSE", "--target", "mixture", "--steps", "50,100,200,400", "--json")
    code, out, _ = _run(monkeypatch, capsys, *arguments)
    answer = json.loads(out)
    assert (code, answer["verdict"], answer["target"], answer["order"]["proven"]) == (0, "PASS", "mixture", 1)
    assert all(level["estimate"] < 1e-7 < abs(level["error"]) for level in answer["levels"])
    assert "paths" not in answer["levels"][0]


def test_a_broken_scheme_fails_there_too(monkeypatch, capsys) -> None:
    arguments = ("verify", "S B A(1/2)", "--splitting", "psld-flow", "--target", "mixture", "--steps", "4,8,16,32")
    code, out, err = _run(monkeypatch, capsys, *arguments)
    assert code == 1
    assert out.splitlines()[-1] == "FAIL: not consistent: the weights of A sum to 1/2, not 1"
    assert "warning: " in err


def test_more_dimensions_are_sampled_within_a_budget(monkeypatch, capsys, tmp_path: Path) -> None:
    arguments = ("verify", "EM", "--target", "mixture", "--dim", "2", "--steps", "8,16,32,64", "--evaluations", "1e6")
    kept = ("--checkpoint", str(tmp_path / "kept.npz"))
    code, out, _ = _run(monkeypatch, capsys, *arguments, *kept, "--json")
    answer = json.loads(out)
    assert code == {"PASS": 0, "INCONCLUSIVE": 3}[answer["verdict"]]
    assert all(level["paths"] > 0 for level in answer["levels"][:-1])
    again, text, _ = _run(monkeypatch, capsys, *arguments, *kept)
    assert again == code
    assert text.splitlines()[0] == "EM = S F on psld-whole (euler sub-flows): mixture (2), 1 NFE/step"
    assert text.splitlines()[-1].startswith(answer["verdict"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "mixtur"), "mixture"),
        (("--dim", "2"), "--dim is for a --target"),
        (("--seconds", "2"), "--seconds is for a --target"),
        (("--target", "mixture", "--method", "noise-free", "--seed", "1"), "--seed is for sampling"),
        (("--target", "banana", "--method", "noise-free"), "one data dimension, (1,); sample the others"),
        (("--target", "mixture", "--data-mean", "1"), "do not belong to --target"),
        (("--target", "mixture", "--checkpoint", "no/such/folder/c.npz"), "make it first"),
        (("--target", "empirical-cifar10", "--data", "no.npz"), "no.npz"),
        (("--target", "mixture", "--steps", "10,20"), "4 or more"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = _run(monkeypatch, capsys, "verify", "ROBA", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_black_box_has_no_nonlinear_target(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text("def step(u, tau, h, score):\n    return u\n")
    code, _, err = _run(monkeypatch, capsys, "verify", f"{tmp_path / 'box.py'}:step", "--target", "mixture")
    assert (code, err.count("\n")) == (2, 1)
    assert "is a black box" in err


def test_the_self_test_takes_no_samplers(monkeypatch, capsys, tmp_path: Path) -> None:
    code, _, err = _run(monkeypatch, capsys, "report", "ROBA", "--self-test", "-o", str(tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()
