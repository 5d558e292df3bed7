"""Diffusions of any number of components: what is known in closed form of one, and three by hand.

The second sources are the formulas of the papers in position alone, written out here, and what must not depend on how
components are put together: independent copies of a diffusion side by side are that diffusion.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.linalg
import sympy as sp
from diffusions import THIRD
from sympy import Matrix
from weakorder.theory.flow_proof import residuals
from weakorder.theory.flows import exact_flow
from weakorder.theory.frozen import DATA_HELD, FROZEN, NumericKernel
from weakorder.theory.held_flows import held_flow
from weakorder.theory.kernel import kernel, moment_residuals, mu
from weakorder.theory.model import (
    DIFFUSIONS,
    PSLD_DIFFUSION,
    STATIONARY,
    Diffusion,
    LinearSDE,
    a,
    m,
    s_a,
    s_x,
    theta,
    x,
)
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import LANGEVIN, PSLD, VP_FLOW, VP_WHOLE, Part, Splitting
from weakorder.theory.weak_order import prove_order

VP = DIFFUSIONS["vp"]
ONE = sp.S.One
# Higher-order Langevin dynamics whose rates are roots of an irreducible cubic.
IRREDUCIBLE = Diffusion(
    "irreducible",
    LinearSDE((m, -x + 2 * a, -2 * m - 6 * a), (sp.S.Zero, sp.S.Zero, sp.sqrt(12))),
    (sp.Rational(1, 4), sp.Rational(1, 9)),
    (ONE, ONE, ONE),
)


def copies(n: int) -> Diffusion:
    """n independent copies of vp."""
    u = (x, m, a)[:n]
    return Diffusion("copies", LinearSDE(tuple(-c / 2 for c in u), (ONE,) * n), (ONE,) * (n - 1), (ONE,) * n)


def whole(diffusion: Diffusion, noise: float = 1) -> Splitting:
    dynamics = diffusion.reverse(noise)
    return Splitting("whole", diffusion, dynamics, (Part("F", dynamics.drift, dynamics.diffusion),))


def test_a_diffusion_has_the_components_that_its_sde_has() -> None:
    assert VP.components == ("x",)
    assert PSLD_DIFFUSION.components == ("x", "m")
    assert THIRD.components == ("x", "m", "a")
    assert THIRD.score_names == ("x", "m", "a", "t")
    for diffusion in (VP, THIRD):
        assert pickle.loads(pickle.dumps(diffusion)) == diffusion
    assert VP.parameters().beta_max == pickle.loads(pickle.dumps(VP)).parameters().beta_max == 20
    assert VP.parameters(beta_max=3.0).beta_max == 3
    with pytest.raises(ValueError, match=r"data_variance \(\).* give a tuple of 1"):
        Diffusion("short", PSLD_DIFFUSION.forward, ())
    with pytest.raises(ValueError, match="dynamics of 1 and 2 components; all have those of 'vp'"):
        Splitting("mixed", VP, PSLD_DIFFUSION.reverse(), (Part("F", PSLD_DIFFUSION.reverse().drift),))
    with pytest.raises(ValueError, match="unknown symbol m"):
        LinearSDE((m,))
    with pytest.raises(ValueError, match="diffusion has 1 entries; it has as many as drift, 2"):
        LinearSDE((x, m), (ONE,))


def test_the_kernel_of_vp_is_alpha_and_sigma() -> None:
    mean, cov = kernel(VP)
    assert sp.simplify(mean[0] - sp.exp(-theta / 2) * mu) == 0
    assert sp.simplify(cov[0] - (1 - sp.exp(-theta))) == 0
    numbers = NumericKernel(VP, np.array([0.3, 2.0]), VP.parameters().values())
    np.testing.assert_allclose(numbers.factor[:, 0, 0], np.sqrt(-np.expm1(-numbers.theta)), rtol=1e-15)


@pytest.mark.parametrize("diffusion", [VP, THIRD], ids=lambda d: d.name)
def test_laws_and_flows_of_any_number_of_components_are_proven(diffusion: Diffusion) -> None:
    flow = exact_flow(diffusion.forward).matrices
    assert all(entry == 0 for left in residuals(diffusion.forward, *flow) for entry in left)
    P, K, Q = flow
    broken = residuals(diffusion.forward, P, K, Q + theta * sp.eye(diffusion.size))
    assert any(entry != 0 for entry in broken[4])
    mean = P * Matrix([mu, *(0 for _ in diffusion.data_variance)])
    start = sp.diag(0, *diffusion.data_variance)
    cov = P * start * P.T + Q
    left = moment_residuals(diffusion, mean, cov)
    assert all(entry == 0 for matrix in left[:3] for entry in matrix)


def test_every_amount_of_noise_keeps_the_laws_and_no_other_score_does() -> None:
    for noise in (0, sp.Rational(1, 3), 0.5, 1, 2):
        dynamics = VP.reverse(noise if isinstance(noise, float | int) else float(noise))
        assert whole(VP, float(noise)).whole == dynamics
    assert VP.reverse(1) == VP_WHOLE.whole
    assert VP.reverse(0) == VP.probability_flow() == VP_FLOW.whole
    half = VP.reverse(0.5)
    louder = LinearSDE((half.drift[0] + s_x / 8,), half.diffusion)
    with pytest.raises(ValueError, match="does not keep the laws p_t of diffusion 'vp': its drift of x has s_x/8"):
        Splitting("louder", VP, louder, (Part("F", louder.drift, louder.diffusion),))
    with pytest.raises(ValueError, match="noise = -1"):
        VP.reverse(-1)


# --- The papers' one-step formulas ------------------------------------------------------------------------------------


BEGIN, END = 1.3, 0.4  # int beta at a step's beginning and end
ALPHA, SIGMA = (lambda t: np.exp(-t / 2)), (lambda t: np.sqrt(-np.expm1(-t)))
STEP = float(np.log(ALPHA(END) / SIGMA(END)) - np.log(ALPHA(BEGIN) / SIGMA(BEGIN)))  # of log-SNR, h


def one_step(noise: float, held: str) -> tuple[float, float, float]:
    """P, K and Q of u <- P u + K q + xi with `held` held from the beginning."""
    found = held_flow(VP.reverse(noise), FROZEN[held], VP, [BEGIN], [BEGIN - END], [[0.0]], VP.parameters().values())
    return float(found.propagator[0, 0, 0]), float(found.gains[0, 0, 0, 0]), float(found.noise_cov[0, 0, 0])


def test_ddim_is_the_flow_with_eps_held() -> None:
    """Song, Meng and Ermon 2021, equation 12: alpha' (x - sigma eps) / alpha + sigma' eps."""
    ratio = ALPHA(END) / ALPHA(BEGIN)
    want = (ratio, SIGMA(END) - ratio * SIGMA(BEGIN), 0.0)
    np.testing.assert_allclose(one_step(0, "eps"), want, rtol=1e-13, atol=1e-15)
    assert one_step(0, "data")[0] == pytest.approx(SIGMA(END) / SIGMA(BEGIN), rel=1e-13)


def test_ancestral_ddpm_is_the_sde_with_the_data_held() -> None:
    """Ho, Jain and Abbeel 2020, equations 6 and 7, of one step from alpha_bar to alpha_bar'."""
    bar, before = ALPHA(BEGIN) ** 2, ALPHA(END) ** 2
    beta = 1 - bar / before
    want = (
        np.sqrt(1 - beta) * (1 - before) / (1 - bar),
        np.sqrt(before) * beta / (1 - bar),
        (1 - before) / (1 - bar) * beta,
    )
    np.testing.assert_allclose(one_step(1, "data"), want, rtol=1e-13)
    assert abs(one_step(1, "data")[2] / beta - 1) > 0.1  # the forward variance is another


