"""Write sde.npz beside this file: what tests/test_model.py compares the model with, cut from a larger fixture.

Source: numbers computed with the published PSLD classes (arXiv 2303.01748, mandt-lab/PSLD) on CPU, torch 2.13.0. The
`_f64` arrays are that code with its casts to float32 made double; nothing here was computed by this project.

    python make_sde_fixture.py PATH/TO/LARGE/sde.npz

The 8 `combos` are 4 pairs (nu, gamma) times 2 schedules beta; arrays are called <combo>/<name>. Row j of every
array belongs to time t[j]. Of the states' (3 + 3) x 2 x 2 entries, momentum after position, one pair is kept: (20, 2).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SHARED = ("combos", "t", "nu_gamma", "betas", "kappa", "numerical_eps", "T")
INPUTS = ("u", "eps_pred")
PER_COMBO = (
    "mode",
    "beta_t",
    "b_t",
    "mean",
    "cov_hsm",
    "cov_dsm",
    *(f"{what}_{side}_{kind}" for what in ("factor", "invT") for side in ("lower", "upper") for kind in ("hsm", "dsm")),
)
PER_COMBO_AND_PIXEL = (
    "drift",
    "diffusion",
    "score_f64",
    "reverse_sde_drift_f64",
    "reverse_sde_diffusion_f64",
    "reverse_pf_drift_f64",
    "reverse_pf_diffusion_f64",
)


def pixel(array: np.ndarray) -> np.ndarray:
    """(20, 6, 2, 2) to (20, 2): position and momentum of channel 1 at pixel (1, 0)."""
    return array[:, [1, 4], 1, 0]


def main(source: Path) -> None:
    """Cut `source` down."""
    with np.load(source) as large:
        kept = {name: large[name] for name in SHARED}
        kept |= {name: pixel(large[name]) for name in INPUTS}
        for combo in large["combos"]:
            kept |= {f"{combo}/{name}": large[f"{combo}/{name}"] for name in PER_COMBO}
            kept |= {f"{combo}/{name}": pixel(large[f"{combo}/{name}"]) for name in PER_COMBO_AND_PIXEL}
    np.savez_compressed(Path(__file__).with_name("sde.npz"), **kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
