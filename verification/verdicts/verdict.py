"""The verdict of a study, and what all studies hold a scheme to before they look at its errors.

A scheme is held to an expected order, its own unless another is asked for (`claim_of`). It fails before it has run if
it is not consistent, or if its proven order (theory.weak_order) is below the expected one. What is measured then adds
to that evidence (verdicts.evidence); what counts differs with what a study knows, and is said where the study is:
moments without noise (order_evidence), expectations without noise (noise_free, where some test functions may stay
open), samples against an exact law (monte_carlo, with error bars and a limit), and samples against a fine run
(cifar10.analysis, where there is no limit to judge and the reference has an error of its own).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ...theory.weak_order import prove_order
from .fits import Fit


class Verdict(StrEnum):
    """The outcome of a study."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Claim(NamedTuple):
    """What a scheme is held to: the expected order; the order that is proven for every score, None if none was; and
    the problems that make it fail outright."""

    expected: int
    proven: int | None
    problems: tuple[str, ...]


def claim_of(scheme: Scheme, params: Parameters, expected: int | None = None, graded: bool = False) -> Claim:
    """The claim that a scheme is held to. expected: default the scheme's own order, or 1 if it claims none; graded:
    whether it runs on a graded grid (integrators.grids), where first steps with less memory limit the order less."""
    order = expected if expected is not None else scheme.order or 1
    problems = [f"not consistent: {inconsistency}" for inconsistency in scheme.inconsistencies]
    proof = prove_order(scheme, linear_beta=params.beta_min != params.beta_max)
    proven = proof.order_if_graded if graded else proof.order
    if not problems and proven is not None and proven < order:
        problems.append(f"proven order {proven}, expected {order}")
    return Claim(order, proven, tuple(problems))


def order_sentence(fit: Fit | None, expected: int, proven: int | None) -> str:
    """The measured, proven and expected order, as far as there are any."""
    parts = [] if fit is None else [f"measured order {fit}"]
    parts += [] if proven is None else [f"proven {proven}"]
    return ", ".join([*parts, f"expected {expected}"])


def order_entry(fit: Fit | None, expected: int, proven: int | None) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "expected": expected,
        "proven": proven,
        "measured": None if fit is None else fit.order,
        "ci": None if fit is None else [fit.low, fit.high],
    }