def test_seeds_1_is_the_sde_with_eps_held() -> None:
    """Gonzalez et al. 2023, equation 9: alpha'/alpha x - 2 sigma' (e^h - 1) eps + sigma' (e^(2h) - 1)^(1/2) z."""
    want = (ALPHA(END) / ALPHA(BEGIN), -2 * SIGMA(END) * np.expm1(STEP), SIGMA(END) ** 2 * np.expm1(2 * STEP))
    np.testing.assert_allclose(one_step(1, "eps"), want, rtol=1e-13)


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0, 1.5])
def test_sa_solver_is_any_amount_of_noise_with_the_data_held(tau: float) -> None:
    """Xue et al. 2023, proposition 4.2: sigma'/sigma e^(-tau^2 h) x + alpha' (1 - e^(-(1 + tau^2) h)) x_0 + noise of
    variance sigma'^2 (1 - e^(-2 tau^2 h))."""
    want = (
        SIGMA(END) / SIGMA(BEGIN) * np.exp(-(tau**2) * STEP),
        -ALPHA(END) * np.expm1(-(1 + tau**2) * STEP),
        -(SIGMA(END) ** 2) * np.expm1(-2 * tau**2 * STEP),
    )
    np.testing.assert_allclose(one_step(tau, "data"), want, rtol=1e-12, atol=1e-15)


