"""What the pages say of their own examples, beyond that they run: the box is Euler-Maruyama, the prior is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from document_blocks import Block, blocks_of, pages
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.loading import find_sampler, find_scheme
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.probing import probed_moments
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.targets.gaussian import GaussianTarget

BLOCKS = [block for path in pages(Path(__file__).parent.parent) for block in blocks_of(path.read_text())]


def _block(mark: str, file: str = "") -> Block:
    return next(block for block in BLOCKS if block.language == "python" and block.file == file and mark in block.text)


@pytest.fixture
def box(tmp_path: Path) -> str:
    """The pages' black box, as FILE.py:OBJ."""
    (tmp_path / "box.py").write_text(_block("def step(", "box.py").text)
    return f"{tmp_path / 'box.py'}:step"


def test_the_black_box_is_euler_maruyama(box: str) -> None:
    step = find_sampler(box)
    target = GaussianTarget.of(0.5, 0.25, CATALOGUE["EM"].splitting.diffusion, Parameters())
    taus = time_grid("uniform", 20, Parameters())
    actual = probed_moments(step, target, taus).computed
    expected, other = (exact_moments(CATALOGUE[name], target, taus).computed for name in ("EM", "ROBA"))
    np.testing.assert_allclose(actual.cov, expected.cov, rtol=1e-9)
    assert not np.allclose(actual.cov, other.cov, rtol=1e-3)


def test_the_third_order_langevin_sampler_is_a_sampler_with_noise(tmp_path: Path) -> None:
    (tmp_path / "third.py").write_text(_block("THIRD = ", "third.py").text)
    assert find_scheme(f"{tmp_path / 'third.py'}:euler").splitting.whole.has_noise


def test_the_sampling_example_keeps_the_prior() -> None:
    scope: dict[str, object] = {}
    exec(_block("draw_prior(").text, scope)
    u = scope["u"]
    assert u.shape == (8, 2, 3, 32, 32)
    # With the prior's own score the law stays near N(0, 1) x N(0, M): 24,576 values, far from 0 or a blow-up.
    assert 0.5 < float(u[:, 0].var()) < 1.5
