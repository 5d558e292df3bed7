"""What `weakorder derive` shows of a word: its parts' flows, its one-step map, its order and leading local error."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ...theory.clock import THETA
from ...theory.flows import derivation
from ...theory.formulas import shown
from ...theory.frozen import SCORE_HELD
from ...theory.parameters import COMPONENTS
from ...theory.scheme import Scheme
from ...theory.splitting import Part
from ...theory.step_map import followed, has_step_map, step_map_text
from ...theory.weak_order import OrderProof, named, prove_order

# Phi and Psi of the built-in kinds; a kind of one's own has only functions.
_READINGS = {
    "residual": ("-prior^-1", "1"),
    "eps": ("0", "-L_t^-T"),
    "data": ("-Sigma_t^-1", "Sigma_t^-1 E_t"),
}
NOTATION = (
    "theta is the integral of beta over the step; dx = x - x_0, dm = m - m_0; s_x,mt is the derivative of s_x by m and "
    "t, and so for q_x, Phi_xm and Psi_xm; dbeta = beta'(t); c_k is the clock's k-th derivative in t over its first."
)


def derive(scheme: Scheme, dims: int, linear_beta: bool) -> dict[str, Any]:
    """Everything that can be derived of `scheme` alone, as plain values: text and LaTeX.

    `order` and `leading_error` hold for beta linear in t if `linear_beta`, else for constant beta.
    """
    proof = prove_order(scheme, dims, linear_beta)
    true_flows = prove_order(replace(scheme.remembering(1), flow="true", frozen=SCORE_HELD), dims, linear_beta)
    return {
        "word": scheme.word,
        "name": scheme.name,
        "splitting": scheme.splitting.name,
        "flow": scheme.flow,
        "frozen": scheme.frozen.name,
        "memory": scheme.memory,
        "clock": str(scheme.clock),
        "sub_flows": scheme.sub_flows,
        "order": proof.order,
        "order_of_steps": proof.order_of_steps,
        "for_steps_of_any_lengths": proof.any_steps,
        "order_with_true_flows": true_flows.order,
        "order_for_linear_beta": prove_order(scheme, dims, True).order,
        "order_for_constant_beta": prove_order(scheme, dims, False).order,
        "limited_by": _limit(scheme, proof, true_flows),
        "nfe_per_step": scheme.nfe_per_step,
        "palindrome": scheme.is_palindrome,
        "warnings": list(scheme.warnings),
        **leading_error(proof),
        "start_error": {name: shown(c.text) for name, c in named(proof.coordinates, proof.start).items()},
        "held": _held(scheme),
        "flows": {part.name: _flows(scheme, part) for part in scheme.parts},
        "step_map": [{"score_time": time, **_matrices(flow)} for time, flow in _segments(scheme)],
        "notation": NOTATION,
    }


def derivation_text(answer: dict[str, Any]) -> str:
    """The derivation for a terminal."""
    lines = [f"{answer['word']} on {answer['splitting']} ({answer['sub_flows']})", answer["notation"], ""]
    for name, flows in answer["flows"].items():
        for kind, matrices in flows.items():
            lines.append(f"part {name}, {kind}: u <- P u + K {'q' if kind == 'held' else 's'} + xi, xi ~ N(0, Q)")
            lines += _matrix_lines(matrices)
    lines += answer["held"]
    letter = "s" if answer["frozen"] == "score" else "q"
    for segment in answer["step_map"]:
        time = segment["score_time"]
        where = "before the first S" if time is None else f"after S@{time}"
        lines.append(f"step, {where}: u <- P u + K {letter} + xi, xi ~ N(0, Q)")
        lines += _matrix_lines(segment)
    lines += ["", f"order {_order(answer['order'])}; {answer['limited_by']}"]
    lines.append(
        f"for constant beta {_order(answer['order_for_constant_beta'])}, for beta linear in t "
        f"{_order(answer['order_for_linear_beta'])}; {answer['nfe_per_step']} NFE/step, "
        f"{'a' if answer['palindrome'] else 'no'} palindrome"
    )
    if answer["memory"] > 1:
        lines.append(
            f"the steps have order {_order(answer['order_of_steps'])}, for "
            f"{'steps of any lengths' if answer['for_steps_of_any_lengths'] else 'equal steps'}, once they remember "
            f"{answer['memory']} evaluations"
        )
    if answer["start_error"]:
        lines += ["", f"error that the first steps leave, once, times h^{answer['order']}:"]
        lines += [f"  E[{name}]: {error}" for name, error in answer["start_error"].items()]
    if answer["leading_error"]:
        lines += ["", f"leading local error, times h^{answer['order_of_steps'] + 1}:"]
        lines += [f"  E[{name}]: {error}" for name, error in answer["leading_error"].items()]
        lines += ["", "LaTeX:"]
        lines += [f"  E[{name}]: {error}" for name, error in answer["leading_error_latex"].items()]
    return "\n".join(lines)


def _limit(scheme: Scheme, proof: OrderProof, true_flows: OrderProof) -> str:
    """Which of the errors limits the order: the splitting's (with its clocks), that of holding, or the start's."""
    if scheme.inconsistencies:
        return "the word is not consistent: " + "; ".join(scheme.inconsistencies)
    if scheme.flow == "true":
        return "limited by the splitting, its clocks and the times of its S: its parts follow the true score"
    if scheme.memory > 1:
        return _limit_of_memory(scheme, proof)
    if proof.order is not None and (true_flows.order is None or true_flows.order > proof.order):
        what = "the score" if scheme.frozen == SCORE_HELD else f"what is held, {scheme.frozen.name}"
        return f"limited by freezing {what}: with true flows the order would be {_order(true_flows.order)}"
    order = _order(true_flows.order)
    return f"limited by the splitting, its clocks and the times of its S: with true flows the order is {order} too"


def _limit_of_memory(scheme: Scheme, proof: OrderProof) -> str:
    if proof.order != proof.order_of_steps:
        return (
            "limited by the start, whose first step has one evaluation to go by: the steps have order "
            f"{_order(proof.order_of_steps)}, which a graded grid keeps"
        )
    alone = prove_order(scheme.remembering(1)).order
    if alone == proof.order:
        return f"limited by the splitting, its clocks and the times of its S: with memory 1 the order is {alone} too"
    return f"limited by the polynomial through the last {scheme.memory} evaluations: with memory 1 the order is {alone}"


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
    if scheme.frozen != SCORE_HELD and part.sde.uses_score:
        sde = followed(scheme, part)
        return {} if sde is None else {"held": _matrices(derivation(sde)["exact"])}
    derived = derivation(part.sde)
    kinds = {kind: derived[kind] for kind in ("exact", "euler") if kind == "exact" or part.sde.uses_score}
    chosen = scheme.flow if scheme.flow in kinds else "exact"
    return {kind: _matrices(kinds[kind]) for kind in dict.fromkeys((chosen, *kinds))}


def _held(scheme: Scheme) -> list[str]:
    """What parts hold, and what they follow, in words and formulas; nothing if it is the score of the last S."""
    if scheme.holds_score:
        return []
    users = [part.name for part in scheme.parts if part.sde.uses_score]
    count = "the last evaluation" if scheme.memory == 1 else f"{_polynomial(scheme)} through the last {scheme.memory}"
    if scheme.flow == "euler":
        return [f"part {name} takes {count} of its drift: u <- u + sum_j K_j d_j + xi" for name in users]
    phi, psi = _READINGS.get(scheme.frozen.name, ("Phi(t)", "Psi(t)"))
    reading = "s" if scheme.frozen.name == "score" else f"q of s = Phi u + Psi q, Phi = {phi}, Psi = {psi}"
    lines = [f"held: {reading}; {count}"]
    for name in users:
        lines.append(
            f"part {name}, held: du = [(A + G Phi) u + G Psi q] dtheta + noise, u <- P u + sum_j K_j q_j + xi, exactly"
        )
    if not has_step_map(scheme):
        lines.append("P, K_j and Q depend on the step's own times: no closed map is shown, they are computed to 1e-13")
    return lines


def _polynomial(scheme: Scheme) -> str:
    where = f"in c = {scheme.clock.name}" if scheme.clock.name != THETA.name else "in theta"
    return f"the value half way of the polynomial {where}" if scheme.clock.midpoint else f"the polynomial {where}"


def _segments(scheme: Scheme) -> list[tuple[str | None, dict[str, list[str]]]]:
    return step_map_text(scheme) if has_step_map(scheme) else []


def _matrices(flow: dict[str, list[str]]) -> dict[str, list[list[str]]]:
    names = {"P": "propagator", "K": "score_gain", "Q": "noise_cov"}
    entries = {names[letter]: [shown(entry) for entry in flow[letter]] for letter in names}
    size = math.isqrt(len(flow["P"]))
    return {name: [row[i : i + size] for i in range(0, len(row), size)] for name, row in entries.items()}


def _matrix_lines(matrices: dict[str, Any]) -> list[str]:
    lines = []
    for letter, name in (("P", "propagator"), ("K", "score_gain"), ("Q", "noise_cov")):
        matrix = matrices[name]
        if any(entry != "0" for row in matrix for entry in row):
            lines += [
                f"  {letter}_{row}{column} = {matrix[i][j]}"
                for i, row in enumerate(COMPONENTS[: len(matrix)])
                for j, column in enumerate(COMPONENTS[: len(matrix)])
                if matrix[i][j] != "0"
            ]
    return lines
