"""The README's order table is what the proofs and the measurements say today, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from selection import is_representative
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.loading import find_sampler, find_scheme
from weakorder.reports.pages.orders import BEGIN, END, SHOWN, markdown, with_table
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.consistency import inconsistencies
from weakorder.verification.blackbox.probing import probed_moments
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.order import study_order
from weakorder.verification.targets.gaussian import GaussianTarget
from weakorder.verification.verdicts.verdict import Verdict

README = (Path(__file__).parent.parent / "README.md").read_text()


FEW = [scheme for scheme in SHOWN if is_representative(scheme) or scheme.name in ("DEIS-2", "vp-DDIM")]


@pytest.fixture(scope="module")
def rows() -> list[str]:
    """Of a few schemes; the nightly run makes the whole table."""
    return markdown(FEW).splitlines()


def test_the_order_tables_rows_are_not_stale(rows: list[str]) -> None:
    assert [line for line in rows if line not in README.splitlines()] == []


def test_a_changed_digit_makes_a_row_stale(rows: list[str]) -> None:
    changed = re.sub(r"(\|[^|]*\| 1\.00 \| )(\d)", lambda found: f"{found[1]}{(int(found[2]) + 1) % 10}", README)
    assert len([line for line in rows if line not in changed.splitlines()]) == len(FEW) - 1  # all but that of order 2


@pytest.mark.nightly
def test_the_order_table_is_not_stale() -> None:
    assert with_table(README, markdown(SHOWN)) == README


def test_a_file_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="mark it with"):
        with_table("no marks", "table")
    with pytest.raises(ValueError, match="mark it with"):
        with_table(BEGIN, "table")
    assert with_table(f"a{BEGIN}b{END}c", "T") == f"a{BEGIN}\nT\n{END}c"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_readmes_splitting_verifies(tmp_path: Path) -> None:
    declaration = next(block for block in _blocks("python") if "Splitting(" in block)
    (tmp_path / "mine.py").write_text(declaration)
    study = study_order(find_scheme(f"{tmp_path / 'mine.py'}:strang"), Parameters())
    assert study.verdict is Verdict.PASS


def test_the_readmes_third_order_langevin_sampler_verifies(tmp_path: Path) -> None:
    (tmp_path / "third.py").write_text(next(block for block in _blocks("python") if "THIRD = " in block))
    scheme = find_scheme(f"{tmp_path / 'third.py'}:euler")
    study = study_order(scheme, Parameters(beta_min=2, beta_max=2), t_end=0.5)
    assert study.verdict is Verdict.PASS
    assert scheme.splitting.whole.has_noise


def test_the_readmes_black_box_is_euler_maruyama(tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text(next(block for block in _blocks("python") if "def step(" in block))
    step = find_sampler(f"{tmp_path / 'box.py'}:step")
    target = GaussianTarget.of(0.5, 0.25, CATALOGUE["EM"].splitting.diffusion, Parameters())
    taus = time_grid("uniform", 20, Parameters())
    actual, expected = (
        probed_moments(step, target, taus).computed,
        exact_moments(CATALOGUE["EM"], target, taus).computed,
    )
    np.testing.assert_allclose(actual.cov, expected.cov, rtol=1e-9)


def test_the_readmes_sampling_example_runs_and_keeps_the_prior() -> None:
    scope: dict[str, object] = {}
    exec(next(block for block in _blocks("python") if "draw_prior(" in block), scope)
    u = scope["u"]
    assert u.shape == (8, 2, 3, 32, 32)
    # With the prior's own score the law stays near N(0, 1) x N(0, M): 24,576 values, far from 0 or a blow-up.
    assert 0.5 < float(u[:, 0].var()) < 1.5


@pytest.mark.parametrize("word", sorted(set(re.findall(r'weakorder \w+ "([^"]+)"', README))))
def test_every_word_of_the_readme_parses(word: str) -> None:
    if "X" not in word:
        assert find_scheme(word).word == word


def test_the_readmes_three_lines_pass_and_its_wrong_sampler_is_told_what_is_wrong(tmp_path: Path, monkeypatch) -> None:
    box, test = (next(block for block in _blocks("python") if mark in block) for mark in ("def step(", "def test_my"))
    (tmp_path / "box.py").write_text(box)
    monkeypatch.syspath_prepend(tmp_path)
    scope: dict = {}
    exec(test, scope)
    scope["test_my_sampler"]()
    (tmp_path / "louder.py").write_text(box.replace("h**0.5 * scale", "1.1 * h**0.5 * scale"))
    (wrong, _) = inconsistencies(find_sampler(f"{tmp_path / 'louder.py'}:step"), Parameters())
    assert f"not consistent: {wrong}" in README
