"""The built-in dynamics, written once, in sympy: the forward SDE, and how its reversal is cut into parts.

Everything acts per coordinate, in the time theta with d theta = beta(t) dt, in which the coefficients are constant.

    forward   dx = -x/2 dtheta + dw                                          vp: position alone, preserving variance
    forward   dx = 1/2 (M^-1 m - Gamma x) dtheta + sqrt(Gamma) dw_x       psld: M^-1 = (Gamma - nu)^2 / 4
              dm = 1/2 (-x - nu m) dtheta        + sqrt(nu M) dw_m
    reverse   du = [-f(u) + g^2 s(u, t)] dtheta + g dw,     s = grad log p_t,  in tau = T - t
    flow      du = [-f(u) + g^2 s(u, t) / 2] dtheta         (probability-flow ODE)

Sources: Pandey and Mandt, arXiv 2303.01748, equations 3 to 8 and the critical damping of its section 3; Anderson 1982
(the reverse SDE); Song et al. 2021 (the flow). The splittings' sources are theory.splitting's.

Nothing here is imported to answer a question about a built-in scheme: `describe` says all of it in text, which ships
with the package (theory.derivations).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sympy as sp
from sympy import Expr, Rational, sqrt

from .formulas import text
from .symbols import SCORE, M, M_inv, gamma, kappa, m, nu, s_m, s_x, t, x

Vector = tuple[Expr, ...]
ZERO: Vector = (sp.S.Zero, sp.S.Zero)


class Dynamics(NamedTuple):
    """du = drift dtheta + diffusion dw: an entry for each component."""

    drift: Vector
    diffusion: Vector

    @classmethod
    def quiet(cls, drift: Vector) -> Dynamics:
        """Without noise."""
        return cls(drift, (sp.S.Zero,) * len(drift))


class Noising(NamedTuple):
    """A forward SDE, the variances at the data of all components but x, the prior's, and the score's arguments; the
    parameters' defaults, where they are not those of the published PSLD model."""

    forward: Dynamics
    data_variance: Vector
    prior_variance: Vector
    score_arguments: tuple[sp.Symbol, ...]
    defaults: Mapping[str, float] = {}


class Cut(NamedTuple):
    """A splitting: the noising whose score drives it, the whole, and the parts."""

    diffusion: str
    whole: Dynamics
    parts: dict[str, Dynamics]


def reverse_drift(forward: Dynamics, score_weight: Any) -> Vector:
    """-f + score_weight g^2 s: the drift of the reverse SDE (score_weight 1) or of the probability flow (1/2)."""
    noises = zip(forward.drift, forward.diffusion, SCORE[: len(forward.drift)], strict=True)
    return tuple(-f + score_weight * sp.simplify(g**2) * s for f, g, s in noises)


_FORWARD = Dynamics(((M_inv * m - gamma * x) / 2, (-x - nu * m) / 2), (sqrt(gamma), sqrt(nu * M)))
_REVERSE = Dynamics(reverse_drift(_FORWARD, sp.S.One), _FORWARD.diffusion)
_PROBABILITY_FLOW = Dynamics.quiet(reverse_drift(_FORWARD, Rational(1, 2)))
_LANGEVIN = Dynamics((M_inv * m, s_x - nu * m), (sp.S.Zero, sqrt(2 * nu * M)))

_VP = Dynamics((-x / 2,), (sp.S.One,))
_VP_REVERSE = Dynamics(reverse_drift(_VP, sp.S.One), _VP.diffusion)
_VP_FLOW = Dynamics.quiet(reverse_drift(_VP, Rational(1, 2)))

DIFFUSIONS = {
    "psld": Noising(_FORWARD, (kappa * M,), (sp.S.One, M), (x, m, t)),
    # DDPM's diffusion in continuous time (Song et al. 2021, arXiv 2011.13456, equation 11 and appendix C).
    "vp": Noising(_VP, (), (sp.S.One,), (x, t), {"beta_min": 0.1, "beta_max": 20.0}),
    # Underdamped Langevin dynamics in a potential does not noise its data: its law is stationary,
    # N(x; data) x N(m; 0, M), and its score in x is minus the gradient of the potential.
    "stationary": Noising(Dynamics(ZERO, ZERO), (M,), (sp.S.One, M), (x,)),
}

SPLITTINGS = {
    "psld": Cut(
        "psld",
        _REVERSE,
        {
            "O": Dynamics((-gamma * x / 2, -nu * m / 2), (sqrt(gamma), sqrt(nu * M))),
            "A": Dynamics.quiet(((2 * gamma * x - M_inv * m + 2 * gamma * s_x) / 2, sp.S.Zero)),
            "B": Dynamics.quiet((sp.S.Zero, (x + 2 * nu * m + 2 * M * nu * s_m) / 2)),
        },
    ),
    "psld-linear": Cut(
        "psld",
        _REVERSE,
        {
            "U": Dynamics(((-gamma * x - M_inv * m) / 2, (x - nu * m) / 2), (sqrt(gamma), sqrt(nu * M))),
            "E": Dynamics.quiet((gamma * (s_x + x), M * nu * (s_m + M_inv * m))),
        },
    ),
    "psld-whole": Cut("psld", _REVERSE, {"F": _REVERSE}),
    "psld-flow": Cut(
        "psld",
        _PROBABILITY_FLOW,
        {
            "A": Dynamics.quiet(((gamma * x - M_inv * m + gamma * s_x) / 2, sp.S.Zero)),
            "B": Dynamics.quiet((sp.S.Zero, (x + nu * m + M * nu * s_m) / 2)),
        },
    ),
    "psld-flow-whole": Cut("psld", _PROBABILITY_FLOW, {"F": _PROBABILITY_FLOW}),
    "langevin": Cut(
        "stationary",
        _LANGEVIN,
        {
            "O": Dynamics((sp.S.Zero, -nu * m), (sp.S.Zero, sqrt(2 * nu * M))),
            "A": Dynamics.quiet((M_inv * m, sp.S.Zero)),
            "B": Dynamics.quiet((sp.S.Zero, s_x)),
        },
    ),
    "vp-whole": Cut("vp", _VP_REVERSE, {"F": _VP_REVERSE}),
    "vp-flow": Cut("vp", _VP_FLOW, {"F": _VP_FLOW}),
    # What a diffusion in position alone has of Strang splitting: its Ornstein-Uhlenbeck part and what drives it away.
    "vp-linear": Cut("vp", _VP_REVERSE, {"U": Dynamics((-x / 2,), _VP.diffusion), "E": Dynamics.quiet((s_x + x,))}),
}


def declaration(dynamics: Dynamics) -> list[str]:
    """The text that dynamics are known by: the drift of every component, then the diffusion of every one."""
    return [text(entry) for entry in (*dynamics.drift, *dynamics.diffusion)]


def describe() -> dict[str, Any]:
    """All of the above in text, as JSON's own types."""
    return {
        "diffusions": {
            name: {
                "forward": declaration(noising.forward),
                "variances": [text(entry) for entry in (*noising.data_variance, *noising.prior_variance)],
                "score_arguments": [str(symbol) for symbol in noising.score_arguments],
                "defaults": dict(noising.defaults),
            }
            for name, noising in DIFFUSIONS.items()
        },
        "splittings": {
            name: {
                "diffusion": cut.diffusion,
                "whole": declaration(cut.whole),
                "parts": {letter: declaration(part) for letter, part in cut.parts.items()},
            }
            for name, cut in SPLITTINGS.items()
        },
    }
