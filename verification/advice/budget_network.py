"""What a network adds to the error of a run: from a study of it (`weakorder cifar10 study`).

Of the samples of a run and of a fine run of the same dynamics, on the same noise, the study has squared Frechet
distances d to real images (cifar10.study.frechet) in spaces of features. What the fine run is off by its steps do not
explain; it is the network's, with the prior's, the cut-off's and that of few samples. So

    d(run) = d(fine run)  +  d(run) - d(fine run)
               network          steps, with its standard error

in another measure than the budget's, and of a network's score where the budget has the exact one: the two stand side by
side and do not add up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...theory.model import Parameters
from ...theory.scheme import Scheme

RESULTS = "results.json"


class OnNetwork(NamedTuple):
    """In a space of features: the run's distance to the data (`whole`), the fine run's (`by_network`), their
    difference (`by_steps`) and its standard error; of so many samples."""

    space: str
    whole: float
    by_network: float
    by_steps: float
    standard_error: float
    samples: int


def read_study(path: Path) -> Mapping[str, Any]:
    """The results of a study: its folder, or its results.json. Raises ValueError if there are none to be read."""
    file = path / RESULTS if path.is_dir() else path
    try:
        study = json.loads(file.read_text())
        settings = study["settings"]
        _ = settings["grid"], settings["samples"], study["model"]["parameters"].items(), study["schemes"][0]["cells"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no study"
        raise ValueError(
            f"study {str(path)!r}: {reason}; give the folder that `weakorder cifar10 study -o DIR` wrote"
        ) from error
    return study


def network_shares(
    study: Mapping[str, Any], scheme: Scheme, params: Parameters, steps: int, grid: str
) -> list[OnNetwork]:
    """What a study says of a scheme with so many steps on a grid, a space of features each; empty where it has no such
    run of a model with these parameters, or none with a fine run and distances to data."""
    model = study["model"]["parameters"]
    if study["settings"]["grid"] != grid or any(getattr(params, name) != value for name, value in model.items()):
        return []
    asked = (scheme.word, scheme.splitting.name, scheme.held, scheme.lambda_s)
    found = []
    for entry in study["schemes"]:
        if (entry["word"], entry["splitting"], entry["held"], entry.get("lambda_s", 1.0)) != asked:
            continue
        for cell in entry["cells"]:
            if cell["steps"] != steps:
                continue
            for space, distances in (cell["frechet"] or {}).items():
                excess = (distances or {}).get("excess")
                if excess is not None:
                    whole = distances["to_data"]
                    network, error = whole - excess["value"], excess["standard_error"]
                    samples = study["settings"]["samples"]
                    found.append(OnNetwork(space, whole, network, excess["value"], error, samples))
    return found
