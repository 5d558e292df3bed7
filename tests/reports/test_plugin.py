"""The pytest plugin: three lines test a sampler, failures show the slopes, and who does not use it does not notice."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox import baseline
from weakorder.verification.testing import UPDATE, assert_matches_baseline

SAMPLER = """
import torch

def step(u, tau, h, score):
    x, m = u.unbind(1)
    s_x, s_m = score(u, 1 - tau).unbind(1)
    drift = torch.stack([4 * (0.01 * x - 4 * m + 0.02 * s_x), 4 * (x + 4.01 * m + 2.005 * s_m)], dim=1)
    scale = torch.tensor([0.08, 8.02], dtype=u.dtype).sqrt().reshape(2, *(1,) * (u.ndim - 2))
    return u + h * drift + FACTOR * h**0.5 * scale * torch.randn_like(u)

FACTOR = 1.0
"""
THREE_LINES = """
from weakorder.verification.testing import assert_weak_order
from sampler import step

def test_my_sampler():
    assert_weak_order(step, 1, steps=(25, 50, 100, 200))
"""
WRONG = """
import sampler

def test_a_wrong_one(monkeypatch):
    monkeypatch.setattr(sampler, "FACTOR", 1.1)
    test_my_sampler()
"""
WITH_BASELINE = """
import sampler

def test_my_sampler(weakorder):
    weakorder.assert_matches_baseline(sampler.step, "baseline.json", steps=(5, 10, 20, 40))
"""


def run_pytest(folder: Path, *arguments: str) -> tuple[int, str]:
    """A session of a user, in the user's folder, with warnings as errors."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's, whose own folders have our folders' names."""
    for name in ("theory", "integrators", "verification", "reports", "examples"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OURS = False\n")
    (tmp_path / "conftest.py").write_text(
        "import examples, integrators, reports, theory, verification\n"
        "assert not any(m.OURS for m in (examples, integrators, reports, theory, verification))\n"
    )
    (tmp_path / "sampler.py").write_text(SAMPLER)
    return tmp_path


def test_three_lines_test_a_sampler_beside_the_users_own_folders(repository: Path) -> None:
    (repository / "tests").mkdir()
    (repository / "tests" / "__init__.py").touch()
    (repository / "tests" / "test_mine.py").write_text(THREE_LINES)
    (repository / "tests" / "test_wrong.py").write_text((THREE_LINES + WRONG).replace("test_my_sampler", "my_test"))
    code, out = run_pytest(repository)
    assert (code, "1 failed, 1 passed" in out) == (1, True), out
    assert "the noise covariance of m and m is 1.21 times what is right" in out
    assert re.search(r"steps +NFE +W2 error +slope", out)


@pytest.mark.nightly
def test_a_baseline_is_written_on_demand_and_compared_after(repository: Path) -> None:
    (repository / "test_mine.py").write_text(WITH_BASELINE)
    assert run_pytest(repository, "--weakorder-update")[0] == 0
    (repository / "test_none.py").write_text(WITH_BASELINE.replace("baseline.json", "none.json"))
    (repository / "test_wrong.py").write_text(
        WITH_BASELINE
        + WRONG.replace("1.1", "1 + 1e-9")
        .replace("sampler()", "sampler(weakorder)")
        .replace("(monkeypatch)", "(monkeypatch, weakorder)")
    )
    code, out = run_pytest(repository)
    assert (code, "2 failed, 2 passed" in out) == (1, True), out
    assert "cannot read the baseline" in out
    assert "--weakorder-update" in out
    assert "noise covariance of m and m is 1.000000002 times what it was" in out
    assert "if that is meant: pytest --weakorder-update" in out


def test_a_baseline_is_recorded_again_with_what_it_was_recorded_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of `record`; that its file says so is a test of the night."""
    path, steps = tmp_path / "baseline.json", [2, 4, 8, 16]
    kept = {"parameters": asdict(Parameters(kappa=0.1)), "event": [], "order": {"expected": 2, "steps": steps}}
    asked: list[Any] = []
    monkeypatch.setattr(baseline, "load", lambda _: kept)
    monkeypatch.setattr(baseline, "save", lambda *_: None)
    monkeypatch.setattr(baseline, "record", lambda *words, diffusion: asked.append(words[2:]))
    monkeypatch.setenv(UPDATE, "1")
    path.touch()
    assert_matches_baseline(CATALOGUE["RSE"], path)
    assert_matches_baseline(CATALOGUE["RSE"], path, steps=[*steps[1:], 32])
    path.unlink()
    assert_matches_baseline(CATALOGUE["RSE"], path)
    assert asked == [
        (Parameters(kappa=0.1), (), 2, steps),
        (Parameters(kappa=0.1), (), 2, [4, 8, 16, 32]),
        (Parameters(), (), 1, baseline.BLACK_BOX_STEPS),
    ]


@pytest.mark.nightly
def test_a_baseline_that_is_rewritten_keeps_what_the_test_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "baseline.json", [2, 4, 8, 16]
    baseline.save(baseline.record("rse", CATALOGUE["RSE"], Parameters(kappa=0.1), expected=2, steps=steps), path)
    monkeypatch.setenv(UPDATE, "1")
    assert_matches_baseline(CATALOGUE["RSE"], path)
    kept = baseline.load(path)
    assert (kept["parameters"]["kappa"], kept["order"]["expected"], kept["order"]["steps"]) == (0.1, 2, steps)
    assert_matches_baseline(CATALOGUE["RSE"], path, steps=[*steps[1:], 32])
    assert baseline.load(path)["order"]["steps"] == [4, 8, 16, 32]


def test_a_session_that_does_not_use_it_imports_nothing_heavy(repository: Path) -> None:
    (repository / "test_light.py").write_text(
        "import sys\n\n\ndef test_light():\n"
        "    assert 'weakorder.reports.pytest_plugin' in sys.modules\n"
        "    assert not {'torch', 'sympy', 'scipy', 'weakorder.verification.testing'} & set(sys.modules)\n"
    )
    code, out = run_pytest(repository)
    assert code == 0, out
