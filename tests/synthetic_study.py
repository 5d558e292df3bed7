"""Results and images of a CIFAR-10 study that was never run: of the kind, and of the sizes, that a study writes."""

from __future__ import annotations

import copy
from importlib import resources
from typing import Any

import numpy as np
from parsed_page import Page
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports.pages import cifar10_page
from weakorder.verification.cifar10.study.rounding import summarise

Results = dict[str, Any]

BUDGETS = (20, 50, 100)
MOMENTS = tuple(f"{moment}, {colour}" for colour in ("red", "green", "blue") for moment in ("x^3", "x^4"))
WEAK = ("mean", "spectrum", "higher moments", "Fourier features")
FRECHET = tuple(
    f"Fréchet distance of {space} to {end}" for space in ("pixels", "features") for end in ("reference", "data")
)
COMPARED = (*WEAK, "energy", "sliced Wasserstein", "strong", *FRECHET, "published FID")
SHOWN = 8
# The Gaussian reading at these budgets, rounded (`weakorder.verification.exact.spectrum`, quadratic grid).
PREDICTED = {
    "EM": (19.6, 3.86, 1.06), "SSCS": (114, 37.9, 12.9), "NOBA": (385, 15.3, 2.99), "NBAO": (190, 5.40, 1.99),
    "NOBAB": (94.9, 7.66, 4.92), "ROBA": (27.2, 3.04, 0.739), "RBAO": (8.60, 2.12, 0.751), "ROBAB": (9.45, 3.73, 1.53),
    "NSE": (167, 9.93, 3.03), "NVV": (None, 24.0, 5.42), "RSE": (14.8, 3.03, 0.871), "RVV": (41.0, 2.20, 0.65),
}  # fmt: skip
FIDS = {("EM", 50): 30.81, ("EM", 100): 7.83, ("SSCS", 100): 4.83, ("NOBA", 50): 36.87, ("ROBA", 50): 2.76,
        ("ROBA", 100): 2.36, ("NVV", 50): 69.06, ("RVV", 50): 14.19}  # fmt: skip
DIVERGED = {("NVV", 20), ("NOBAB", 20)}

FEW = ("spectrum", "strong", "Fréchet distance of pixels to reference", "published FID")
NAMES = ("EM", "NOBAB", "ROBA", "NVV", "RVV")  # both kinds, one diverged cell of each


def synthetic(
    names: tuple[str, ...] = tuple(CATALOGUE),
    budgets: tuple[int, ...] = BUDGETS,
    noise: float = 0.04,
    compared: tuple[str, ...] = COMPARED,
) -> Results:
    """Results of the kind that a study writes, from a fixed generator: plausible sizes, nothing sampled."""
    rng = np.random.default_rng(7)
    against = "ROBA" if "ROBA" in names else names[0]
    return {
        "date": "2026-11-24T14:03:11+00:00",
        "command": "weakorder cifar10 study --nfe 20 50 100 -o cifar10-study",
        "versions": {"weakorder": "0.1.0", "python": "3.11.9", "numpy": "2.1.1", "torch": "2.5.0"},
        "device": "cpu",
        "seconds": 1534.5,
        "model": _model(),
        "settings": _settings(budgets) | {"against": against},
        "references": [
            {"kind": "stochastic", "name": "ROBA", "word": "O S B A", "steps": 1584, "evaluations": 1585},
            {"kind": "deterministic", "name": "RSE", "word": "S B A", "steps": 1584, "evaluations": 1585},
        ],
        "schemes": _with_ratios([_scheme(rng, name, budgets, noise) for name in names], against),
        "comparison": _comparison(names, budgets, compared),
        "grid_samples": list(range(SHOWN)),
    }


def _model() -> Results:
    """The network and how it was trained."""
    return {
        "checkpoint": "cifar10_compact.safetensors (shipped)",
        "weights": 1291491,
        "network": {"nf": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [16], "fir": True},
        "parameters": {"gamma": 0.01, "nu": 4.01, "kappa": 0.04, "beta_min": 8.0, "beta_max": 8.0, "eps": 0.001},
        "steps": "4115",
        "images_seen": "131680",
        "held_out_loss": {"value": 0.01512, "standard_error": 0.00163, "images": 500},
        "losses": {
            "steps_per_point": 50,
            "loss": [float(v) for v in 0.015 + 60 / (50.0 * np.arange(1, 83)) ** 1.05],
        },
    }


