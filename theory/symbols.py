"""The symbols that formulas are written in, in sympy."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from .parameters import NAMES, critical_mass_inverse

x, m, s_x, s_m, t = sp.symbols("x m s_x s_m t", real=True)
gamma, nu, kappa = sp.symbols(NAMES, nonnegative=True)
theta = sp.symbols("theta", positive=True)
PARAMETERS = (gamma, nu, kappa)
SYMBOLS = {str(symbol): symbol for symbol in (x, m, s_x, s_m, t, theta, *PARAMETERS)}

M_inv: Expr = critical_mass_inverse(gamma, nu)
M: Expr = 1 / M_inv
