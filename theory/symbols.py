"""The symbols that formulas are written in, in sympy."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from .parameters import COMPONENTS, NAMES, critical_mass_inverse

STATE = sp.symbols(COMPONENTS, real=True)
SCORE = sp.symbols([f"s_{name}" for name in COMPONENTS], real=True)
x, m, a, j = STATE
s_x, s_m, s_a, s_j = SCORE
t = sp.Symbol("t", real=True)
gamma, nu, kappa = sp.symbols(NAMES, nonnegative=True)
theta = sp.symbols("theta", positive=True)
PARAMETERS = (gamma, nu, kappa)
SYMBOLS = {str(symbol): symbol for symbol in (*STATE, *SCORE, t, theta, *PARAMETERS)}

M_inv: Expr = critical_mass_inverse(gamma, nu)
M: Expr = 1 / M_inv
