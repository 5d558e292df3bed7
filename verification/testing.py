"""Assertions for the tests of people who write samplers.

    from weakorder.verification.testing import assert_matches_baseline, assert_weak_order

    def test_my_sampler():
        assert_weak_order(step, 1)

A sampler is a step, a multistep object or a whole trajectory (integrators.blackbox), or a Scheme. The pytest plugin
(weakorder.reports.pytest_plugin, installed with the package) offers the same as a fixture, `weakorder`, and makes
`pytest --weakorder-update` rewrite baselines.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..integrators.blackbox import Sampler
    from ..integrators.unmodified import Unmodified
    from ..theory.model import Diffusion, Parameters
    from ..theory.scheme import Scheme
    from .exact import OrderStudy


class WeakorderWarning(UserWarning):
    """What `weakorder verify` warns of, and the verdict does not turn on."""


# Set by the plugin under --weakorder-update: baselines are rewritten instead of compared.
UPDATE = "WEAKORDER_UPDATE"


def assert_weak_order(
    sampler: Sampler | Scheme | Unmodified,
    order: int = 1,
    params: Parameters | None = None,
    steps: Sequence[int] | None = None,
    event: tuple[int, ...] = (),
    time_limit: float | None = None,
    target: str = "gaussian",
    diffusion: Diffusion | str | None = None,
) -> None:
    """Assert that `weakorder verify` says PASS at this order; params: the model's, by default the diffusion's own, of
    PSLD those of the published CIFAR-10 model; time_limit: seconds after which the levels done so far are judged.

    diffusion: what a black box samples, a value or the name of one that is built in, such as "vp", by default PSLD's; a
    Scheme has its own.

    A sampler with a grid of its own is an `Unmodified` (integrators.unmodified: `diffusers_sampler`,
    `k_diffusion_sampler`, `function_sampler`); the model's parameters and the event are its own then. target: of these
    alone it may be "mixture", two Gaussians on a line (verification.unmodified.mixture): the network is not affine
    there, and Gaussian data can show an order that a sampler has not.

    What the command line warns of a sampler that passes is a `WeakorderWarning`. Raises AssertionError with the reason,
    the table of slopes and the warnings otherwise, or with the reason alone if the sampler cannot be verified as it
    stands; ValueError on another target, or a diffusion that is unknown or none of a black box.
    """
    __tracebackhide__ = True
    from ..integrators.blackbox import BlackBoxError
    from ..integrators.unmodified import Unmodified
    from ..theory.scheme import Scheme
    from . import time_limit as limits
    from .exact import order as orders
    from .verdicts import Verdict

    if target != "gaussian" and not isinstance(sampler, Unmodified):
        raise ValueError(
            f"target {target!r} is for samplers with a grid of their own, and {_name(sampler)} is a step or a scheme; "
            "study_noise_free (verification.exact) puts a scheme on a mixture"
        )
    if diffusion is not None and isinstance(sampler, Unmodified | Scheme):
        raise ValueError(f"diffusion is for black boxes; {_name(sampler)} has its own, drop it")
    moves = sampler.splitting.diffusion if isinstance(sampler, Scheme) else _diffusion(diffusion)
    params = params or moves.parameters()
    with limits.time_limit(time_limit) as limit:
        try:
            if isinstance(sampler, Unmodified):
                from .unmodified import STEPS, STUDIES

                if target not in STUDIES:
                    raise ValueError(f"target {target!r} is none; choose {' or '.join(STUDIES)}")
                study = STUDIES[target]({"default": sampler}, order, steps or STEPS)
            elif isinstance(sampler, Scheme):
                study = orders.study_order(sampler, params, order, steps or orders.STEPS)
            else:
                from .blackbox import BLACK_BOX_STEPS, study_black_box

                levels, laws = steps or BLACK_BOX_STEPS, orders.gaussian_targets(moves, params)
                study = study_black_box(_name(sampler), sampler, params, order, levels, laws, event=event)
        except limits.TimeUp:
            raise AssertionError(f"weak order {order} of {_name(sampler)}: INCONCLUSIVE, {limit.sentence}") from None
        except BlackBoxError as error:
            raise AssertionError(f"weak order {order} of {_name(sampler)}: {error}") from None
    verdict, reason = limit.judge(study)
    if verdict is not Verdict.PASS:
        said = "".join(f"\nwarning: {warning}" for warning in study.warnings)
        table = f"\n{slopes(study)}" if isinstance(study, orders.OrderStudy) else ""
        raise AssertionError(f"weak order {order} of {study.name}: {verdict}, {reason}{table}{said}")
    for warning in study.warnings:
        warnings.warn(f"{study.name}: {warning}", WeakorderWarning, stacklevel=2)


def assert_matches_baseline(
    sampler: Sampler | Scheme,
    path: str | Path,
    params: Parameters | None = None,
    event: tuple[int, ...] = (),
    order: int = 1,
    steps: Sequence[int] | None = None,
    diffusion: Diffusion | str | None = None,
) -> None:
    """Assert that a sampler does what the baseline file says; the message says what changed. A file that does not exist
    is an error, and written under --weakorder-update, which rewrites all others too.

    params, event, order, steps, diffusion: of a baseline that is written (steps: of its order study; diffusion: what a
    black box samples, as in `assert_weak_order`); one that is compared holds its own. Raises AssertionError, and
    ValueError on a file that is no baseline.
    """
    __tracebackhide__ = True
    from ..theory.model import Parameters
    from ..theory.scheme import Scheme
    from .blackbox import baseline as baselines

    named = None if diffusion is None else _diffusion(diffusion)
    if os.environ.get(UPDATE, "0") != "0":
        kept = baselines.load(path) if Path(path).exists() else None
        if kept is not None:  # what was recorded once is recorded again, unless the test says otherwise
            params = params or Parameters(**kept["parameters"])
            if named is None and not isinstance(sampler, Scheme):
                named = baselines.recorded_diffusion(kept)
            event, order = event or tuple(kept["event"]), kept["order"]["expected"] if order == 1 else order
            steps = steps or kept["order"]["steps"]
        levels = steps or baselines.BLACK_BOX_STEPS
        params = params or baselines.moves_under(sampler, named).parameters()
        found = baselines.record(_name(sampler), sampler, params, event, order, levels, diffusion=named)
        baselines.save(found, path)
        return
    try:
        recorded = baselines.load(path)
    except ValueError as error:
        raise AssertionError(f"{error}: pytest --weakorder-update") from error
    if params is not None and Parameters(**recorded["parameters"]) != params:
        raise AssertionError(f"{path} was recorded with other model parameters: pytest --weakorder-update")
    if named is not None and named != baselines.recorded_diffusion(recorded):
        raise AssertionError(f"{path} was recorded over another diffusion: pytest --weakorder-update")
    if event and tuple(recorded["event"]) != event:
        raise AssertionError(f"{path} was recorded with event {recorded['event']}: pytest --weakorder-update")
    comparison = baselines.check(recorded, sampler)
    if not comparison.same:
        raise AssertionError(f"{comparison}\nif that is meant: pytest --weakorder-update")


def _diffusion(given: Diffusion | str | None) -> Diffusion:
    """What a black box samples. Raises ValueError on a name that is unknown."""
    from ..integrators.loading import find_diffusion
    from ..theory.model import PSLD_DIFFUSION

    return find_diffusion(given) if isinstance(given, str) else given or PSLD_DIFFUSION


def slopes(study: OrderStudy) -> str:
    """The table of a study's levels: steps, evaluations, W2 error, local slope, error constant."""
    rows = [("steps", "NFE", "W2 error", "slope", "e/h^p")]
    rows += [tuple(_cell(level[key]) for key in _COLUMNS) for level in study.as_dict()["levels"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


_COLUMNS = ("steps", "nfe", "error", "slope", "constant")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _name(sampler: Any) -> str:
    return getattr(sampler, "name", None) or getattr(sampler, "__name__", None) or type(sampler).__name__
