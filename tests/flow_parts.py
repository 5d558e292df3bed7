"""The parts whose flows are tested, built in and declared, at parameters where rates vanish or meet."""

from __future__ import annotations

import sympy as sp
from sympy import Matrix
from weakorder.theory.flows import Flow
from weakorder.theory.model import M, M_inv, a, gamma, m, nu, s_a, s_m, s_x, x
from weakorder.theory.splitting import SPLITTINGS, Part

BUILT_IN = {f"{s.name}:{part.name}": part for s in SPLITTINGS.values() for part in s.parts}
# What a user may declare: rates that can be equal or not, and couplings of x and m with real or complex rates.
DECLARED = {
    "one-way coupling": Part("W", (-gamma * x / 2 + m, -nu * m / 2), (sp.sqrt(gamma), sp.S.One)),
    "one-way coupling, no noise": Part("W", (-gamma * x / 2 + m + s_x, -nu * m / 2)),
    "rotation": Part("H", (-M_inv * m / 2, x / 2)),
    "rotation and score": Part("H", (-M_inv * m / 2, x / 2 + nu * M * s_m), (sp.S.Zero, sp.sqrt(nu * M))),
    "damped oscillator": Part("H", (m, -x - nu * m + s_x), (sp.S.Zero, sp.sqrt(2 * nu))),
    # Three components: rates that differ, and higher-order Langevin dynamics of rates -1, -2 and -3.
    "chain": Part("C", (-x / 2 + m, -m, -2 * a + s_x), (sp.S.Zero, sp.S.One, sp.S.One)),
    "third order": Part(
        "L",
        (m, -x + 10 * a, -m - 6 * a + s_a),
        (sp.S.Zero, sp.S.Zero, sp.sqrt(sp.Rational(6, 5))),
    ),
    "saddle": Part("H", (x + 2 * m, 3 * x + m), (sp.S.One, sp.S.Zero)),
}
PARTS = BUILT_IN | DECLARED
PARAMETER_SETS: dict[str, dict[str, float]] = {
    "published": {"gamma": 0.01, "nu": 4.01, "kappa": 0.04},
    "generic": {"gamma": 1.7, "nu": 0.9, "kappa": 0.3},
    "gamma = 0": {"gamma": 0.0, "nu": 4.0, "kappa": 0.04},
    "nu = 0": {"gamma": 3.0, "nu": 0.0, "kappa": 0.04},
    "tiny gamma": {"gamma": 1e-12, "nu": 4.0, "kappa": 0.04},
    "tiny nu": {"gamma": 2.5, "nu": 1e-12, "kappa": 0.04},
    "gamma close to nu": {"gamma": 1.3, "nu": 1.3000001, "kappa": 0.04},
    "gamma very close to nu": {"gamma": 1.3, "nu": 1.3 + 1e-12, "kappa": 0.04},
}


def part_id(part: str) -> str:
    return part.replace(" ", "-")


def at(flow: Flow, index: int) -> Flow:
    """One flow of a batch."""
    return Flow(*(matrix[index] for matrix in flow))


def is_zero(matrix: Matrix) -> bool:
    """Whether every entry is literally 0. (`is_zero_matrix` may not know.)"""
    return all(entry == 0 for entry in matrix)
