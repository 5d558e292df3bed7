"""What the proof says of a budget's terms, against what the terms are at small steps.

Both share no line: one is a word expanded for a generic score (advice.budget_leading), integrated along the exact flow,
the other a difference of exact moments. Every check of a term fails for budgets that leave its replacement out.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import sympy as sp
from budget_cases import leave_out, params_of
from error_constants import T_END
from numpy.typing import NDArray
from selection import nightly_but
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION, conjugate_scheme
from weakorder.theory.formulas import parse
from weakorder.theory.frozen import EPS_HELD
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_FLOW
from weakorder.theory.symbols import PARAMETERS
from weakorder.theory.weak_order import prove_order
from weakorder.verification.advice.budget import budget_of, replacements
from weakorder.verification.advice.budget_leading import leading_errors
from weakorder.verification.advice.budget_measures import OnGaussian

Array = NDArray[np.float64]


def named(scheme: Scheme) -> str:
    return f"{scheme.name}-{scheme.flow}"


PROVEN = (
    replace(CATALOGUE["ROBA"], lambda_s=1.2),
    CATALOGUE["ROBAB"],
    CATALOGUE["RVV"],
    CATALOGUE["SSCS"],
    CATALOGUE["EM"],
    Scheme("S@1/2 B(1/3) O S@1/4 A B(2/3)@1/4", PSLD, "clocks"),
    replace(CATALOGUE["ROBAB"], flow="midpoint"),
    Scheme("S B(1/2) A S@1 B(1/2)", PSLD_FLOW, "eps", "exact", frozen=EPS_HELD),
    conjugate_scheme("CSPS-D"),
    POSITION["vp-DDPM"],
)
SMALL = ("ROBA", "eps")
STEPS = (40, 80, 160)


def measured(scheme: Scheme, orders: dict[str, int]) -> dict[str, Array]:
    """Every step's term over h^p as h -> 0, moment by moment: three runs, and the terms in h and h^2 removed."""
    measure = OnGaussian(0.5, 0.25, scheme.splitting.diffusion, params_of(scheme))
    runs = [budget_of(scheme, measure, steps, start="exact", denoise=False, t_end=T_END) for steps in STEPS]
    found = {}
    for term in runs[0].terms[:-1]:
        name = str(term.source)
        hs = [(1 - T_END) / steps for steps in STEPS]
        ratios = [run[name].values[1:] / h ** orders[name] for run, h in zip(runs, hs, strict=True)]
        once = [2 * fine - coarse for coarse, fine in pairwise(ratios)]
        found[name] = (4 * once[1] - once[0]) / 3
    return found


@cache
def predicted(scheme: Scheme) -> dict[str, tuple[int, Array]]:
    """The order and the constants of every term that comes from steps."""
    target = OnGaussian(0.5, 0.25, scheme.splitting.diffusion, params_of(scheme)).target
    found = {}
    for leading in leading_errors(scheme):
        law = leading.constants(scheme, target, T_END)
        pairs = np.triu_indices(len(law.mean))
        found[str(leading.source)] = leading.order, np.array([*law.mean[:, 0], *law.cov[pairs][:, 0]])
    return found


def disagreements(scheme: Scheme) -> dict[str, float]:
    """By term, how far the measured constants are off, relative to the largest of all terms'."""
    claimed = predicted(scheme)
    seen = measured(scheme, {name: order for name, (order, _) in claimed.items()})
    assert seen.keys() == claimed.keys()
    size = max(float(np.abs(values).max()) for _, values in claimed.values())
    return {name: float(np.abs(seen[name] - values).max()) / size for name, (_, values) in claimed.items()}


@pytest.mark.parametrize("scheme", nightly_but(lambda scheme: scheme.name in SMALL, PROVEN), ids=named)
def test_at_small_steps_every_term_is_what_its_leading_error_predicts(scheme: Scheme) -> None:
    """Claim: every moment, to 1e-3 of the largest term."""
    assert max(disagreements(scheme).values()) < 1e-3


SCALED = replace(CATALOGUE["ROBA"], lambda_s=1.2)
MUTATED = [
    *((SCALED, name) for name in ("lambda_s", "splitting")),
    *((scheme, str(source)) for scheme in (SCALED, CATALOGUE["ROBAB"]) for source, _ in replacements(scheme)),
]


@pytest.mark.parametrize(
    ("scheme", "name"),
    nightly_but(lambda case: case[0] is SCALED, MUTATED),
    ids=lambda value: value.name if isinstance(value, Scheme) else value,
)
def test_a_replacement_that_is_left_out_is_caught(scheme: Scheme, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: where one replacement is not made its term is off by more than 1% of the largest."""
    leave_out(name, monkeypatch)
    assert disagreements(scheme)[name] > 0.01


@pytest.mark.parametrize(
    "scheme",
    [CATALOGUE["ROBAB"], CATALOGUE["RVV"], PROVEN[5], PROVEN[7], replace(CATALOGUE["SSCS"], flow="midpoint")],
    ids=named,
)
def test_leading_errors_add_up_to_what_is_proven(scheme: Scheme) -> None:
    """Claim: coefficient by coefficient, for every score."""
    proof = prove_order(scheme)
    total: dict[tuple[int, ...], sp.Expr] = {}
    for entry in leading_errors(scheme):
        for coefficient in entry.coefficients:
            value = _parsed(coefficient.text)
            total[coefficient.powers] = total.get(coefficient.powers, sp.S.Zero) + value
    expected = {coefficient.powers: _parsed(coefficient.text) for coefficient in proof.coefficients}
    for powers in total.keys() | expected.keys():
        assert sp.simplify(total.get(powers, 0) - expected.get(powers, 0)) == 0


def _parsed(text: str) -> sp.Expr:
    return parse(text, {str(symbol): symbol for symbol in PARAMETERS})


def test_steps_that_remember_have_no_leading_errors_of_terms() -> None:
    with pytest.raises(ValueError, match="choose memory 1"):
        leading_errors(EXPONENTIAL["SAB2"])
