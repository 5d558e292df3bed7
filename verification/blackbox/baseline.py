"""Baselines: what a sampler does, as a small file, and what a change of it did, as an expert would say it.

record   the anatomy of short runs at several times and step sizes (blackbox.anatomy), the moments of a few whole runs
         on Gaussian targets, evaluations, and the order study
check    the same of the sampler as it is now, compared part by part (blackbox.comparison)
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ...integrators.blackbox import Sampler, as_black_box, kind_of
from ...integrators.grids import time_grid
from ...theory.model import PSLD_DIFFUSION, Diffusion, LinearSDE, Parameters
from ...theory.parameters import COMPONENTS
from ...theory.scheme import Scheme
from ..exact import errors_of, gaussian_targets
from ..files import write_atomically
from ..targets import GaussianTarget
from .anatomy import Anatomy, dissect
from .comparison import SHORT_GRIDS, Baseline, Comparison, compare
from .consistency import check_moves
from .probing import probed_moments
from .study import BLACK_BOX_STEPS, study_black_box

FORMAT = "weakorder baseline 2"
DIGITS = 13
RUNS = (("uniform", 25), ("uniform", 100), ("quadratic", 50))
MEANS, VARIANCES = (0.0, 1.0, 0.5), (0.04, 0.25, 1.0)

Progress = Callable[[Sequence[int]], Iterable[int]]


def record(
    name: str,
    sampler: Sampler | Scheme,
    params: Parameters,
    event: tuple[int, ...] = (),
    expected: int = 1,
    steps: Sequence[int] = BLACK_BOX_STEPS,
    progress: Progress = iter,
    diffusion: Diffusion | None = None,
) -> Baseline:
    """The fingerprint of a black box of any kind, or of a scheme, as JSON's own types. expected, steps: of its order
    study; diffusion: what a black box samples, by default PSLD's; a scheme has its own.

    Raises BlackBoxError if it cannot be verified as it stands, ValueError on bad input.
    """
    moves = check_moves(moves_under(sampler, diffusion))
    if isinstance(sampler, Scheme):
        sampler = as_black_box(sampler, params)
    anatomies = [dissect(sampler, np.array(taus), event, moves) for taus in SHORT_GRIDS]
    target, unit = GaussianTarget.of(MEANS, VARIANCES, moves, params), np.sqrt(moves.prior_variances(params.values()))
    runs = []
    for grid, count in RUNS:
        moments = probed_moments(sampler, target, time_grid(grid, count, params), event=event)
        law = {"mean": _digits(moments.computed.mean.T), "cov": _digits(moments.computed.cov.transpose(2, 0, 1))}
        error = errors_of(moments.computed, moments.exact, unit)["w2"]
        runs.append({"grid": grid, "steps": count, "nfe": moments.nfe, **law, "w2_error": _digits(error)})
    laws = gaussian_targets(moves, params)
    study = study_black_box(name, sampler, params, expected, steps, laws, event=event, progress=progress)
    measured = study.measured
    return {
        "format": FORMAT,
        "sampler": name,
        "kind": str(kind_of(sampler)),
        "event": list(event),
        "versions": {"python": platform.python_version(), **{k: metadata.version(k) for k in ("weakorder", "torch")}},
        "parameters": asdict(params),
        **({} if moves == PSLD_DIFFUSION else {"diffusion": described(moves)}),
        "rounding": _digits(max(anatomy.rounding for anatomy in anatomies)),
        "order": {
            "expected": expected,
            "measured": None if measured is None else round(measured.order, 4),
            "steps": list(steps),
            "constant": _digits(study.constants()[-1]),
            "verdict": str(study.verdict),
            "reason": study.reason,
        },
        "runs": {"mean": list(MEANS), "variance": list(VARIANCES), "of": runs},
        "short_runs": [written(anatomy) for anatomy in anatomies],
    }


def moves_under(sampler: Sampler | Scheme, named: Diffusion | None) -> Diffusion:
    """What a sampler samples: a scheme its splitting's diffusion, a black box the one that is named, by default PSLD's.
    Raises ValueError where a scheme's is another."""
    if not isinstance(sampler, Scheme):
        return named or PSLD_DIFFUSION
    own = sampler.splitting.diffusion
    if named is not None and named != own:
        raise ValueError(f"scheme {sampler.name!r} moves under {own.name!r}, not {named.name!r}; drop the diffusion")
    return own


def described(diffusion: Diffusion) -> dict[str, Any]:
    """A diffusion as JSON has it, from which `recorded_diffusion` makes it again."""
    _, (_, forward, variances, arguments, defaults) = diffusion.__reduce__()
    return {
        "name": diffusion.name,
        "forward": list(forward.declaration),
        "variances": list(variances),
        "score_arguments": list(arguments),
        "defaults": dict(defaults),
    }