def _settings(budgets: tuple[int, ...]) -> Results:
    """What the study was asked for."""
    return {
        "samples": 64,
        "grid": "quadratic",
        "nfe": list(budgets),
        "seed": 0,
        "lambda_s": None,
        "refinement": 16,
        "precisions": ["float32"],
        "imitated": [],
        "t_end": 0.001,
        "data": "512 images (shipped)",
    }


def _scheme(rng: np.random.Generator, name: str, budgets: tuple[int, ...], noise: float) -> Results:
    """A scheme, its verdict and its cells."""
    scheme = CATALOGUE[name]
    stochastic = any(part.sde.has_noise for part in scheme.parts)
    return {
        "name": name,
        "label": name,
        "word": scheme.word,
        "held": scheme.held,
        "splitting": scheme.splitting.name,
        "nfe_per_step": scheme.nfe_per_step,
        "kind": "stochastic" if stochastic else "deterministic",
        "reference": 0 if stochastic else 1,
        "source": scheme.reference,
        "verdict": "PASS" if name in ("EM", "RVV") else "FAIL" if name == "NVV" else "INCONCLUSIVE",
        "reason": "not resolved: higher moments; 3 neighbouring budgets stand above noise with 310 samples",
        "order": {"expected": 1, "proven": 1, "measured": 1.0613, "ci": [0.713, 1.409]},
        "systematic": dict(zip(WEAK, (0.0011, 0.021, 0.013, 0.0012), strict=True)),
        "warnings": [],
        "fits": {"spectrum": {"order": 1.0613, "low": 0.713, "high": 1.409, "steps": [19, 99]}},
        "cells": _cells(rng, name, budgets, noise, stochastic),
    }


def _with_ratios(schemes: list[Results], against: str) -> list[Results]:
    """The same with each weak error over that of one scheme at the same budget."""
    (other,) = (scheme for scheme in schemes if scheme["name"] == against)
    by_budget = {cell["nfe"]: cell["weak"] or {} for cell in other["cells"]}
    for scheme in schemes:
        for cell in scheme["cells"]:
            for quantity, entry in (cell["weak"] or {}).items():
                divisor = by_budget[cell["nfe"]].get(quantity)
                if divisor and divisor["value"] > 0:
                    sure = entry["sure"] and divisor["sure"]
                    value = entry["value"] / divisor["value"]
                    entry["ratio"] = {"value": value, "standard_error": 0.1 * value, "sure": sure}
    return schemes


def _cells(
    rng: np.random.Generator, name: str, budgets: tuple[int, ...], noise: float, stochastic: bool
) -> list[Results]:
    """A scheme's cells, a budget each; of a diverged one there is only what was predicted."""
    scheme = CATALOGUE[name]
    rows = []
    for place, nfe in enumerate(budgets):
        predicted = PREDICTED[name][place]
        steps = (nfe - 1) // scheme.nfe_per_step
        row: Results = {
            "nfe": nfe,
            "steps": steps,
            "evaluations": steps * scheme.nfe_per_step + 1,
            "diverged": (name, nfe) in DIVERGED,
            "predicted": predicted,
            "predicted_to_data": None if predicted is None else predicted + 0.0069,
            "published_fid": FIDS.get((name, nfe)),
        }
        if row["diverged"]:
            rows.append(row | dict.fromkeys(("weak", "power", "moments", "strong", "distances", "frechet")))
            continue
        size = float(np.sqrt(predicted) * np.exp(0.25 * rng.standard_normal()))
        rows.append(row | _found(rng, size, noise, None if place == 0 else 1.1, stochastic))
    return rows