# --- Orders as theorems -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0, 0.5, 1])
@pytest.mark.parametrize("memory", [1, 2, 3])
def test_the_order_of_an_exponential_integrator_does_not_depend_on_the_components(memory: int, noise: float) -> None:
    """Claim: with data held over k evaluations the flow's steps have order k, those with noise min(k, 2), and a run 2
    at most. (What is left out of phase space takes half a minute to derive.)"""
    phase_space = [] if (memory, noise) in {(2, 0.5), (3, 0.5), (3, 0)} else [PSLD_DIFFUSION]
    for diffusion in (VP, *phase_space):
        scheme = Scheme("S F", whole(diffusion, noise), flow="exact", frozen=DATA_HELD, memory=memory)
        proof = prove_order(scheme, linear_beta=False)
        assert (proof.order, proof.order_of_steps) == (min(memory, 2), memory if noise == 0 else min(memory, 2))


def test_three_components_have_orders_and_a_slip_is_seen() -> None:
    scheme = Scheme("S F", whole(THIRD), flow="exact")
    proof = prove_order(scheme, linear_beta=True)
    assert proof.order == 1
    assert proof.coordinates == ("x", "m", "a")
    cut = Splitting(
        "cut",
        THIRD,
        THIRD.reverse(),
        (
            Part("L", (*(-d for d in THIRD.forward.drift[:2]), sp.S.Zero)),
            Part(
                "N", (sp.S.Zero, sp.S.Zero, sp.Rational(6, 5) * s_a - THIRD.forward.drift[2]), THIRD.forward.diffusion
            ),
        ),
    )
    assert prove_order(Scheme("S L N", cut)).order == 1
    assert prove_order(Scheme("S L N(1/2)", cut)).order == 0


def test_a_flow_without_closed_form_is_known_in_numbers() -> None:
    flow = exact_flow(IRREDUCIBLE.forward)
    with pytest.raises(ValueError, match="has no closed form: its rates are roots of a polynomial of degree 3"):
        _ = flow.matrices
    A, _, D = IRREDUCIBLE.forward.numbers(VP.parameters().values())
    P, _, Q = flow(0.7, VP.parameters().values())
    E, stationary = scipy.linalg.expm(0.7 * A), scipy.linalg.solve_continuous_lyapunov(A, -D)
    # Entries that cancel are right to the last digits of the matrix, whose largest are about 1.
    np.testing.assert_allclose(P, E, rtol=0, atol=1e-13)
    np.testing.assert_allclose(Q, stationary - E @ stationary @ E.T, rtol=0, atol=1e-13)
    assert prove_order(Scheme("S F", whole(IRREDUCIBLE))).order == 1


# --- Any amount of noise ----------------------------------------------------------------------------------------------


def test_a_splitting_of_one_part_takes_any_amount_of_noise() -> None:
    """dx = [x/2 + (1 + noise^2) / 2 s] dtheta + noise dw: 0 is the flow, 1 the SDE itself; a float is its decimal."""
    third = VP_WHOLE.with_noise(0.3)
    assert [sp.expand(entry) for entry in third.whole.drift] == [x / 2 + sp.Rational(109, 200) * s_x]
    assert third.whole.diffusion == (sp.Rational(3, 10),)
    assert third.parts[0].sde == third.whole != VP_WHOLE.whole
    assert (third.part_names, third.name) == (("F",), "vp-whole (noise 0.3)")
    assert VP_WHOLE.with_noise(0).whole == VP_FLOW.whole == VP_FLOW.with_noise(0).whole
    assert VP_WHOLE.with_noise(1) is VP_WHOLE
    assert VP_FLOW.with_noise(1).whole == VP_WHOLE.whole
    assert prove_order(Scheme("S F", third, flow="exact", frozen=DATA_HELD)).order == 1


def test_a_noise_that_nothing_says_how_to_share_is_refused() -> None:
    with pytest.raises(ValueError, match="of splitting 'psld': how its parts O, A, B share it is not said"):
        PSLD.with_noise(0.5)
    still = Splitting("still", STATIONARY, LANGEVIN.whole, (Part.of("F", LANGEVIN.whole),))
    with pytest.raises(ValueError, match="'stationary' adds none that dynamics could have more or less of"):
        still.with_noise(0.5)
    for bad in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be a number in"):
            VP_WHOLE.with_noise(bad)
