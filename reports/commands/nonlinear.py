"""Studies on targets whose score is not affine, for the command line: which method, its progress, and its table.

Exact before statistical: one data dimension is computed without sampling (exact.noise_free), all others by
coupled Monte Carlo (sampled.monte_carlo).
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...theory.parameters import COMPONENTS

if TYPE_CHECKING:
    from ...theory.scheme import Scheme
    from ...verification.exact import NoiseFreeStudy
    from ...verification.sampled import MonteCarloStudy, Progress
    from ...verification.targets import Target

METHODS = ("noise-free", "monte-carlo")
# The test functions that a covariance's error is the norm of, as sampled.functionals calls them.
_SECOND = {f"{a}^2" if a == b else a + b for a, b in itertools.combinations_with_replacement(COMPONENTS, 2)}


def method_of(target: Target, method: str | None, sampling: dict[str, Any]) -> str:
    """The method that was chosen, or the one that is without noise where it can be used."""
    exact = target.event == (1,) and all(value is None for value in sampling.values())
    return method or METHODS[0 if exact else 1]


def study(
    scheme: Scheme,
    target: Target,
    method: str | None,
    expected: int | None,
    steps: list[int] | None,
    t_end: float | None,
    grid: str,
    progress: Callable[[Any], Any],
    sampling: dict[str, Any],
    device: str = "cpu",
) -> NoiseFreeStudy | MonteCarloStudy:
    """The study of a scheme on a target. method: one of METHODS; default noise-free in one data dimension.

    sampling: options of `study_target` (accuracy, evaluations, seconds, seed, checkpoint), None where not given.
    device: where states are sampled; what needs no sampling is computed on the CPU. Raises ValueError on bad input,
    also on sampling options for a method that does not sample.
    """
    from ...verification.exact import check_levels, noise_free
    from ...verification.sampled import monte_carlo
    from ...verification.targets import MixtureTarget

    given = {name: value for name, value in sampling.items() if value is not None}
    method = method_of(target, method, sampling)
    options: dict[str, Any] = {"expected": expected, "grid": grid}
    options |= {name: value for name, value in (("steps", steps), ("t_end", t_end)) if value is not None}
    if method == METHODS[0]:
        if given:
            raise ValueError(
                f"--{next(iter(given)).replace('_', '-')} is for sampling; drop it, or add --method monte-carlo"
            )
        if not isinstance(target, MixtureTarget):
            raise ValueError(f"target {target.name!r} cannot be computed without sampling; use --method monte-carlo")
        check_levels(options.get("steps", noise_free.steps_of(scheme)))
        return noise_free.study_noise_free(scheme, target, progress=progress, **options)
    with _Bar() as bar:
        return monte_carlo.study_target(scheme, target, progress=bar, device=device, **options, **given)


def table(answer: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a study's `as_dict`."""
    if not answer["levels"]:
        return ["steps"], []
    if "paths" not in answer["levels"][0]:
        header = ["steps", "NFE", f"error of E {answer['levels'][0]['function']}", "known to", "slope"]
        keys = ("steps", "nfe", "error", "estimate", "slope")
        return header, [[level[key] for key in keys] for level in answer["levels"]]
    header = ["steps", "weak error", "+-", "how", "paths", "difference", "+-", "slope", "strong error"]
    rows = []
    for level in answer["levels"]:
        second = [entry for name, entry in level["weak_errors"].items() if name in _SECOND]
        noise = math.sqrt(sum(entry["standard_error"] ** 2 for entry in second))
        difference = level.get("differences", {}).get("covariance", {"value": math.nan, "standard_error": math.nan})
        row = [level["steps"], level["error"], noise, level["estimate"], level.get("paths", math.nan)]
        row += [difference["value"], difference["standard_error"], level.get("slope", math.nan)]
        rows.append([*row, level.get("strong_error", math.nan)])
    return header, rows


class _Bar:
    """A study's progress as a bar of score evaluations with the time left, on a terminal only."""

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        form = "{percentage:3.0f}% |{bar}| {n:.2g}/{total:.2g} score evaluations, {postfix}"
        self._bar = tqdm(total=1.0, disable=None, leave=False, bar_format=form, file=sys.stderr)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, progress: Progress) -> None:
        """Show how far the study is."""
        self._bar.total = max(progress.planned, progress.done)
        self._bar.set_postfix_str(f"{progress.seconds_left:.0f} s left", refresh=False)
        self._bar.update(progress.done - self._bar.n)


def checkpoint_path(path: Path | None) -> Path | None:
    """A checkpoint that can be written. Raises OSError if it cannot."""
    from ...verification.files import check_writable

    if path is not None:
        check_writable(path)
    return path
