"""The picture of weak order that the documentation shows.

    python -m weakorder.reports.pages.laws docs/figures/laws.svg

Two schemes in position alone on the bimodal mixture, whose score is not affine. Nothing is sampled: the laws are
carried on lattices (verification.exact.lattice), and the densities are those of x at their nodes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...integrators.catalogue import POSITION
from ...integrators.grids import time_grid
from ...theory.scheme import Scheme
from ...verification.exact import OBSERVABLES, T_END, lattice, noise_free
from ...verification.files import write_atomically
from ...verification.targets import MixtureTarget, make_target
from ...verification.verdicts import Array
from ..figures import as_svg, drifting_laws

# After how many steps a scheme's laws are drawn. Of the second, whose laws live on a plane, no lattice holds them after
# 10 steps; after 20 they can hardly be told from the exact one.
DRAWN = {"vp-EM": (5, 10, 20, 40), "vp-SDE-DPM-Solver++2M": (20, 40)}
STEPS = (20, 40, 80, 160, 320)
# Whose error is drawn: it sees how far apart the modes are.
FUNCTION = "cos 2x"
X = np.linspace(-3, 3, 241)
# Nodes closer than this beside the law's width are one.
_SAME = 1e-9


def density_of(cloud: lattice.Cloud, x: Array) -> Array:
    """The density of the first component at `x`, from the nodes of a lattice, which its band limit joins (sinc).

    A lattice's axes are those of a triangular factor, so that nodes share their x along all the others.
    """
    order = np.argsort(cloud.points[0], kind="stable")
    nodes, weights = cloud.points[0][order], cloud.weights[order]
    first = np.flatnonzero(np.diff(nodes, prepend=-np.inf) > _SAME * np.ptp(nodes))
    heights, nodes = np.add.reduceat(weights, first), nodes[first]
    spacing = np.diff(nodes).min()
    return np.sinc((x[:, None] - nodes) / spacing) @ heights / spacing


def law_of(scheme: Scheme, target: MixtureTarget, steps: int, t_end: float = T_END, accuracy: float = 1e-6) -> Array:
    """The density of x (X) after so many steps, refined until it moves by less than `accuracy` anywhere.

    Raises ValueError where no lattice resolves it.
    """
    before, taus = np.full_like(X, np.inf), time_grid("uniform", steps, target.params, t_end)
    for resolution in lattice.resolutions_of(scheme):
        try:
            found = density_of(lattice.carried_law(scheme, target, taus, resolution), X)
        except lattice.TooCoarse:
            continue
        if np.abs(found - before).max() < accuracy:
            return found
        before = found
    raise ValueError(f"the law of {scheme.name!r} after {steps} steps is not resolved; take more steps")


def collect(drawn: Mapping[str, Sequence[int]] = DRAWN, steps: Sequence[int] = STEPS) -> dict[str, Any]:
    """What the figure shows, as plain values: laws after the numbers of steps of `drawn`, errors after `steps`."""
    diffusion = POSITION[next(iter(drawn))].splitting.diffusion
    target = make_target("mixture", diffusion.parameters(), diffusion=diffusion)
    assert isinstance(target, MixtureTarget)
    exact = np.zeros_like(X)
    for weight, mean, cov in zip(*(np.asarray(a) for a in target.components(T_END)), strict=True):
        variance = cov.item()
        exact += weight * np.exp(-((X - mean.item()) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    functions = [observable for observable in OBSERVABLES if observable.name == FUNCTION]
    rows = []
    for scheme in (POSITION[name] for name in drawn):
        grids = [time_grid("uniform", count, target.params, T_END) for count in steps]
        errors = [noise_free.noise_free_errors(scheme, target, taus, functions).errors.item() for taus in grids]
        densities = [
            {"steps": count, "density": law_of(scheme, target, count).tolist()} for count in drawn[scheme.name]
        ]
        rows.append({"label": scheme.name, "laws": densities, "steps": list(steps), "errors": errors})
    return {"t_end": T_END, "x": X.tolist(), "exact": exact.tolist(), "function": FUNCTION, "schemes": rows}


if __name__ == "__main__":
    write_atomically(Path(sys.argv[1]), as_svg(drifting_laws(collect())))