def _found(rng: np.random.Generator, size: float, noise: float, slope: float | None, stochastic: bool) -> Results:
    """What a cell's samples say if its errors are of this size."""

    def number(value: float, error: float) -> Results:
        return {"value": float(value + error * rng.standard_normal()), "standard_error": error}

    weak = {}
    for name, scale in zip(WEAK, (0.04, 0.5, 0.3, 0.03), strict=True):
        level = noise * scale * (1 + 0.1 * size) * (4 if name == "higher moments" else 1)
        entry = number(0.12 * scale * size, 0.6 * level)
        entry["value"] = max(entry["value"], 0.0)
        sure = entry["value"] > 4 * level
        weak[name] = entry | {"noise": level, "relative": entry["value"] / 0.47, "sure": sure, "slope": slope}
    k = np.array([*range(17), 18.93])
    bend = 0.05 * size * np.log(np.maximum(k, 0.5) / 3)
    ratio = [np.exp(bend + 0.03 * rng.standard_normal(18) + 0.02 * channel) for channel in range(3)]
    return {
        "weak": weak,
        "power": {
            "wavenumber": k.tolist(),
            "ratio": [row.tolist() for row in ratio],
            "standard_error": [(0.03 + 0.12 / (k + 1) * row).tolist() for row in ratio],
        },
        "moments": {name: number(0.01 * size, noise / 10) for name in MOMENTS},
        "distance_samples": 64,
        "strong": number((0.1 if stochastic else 0.03) * size**0.5, 0.002),
        "distances": {
            "energy": number(0.04 * size**2, 0.01 * (1 + size)),
            "sliced Wasserstein": number(0.02 * size, 0.004),
        },
        "frechet": {
            "pixels": {"to_reference": 90.0 + size**2, "to_data": 310.0 + size**2, "excess": number(size**2, 0.8)},
            "features": {"to_reference": 1.1 + size / 10, "to_data": 6.2 + size / 5, "excess": number(size / 5, 0.08)},
            "inception": None,
        },
    }


def _comparison(names: tuple[str, ...], budgets: tuple[int, ...], compared: tuple[str, ...]) -> Results:
    """How the quantities' ranks of the schemes agree with the predicted ones, at each budget and over all."""
    return {
        "quantities": {
            quantity: [
                {
                    "nfe": nfe,
                    "schemes": list(names),
                    "correlation": 0.91 - 0.13 * k - place / 100,
                    "interval": [0.31 - k / 7, 0.97] if quantity in WEAK else None,
                    "p_value": 0.0123 * (k + 1),
                }
                for k, nfe in enumerate([*budgets, None])
            ]
            for place, quantity in enumerate(compared)
        },
        "disagreements": ["at 50 evaluations NOBA ranks 2nd by prediction and 7th by the energy distance"],
    }


def photographs(results: Results) -> dict[Any, np.ndarray]:
    """Real images, shifted a little in colour from scheme to scheme; of diverged cells, garbage that must not show."""
    source = resources.files("weakorder.verification.data") / "cifar10_images.npz"
    with resources.as_file(source) as path:
        images = np.load(path)["images"][:SHOWN].astype(int)
    shown: dict[Any, np.ndarray] = {r["name"]: images.astype(np.uint8) for r in results["references"]}
    for place, scheme in enumerate(results["schemes"]):
        for cell in filter(None, scheme["cells"]):
            moved = np.clip(images + 3 * place - cell["nfe"] // 10, 0, 255).astype(np.uint8)
            shown[scheme["name"], cell["nfe"]] = 255 - moved if cell["diverged"] else moved
    return shown


def with_precisions(results: Results, precisions: tuple[str, ...] = ("tf32", "bfloat16")) -> Results:
    """The same with twins of every cell, whose changes are some thousandths and hundredths of its weak errors."""
    results = copy.deepcopy(results)
    results["settings"]["precisions"] += precisions
    results["settings"]["imitated"] = list(precisions)
    entries = []
    for scheme in results["schemes"]:
        for cell in filter(None, scheme["cells"]):
            cell["precisions"] = {}
            for precision, part in zip(precisions, (0.004, 0.05), strict=False):
                change = {
                    name: {
                        **error,
                        "value": part * error["value"],
                        "standard_error": 1e-6,
                        "noise": 1e-6,
                        "share": part,
                    }
                    for name, error in (cell["weak"] or {}).items()
                }
                cell["precisions"][precision] = {"seconds": 3.0, "diverged": not change, "change": change}
            entries.append((scheme["name"], cell | {"seconds": 2.0}))
    return results | {"rounding": summarise(entries)}


def parse(results: Results, images: dict[Any, np.ndarray] | None = None) -> Page:
    """The page without figures, which cost the most."""
    page = Page(cifar10_page.render(results, photographs(results) if images is None else images, {}))
    assert page.open == []
    return page
