"""What `weakorder derive` shows of a word: its parts' flows, its one-step map, its order and leading local error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...theory.flows import derivation
from ...theory.formulas import shown
from ...theory.frozen import SCORE_HELD
from ...theory.scheme import FROZEN_FLOWS, Scheme
from ...theory.splitting import Part
from ...theory.step_map import step_map_text
from ...theory.weak_order import OrderProof, prove_order

NOTATION = (
    "theta is the integral of beta over the step; dx = x - x_0, dm = m - m_0; s_x,mt is the derivative of s_x by m and "
    "t; dbeta = beta'(t)."
)


def derive(scheme: Scheme, dims: int, linear_beta: bool) -> dict[str, Any]:
    """Everything that can be derived of `scheme` alone, as plain values: text and LaTeX.

    `order` and `leading_error` hold for beta linear in t if `linear_beta`, else for constant beta.
    """
    proof = prove_order(scheme, dims, linear_beta)
    followed = prove_order(replace(scheme, flow="true", frozen=SCORE_HELD, memory=1), dims, linear_beta)
    return {
        "word": scheme.word,
        "name": scheme.name,
        "splitting": scheme.splitting.name,
        "flow": scheme.flow,
        "frozen": scheme.frozen.name,
        "memory": scheme.memory,
        "sub_flows": scheme.sub_flows,
        "order": proof.order,
        "order_with_true_flows": followed.order,
        "order_for_linear_beta": prove_order(scheme, dims, True).order,
        "order_for_constant_beta": prove_order(scheme, dims, False).order,
        "limited_by": _limit(scheme, proof, followed),
        "nfe_per_step": scheme.nfe_per_step,
        "palindrome": scheme.is_palindrome,
        "warnings": list(scheme.warnings),
        **leading_error(proof),
        "flows": {part.name: _flows(scheme, part) for part in scheme.parts},
        "step_map": [{"score_time": time, **_matrices(flow)} for time, flow in _segments(scheme)],
        "notation": NOTATION,
    }


def derivation_text(answer: dict[str, Any]) -> str:
    """The derivation for a terminal."""
    lines = [f"{answer['word']} on {answer['splitting']} ({answer['sub_flows']})", answer["notation"], ""]
    for name, flows in answer["flows"].items():
        for kind, matrices in flows.items():
            lines.append(f"part {name}, {kind}: u <- P u + K s + xi, xi ~ N(0, Q)")
            lines += _matrix_lines(matrices)
    for segment in answer["step_map"]:
        time = segment["score_time"]
        where = "before the first S" if time is None else f"after S@{time}"
        lines.append(f"step, {where}: u <- P u + K s + xi, xi ~ N(0, Q)")
        lines += _matrix_lines(segment)
    lines += ["", f"order {_order(answer['order'])}; {answer['limited_by']}"]
    lines.append(
        f"for constant beta {_order(answer['order_for_constant_beta'])}, for beta linear in t "
        f"{_order(answer['order_for_linear_beta'])}; {answer['nfe_per_step']} NFE/step, "
        f"{'a' if answer['palindrome'] else 'no'} palindrome"
    )
    if answer["leading_error"]:
        lines += ["", f"leading local error, times h^{answer['order'] + 1}:"]
        lines += [f"  E[{name}]: {error}" for name, error in answer["leading_error"].items()]
        lines += ["", "LaTeX:"]
        lines += [f"  E[{name}]: {error}" for name, error in answer["leading_error_latex"].items()]
    return "\n".join(lines)


def _limit(scheme: Scheme, proof: OrderProof, followed: OrderProof) -> str:
    """Which of the two errors limits the order: the splitting's (with its clocks), or that of freezing the score."""
    if scheme.inconsistencies:
        return "the word is not consistent: " + "; ".join(scheme.inconsistencies)
    if scheme.flow == "true":
        return "limited by the splitting, its clocks and the times of its S: its parts follow the true score"
    if proof.order is not None and (followed.order is None or followed.order > proof.order):
        return f"limited by freezing the score: with true flows the order would be {_order(followed.order)}"
    order = _order(followed.order)
    return f"limited by the splitting, its clocks and the times of its S: with true flows the order is {order} too"


def _order(order: int | None) -> str:
    return "above the searched ones" if order is None else str(order)


def leading_error(proof: OrderProof) -> dict[str, dict[str, str]]:
    """The leading local error of each monomial, as text and as LaTeX."""
    coefficients = proof.named().items()
    return {
        "leading_error": {name: shown(coefficient.text) for name, coefficient in coefficients},
        "leading_error_latex": {name: coefficient.latex for name, coefficient in coefficients},
    }


def _flows(scheme: Scheme, part: Part) -> dict[str, dict[str, list[list[str]]]]:
    derived = derivation(part.sde)
    kinds = {kind: derived[kind] for kind in ("exact", "euler") if kind == "exact" or part.sde.uses_score}
    chosen = scheme.flow if scheme.flow in kinds else "exact"
    return {kind: _matrices(kinds[kind]) for kind in dict.fromkeys((chosen, *kinds))}


def _segments(scheme: Scheme) -> list[tuple[str | None, dict[str, list[str]]]]:
    return step_map_text(scheme) if scheme.flow in FROZEN_FLOWS else []


def _matrices(flow: dict[str, list[str]]) -> dict[str, list[list[str]]]:
    names = {"P": "propagator", "K": "score_gain", "Q": "noise_cov"}
    entries = {names[letter]: [shown(entry) for entry in flow[letter]] for letter in names}
    return {name: [four[:2], four[2:]] for name, four in entries.items()}


def _matrix_lines(matrices: dict[str, Any]) -> list[str]:
    lines = []
    for letter, name in (("P", "propagator"), ("K", "score_gain"), ("Q", "noise_cov")):
        matrix = matrices[name]
        if any(entry != "0" for row in matrix for entry in row):
            lines += [
                f"  {letter}_{row}{column} = {matrix[i][j]}"
                for i, row in enumerate("xm")
                for j, column in enumerate("xm")
                if matrix[i][j] != "0"
            ]
    return lines