def recorded_diffusion(baseline: Baseline) -> Diffusion:
    """What the sampler of a baseline samples. Raises KeyError, TypeError or ValueError where it is none."""
    if (text := baseline.get("diffusion")) is None:
        return PSLD_DIFFUSION
    entries = (text[key] for key in ("forward", "variances", "score_arguments"))
    forward, variances, arguments = (tuple(map(str, entry)) for entry in entries)
    sde = LinearSDE.declared(forward)
    if not 1 <= sde.size <= len(COMPONENTS) or len(forward) % 2 or len(variances) != 2 * sde.size - 1:
        raise ValueError("the baseline's diffusion was changed by hand: record it anew")
    return Diffusion.declared(str(text["name"]), sde, variances, arguments, text["defaults"])


def written(anatomy: Anatomy) -> dict[str, Any]:
    """A short run as JSON has it."""
    return {
        "taus": list(anatomy.taus),
        "score_times": _digits(np.array(anatomy.times)),
        **{part.replace(" ", "_"): _digits(value) for part, value in anatomy.parts()},
    }


def check(baseline: Baseline, sampler: Sampler | Scheme, progress: Progress = iter) -> Comparison:
    """A black box against its baseline, recorded with the same parameters, event and order study as that was.

    Raises BlackBoxError if it cannot be verified as it stands, ValueError if the baseline is not one.
    """
    check_baseline(baseline)
    order = baseline["order"]
    params, event = Parameters(**baseline["parameters"]), tuple(baseline["event"])
    moves = recorded_diffusion(baseline)
    now = record(baseline["sampler"], sampler, params, event, order["expected"], order["steps"], progress, moves)
    return compare(baseline, now)


def check_baseline(baseline: object) -> None:
    """Raises ValueError unless `baseline` is a fingerprint of this version's format, with all that `compare` reads."""
    found = baseline.get("format") if isinstance(baseline, dict) else None
    if found != FORMAT or not isinstance(baseline, dict):
        raise ValueError(f"this is no baseline of format {FORMAT!r} but {found!r}: record it anew")
    grids = [tuple(run["taus"]) for run in baseline["short_runs"]]
    if grids != list(SHORT_GRIDS):
        raise ValueError("the baseline's short runs are not this version's: record it anew")
    runs = baseline["runs"]["of"]
    laws = [(np.shape(run["mean"]), np.shape(run["cov"])) for run in runs]
    order, event, n = baseline["order"], baseline["event"], recorded_diffusion(baseline).size
    sound = (
        [(run["grid"], run["steps"]) for run in runs] == list(RUNS)
        and set(laws) == {((len(MEANS), n), (len(MEANS), n, n))}
        and all(isinstance(run["nfe"], int) and {"w2_error"} <= set(run) for run in runs)
        and all(isinstance(run["score_times"], list) for run in baseline["short_runs"])
        and isinstance(baseline["rounding"], (int, float))
        and isinstance(baseline["kind"], str)
        and isinstance(baseline["sampler"], str)
        and isinstance(event, list)
        and all(isinstance(size, int) for size in (*event, *order["steps"], order["expected"]))
        and {"measured", "constant", "verdict"} <= set(order)
    )
    if not sound:
        raise ValueError("the baseline was changed by hand or is of another version: record it anew")
    Parameters(**baseline["parameters"])


def load(path: str | Path) -> Baseline:
    """A baseline from its file. Raises ValueError, in one line, if it is missing or none."""
    try:
        baseline = json.loads(Path(path).read_text("utf-8"))
        check_baseline(baseline)
    except OSError as error:
        raise ValueError(f"cannot read the baseline {str(path)!r}: {error.strerror}; record it first") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is no baseline: {type(error).__name__}: {error}; record it anew") from error
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    return baseline


def save(baseline: Baseline, path: str | Path) -> None:
    """Write a baseline: JSON, a line for every list of numbers, so that a change shows as few lines. Raises OSError."""
    text = json.dumps(baseline, indent=1, allow_nan=False)
    inner = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")
    text = inner.sub(lambda match: "[" + re.sub(r"\s*\n\s*", " ", match[1]) + "]", text)
    write_atomically(path, (text + "\n").encode())


def _digits(value: Any) -> Any:
    """Numbers to `DIGITS` significant digits, what is rounding beside the largest as 0, what is not finite as None."""
    array = np.asarray(value, dtype=float)
    size = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    if array.ndim == 0:
        number = float(array)
        return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None

    def plain(number: float) -> float | None:
        if not math.isfinite(number):
            return None
        return 0.0 if abs(number) < 1e-15 * size else float(f"{number:.{DIGITS}g}")

    def walk(values: Any) -> Any:
        return [walk(entry) for entry in values] if isinstance(values, list) else plain(values)

    return walk(array.tolist())
