"""Monte Carlo on an anchor's noise, of one component, of two and of three: the last states have within standard errors
the exact moments of run and anchor together, and those of a broken coupling have not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from anchored_specimens import forgetful, shifted
from diffusions import PARTED_THIRD, WHOLE_THIRD
from weakorder.integrators.anchored import Anchor, AnchoredRun, anchor_to, sample_anchored
from weakorder.integrators.catalogue import CATALOGUE, POSITION
from weakorder.integrators.coupling import couple
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import integrate
from weakorder.theory.scheme import Scheme
from weakorder.verification.sampled.calibration import exact_coupled_moments
from weakorder.verification.targets.gaussian import GaussianLaw, GaussianTarget
from weakorder.verification.targets.mixture import MixtureTarget
from weakorder.verification.verdicts.estimates import threshold

PATHS, FINE, COARSE = 1 << 12, 24, 14
CASES = [
    (POSITION["vp-DDPM"], POSITION["vp-EM"]),
    (POSITION["vp-EM"], POSITION["vp-SDE-DPM-Solver++2M"]),
    (CATALOGUE["ROBA"], CATALOGUE["SSCS"]),
    (Scheme("S O B A", PARTED_THIRD, "third-SOBA"), Scheme("S F", WHOLE_THIRD, "third-exact", flow="exact")),
]
Broken = Callable[[AnchoredRun], AnchoredRun]


class Sampled:
    """Of the last states of anchor and run, u and v: sampled u_i, v_i, u_i u_j, v_i v_j and (u_i - v_i) (u_j - v_j), of
    which coupling makes the last small, in columns, and their exact means."""

    def __init__(self, fine: Scheme, scheme: Scheme, broken: Broken = lambda run: run) -> None:
        diffusion = fine.splitting.diffusion
        params = diffusion.parameters(beta_min=2.0, beta_max=2.0)  # few steps of three components are stable
        grids = [time_grid("quadratic", steps, params, 0.1) for steps in (FINE, COARSE)]
        anchor, numbers = Anchor(fine, grids[0], params), torch.arange(PATHS)
        target = MixtureTarget.of([1], [[0.5]], [[[0.25]]], params, diffusion=diffusion, name="gaussian")
        run = broken(anchor_to(anchor, scheme, grids[1]))
        u, normals = target.sample(params.T, numbers, 1), anchor.draw(numbers, target.event, 1)
        last = [
            integrate(anchor.run, target.score, u, anchor.noise(normals, u.dtype)),
            sample_anchored(run, target.score, u, normals, numbers, 1),
        ]
        u, v = (state.reshape(PATHS, -1).numpy() for state in last)
        squares = [(w[:, :, None] * w[:, None]).reshape(PATHS, -1) for w in (u, v, u - v)]
        self.values = np.concatenate([u, v, *squares], axis=1)
        law = GaussianTarget.of(0.5, 0.25, diffusion, params)
        self.exact = moments(exact_coupled_moments(couple([(fine, grids[0]), (scheme, grids[1])], params), law))

    @property
    def furthest(self) -> float:
        """The largest deviation from the exact value, in standard errors."""
        errors = self.values.std(0, ddof=1) / PATHS**0.5
        return float((np.abs(self.values.mean(0) - self.exact) / errors).max())


def moments(law: GaussianLaw) -> np.ndarray:
    """The exact means of the columns, from the law of u and v together."""
    mean, cov = law.mean[:, 0], law.cov[:, :, 0]
    second, n = cov + np.outer(mean, mean), len(mean) // 2
    uu, uv, vv = second[:n, :n], second[:n, n:], second[n:, n:]
    return np.concatenate([mean, *(square.reshape(-1) for square in (uu, vv, uu + vv - uv - uv.T))])


@pytest.mark.parametrize(("fine", "scheme"), CASES, ids=[f"{scheme.name} on {fine.name}" for fine, scheme in CASES])
def test_run_and_anchor_have_their_exact_moments_and_those_of_broken_couplings_are_others(
    fine: Scheme, scheme: Scheme
) -> None:
    assert Sampled(fine, scheme).furthest < threshold()
    for broken in (shifted, forgetful):
        assert Sampled(fine, scheme, broken).furthest > threshold()
