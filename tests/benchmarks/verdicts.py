"""How long a verdict takes beside the sampler it is about: the same steps in a plain loop, and the whole study.

    python tests/benchmarks/verdicts.py [--clock cpu] [--repetitions 3]

The loop takes every step of every level once, on a batch as large as the probes', with the same exact score, and
nothing is looked at. What both look up in tables of the score's laws is forgotten before each run.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from interleaved import CLOCKS, interleave
from weakorder.examples import published_em
from weakorder.integrators.grids import time_grid
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.blackbox.probe import CHECKS
from weakorder.verification.blackbox.probing import gaussian_score
from weakorder.verification.blackbox.study import BLACK_BOX_STEPS, study_black_box
from weakorder.verification.exact.order import T_END, gaussian_targets
from weakorder.verification.targets import GaussianTarget
from weakorder.verification.targets.gaussian import kernel_at, point

PARAMS = Parameters()
ROWS = 1 + 2 + 2 + 2 * CHECKS  # at rest, the state's units, the noise's, and those that check


def forgotten() -> GaussianTarget:
    """The targets of a verdict, with nothing known of them yet."""
    kernel_at.cache_clear()
    point.cache_clear()
    return gaussian_targets(PSLD_DIFFUSION, PARAMS)


def plain_loop() -> None:
    """Every step of every level."""
    target = forgotten()
    batch = ROWS * target.mean.size
    score = gaussian_score(target, ())(ROWS, batch)
    for steps in BLACK_BOX_STEPS:
        u = torch.randn(batch, 2, dtype=torch.float64)
        taus = time_grid("uniform", steps, PARAMS, T_END).tolist()
        for tau, later in itertools.pairwise(taus):
            u = published_em.step(u, tau, later - tau, score)


def verdict() -> None:
    """What `weakorder verify examples/published_em.py:step` computes."""
    study = study_black_box("published_em.py:step", published_em.step, PARAMS, target=forgotten())
    assert str(study.verdict) == "PASS"


def main() -> None:
    """Print the times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    candidates = {"the sampler's steps": plain_loop, "the verdict": verdict}
    loop, study = interleave(candidates, "the verdict", options.repetitions, options.clock)
    print(loop, study, f"the verdict takes {study.seconds / loop.seconds:.2f} times as long as the steps", sep="\n")


if __name__ == "__main__":
    main()
