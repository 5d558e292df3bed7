"""Schemes that hold another quantity than the score, or hold it over several evaluations: tables, moments, samples.

One answer three times: by hand (tests/held_by_hand.py), by exact moments, and read off the sampler with unit states and
unit noises. Then what the flows are in closed form, and that each way to get the mechanics wrong is seen.
"""

from __future__ import annotations

import numpy as np
import pytest
from held_by_hand import run_by_hand
from sampler_probe import probe
from weakorder.theory.frozen import FROZEN, SCORE_HELD
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW, PSLD_FLOW_WHOLE, PSLD_LINEAR, PSLD_WHOLE
from weakorder.verification.exact.moments import step_maps
from weakorder.verification.targets import GaussianTarget

LINEAR_BETA = Parameters(gamma=0.3, nu=2.1, kappa=0.1, beta_min=0.5, beta_max=9.0)
TAUS = np.array([0.1, 0.3, 0.38, 0.61])  # steps of ratios 0.4 and 2.9
WORDS = [
    ("S F", PSLD_WHOLE, "exact"),
    ("S F", PSLD_FLOW_WHOLE, "exact"),
    ("U(1/2) S@1/2 E U(1/2)", PSLD_LINEAR, "exact"),
    ("O S@1/4 B(1/2) A S@3/4 B(1/2)", PSLD, "exact"),
    ("S B A", PSLD_FLOW, "exact"),
]


def scheme_of(case: tuple, frozen=SCORE_HELD, memory: int = 1, **options) -> Scheme:
    word, splitting, flow = case
    return Scheme(word, splitting, flow=flow, frozen=frozen, memory=memory, **options)


def composed(scheme: Scheme, target: GaussianTarget, taus: np.ndarray) -> tuple[np.ndarray, ...]:
    """R, b and Q of a run by exact moments: of the state, from a state without memory."""
    maps = step_maps(scheme, target, taus)
    total = type(maps)(*(entry[..., 0, :] for entry in maps))
    for k in range(1, len(taus) - 1):
        total = total.then(type(maps)(*(entry[..., k, :] for entry in maps)))
    return total.matrix[:2, :2, 0], total.offset[:2, 0], total.noise_cov[:2, :2, 0]


def assert_same_map(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...], tolerance: float) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("memory", [1, 2, 3])
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=str)
@pytest.mark.parametrize("case", WORDS, ids=lambda case: f"{case[0]} on {case[1].name}")
def test_moments_and_samples_are_what_a_run_by_hand_gives(case: tuple, frozen, memory: int) -> None:
    scheme = scheme_of(case, frozen, memory, lambda_s=1.2 if case[1] in (PSLD, PSLD_WHOLE) else 1.0)
    target = GaussianTarget.of(0.7, 0.4, PSLD_DIFFUSION, LINEAR_BETA)
    by_hand = run_by_hand(scheme, target, TAUS)
    assert_same_map(composed(scheme, target, TAUS), by_hand, 1e-10)
    assert_same_map(probe(scheme, target, TAUS, LINEAR_BETA), by_hand, 1e-10)


@pytest.mark.parametrize("memory", [2, 3, 4])
@pytest.mark.parametrize("case", [("S F", PSLD_WHOLE, "euler"), ("U(1/2) S E U(1/2)", PSLD_LINEAR, "euler")], ids=str)
def test_euler_with_memory_is_adams_bashforth_by_hand(case: tuple, memory: int) -> None:
    scheme = scheme_of(case, memory=memory)
    target = GaussianTarget.of(0.7, 0.4, PSLD_DIFFUSION, LINEAR_BETA)
    by_hand = run_by_hand(scheme, target, TAUS)
    assert_same_map(composed(scheme, target, TAUS), by_hand, 1e-10)
    assert_same_map(probe(scheme, target, TAUS, LINEAR_BETA), by_hand, 1e-10)
