"""Mutation: samplers that are right, broken on purpose, and what the checks say of them.

A verification suite is as good as the bugs it finds. A `Base` is the source text of a correct sampler: a worked example
(examples/), or a word of the catalogue written out as data. A `Mutant` is a base and a few exact edits of that text, as
people break samplers. `run_mutant` asks, as a user would,

    verify      does the order study (exact.order) fail it, or refuse it as no sampler that can be verified?
    baseline    does it differ from the baseline (blackbox.baseline) that was recorded from its base?

under two models: constant beta on a uniform grid, and beta linear in t, on a quadratic grid, where slips of clocks and
of step sizes show. How large the fault is is measured apart from both checks: its `effect` is the largest difference of
the final moments, mutant against base, in units of the law's size. The other side, samplers that
are right, is blackbox.correct_samplers.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ...integrators.catalogue import CATALOGUE, LANGEVIN_CONTROLS
from ...integrators.grids import time_grid
from ...theory.model import PSLD_DIFFUSION, Parameters
from ...theory.scheme import Scheme
from ..exact import Moments, OrderStudy, exact_moments, gaussian_targets, study_order
from ..targets import GaussianLaw, GaussianTarget
from ..verdicts import Verdict

EXAMPLES = Path(__file__).parents[2] / "examples"

# Few steps, and a stop early enough that their slopes have settled.
STEPS, T_END = (20, 40, 80, 160), 0.3
# What baselines run for their order study, which is the least of what they compare.
BASELINE_STEPS = (10, 20, 40, 80)
# The step count at which effects are measured, and the effect above which a mutant is a fault that must be found.
EFFECT_STEPS, SMALLEST_EFFECT = 50, 1e-9


class Model(NamedTuple):
    """What a sampler is studied on: parameters and a time grid."""

    params: Parameters
    grid: str


MODELS = {
    "constant": Model(Parameters(), "uniform"),
    "linear": Model(Parameters(beta_min=0.1, beta_max=15.9), "quadratic"),
}


class MutationError(ValueError):
    """An edit that does not match its base exactly once: the library is out of date."""


@dataclass(frozen=True)
class Base:
    """A correct sampler as source text; `objects` names the sampler for each of `MODELS`, `order` its weak order."""

    name: str
    text: str
    objects: Mapping[str, str]
    order: int

    def load(self, model: str, text: str | None = None) -> Any:
        """The sampler that the text (default: unedited) defines for a model; a fresh one at each call."""
        module = ModuleType(f"weakorder_mutation_{self.name}")
        source = self.text if text is None else text
        sys.modules[module.__name__] = module  # dataclasses look their module up
        try:
            exec(compile(source, f"<{self.name}>", "exec"), module.__dict__)
        finally:
            del sys.modules[module.__name__]
        return getattr(module, self.objects[model])


@dataclass(frozen=True)
class Mutant:
    """A base with edits, (old, new) replacements that must match exactly once, in order.

    fault: what was broken, in words. clue: a regular expression that what the checks say must match, so that it points
    at the right place. models: those it is run under. A mutant that is `equivalent` is no fault, and must not be
    flagged.
    """

    name: str
    base: str
    edits: tuple[tuple[str, str], ...]
    fault: str
    clue: str = ""
    models: tuple[str, ...] = tuple(MODELS)
    equivalent: bool = False

    @cached_property
    def text(self) -> str:
        """The edited source. Raises MutationError unless every edit matches once."""
        text = bases()[self.base].text
        for old, new in self.edits:
            if (count := text.count(old)) != 1:
                raise MutationError(f"mutant {self.name!r}: the edit of {old!r} matches {count} times; it must once")
            text = text.replace(old, new)
        return text


@dataclass(frozen=True)
class Outcome:
    """What the checks said of a mutant.

    check: the first one that killed it, "refused", "verify", "baseline", or "warned" by verify, with the measured
    size, that it rounds to float32; "" if it survived. model: under which.
    effect: the size of the fault, nan where it has no exact moments. message: what that check said; explanation: what
    the baseline says under the same model, asked for where the message does not match the mutant's clue.
    """

    mutant: Mutant
    check: str
    model: str
    effect: float
    message: str
    explanation: tuple[str, ...] = ()

    @property
    def survived(self) -> bool:
        """Whether no check caught it."""
        return not self.check

    @property
    def points(self) -> bool:
        """Whether what was said matches the mutant's clue."""
        return re.search(self.mutant.clue, "\n".join((self.message, *self.explanation))) is not None

    @property
    def right(self) -> bool:
        """Whether the checks did what they should: kill a fault and point at it, or let an equivalent pass.

        A survivor is right only if its effect is too small to be a fault.
        """
        if self.mutant.equivalent:
            return self.survived and not self.effect > SMALLEST_EFFECT
        return self.points if self.check else self.effect <= SMALLEST_EFFECT

    @property
    def reason(self) -> str:
        """Why it survived."""
        if self.check:
            return ""
        if self.mutant.equivalent:
            return f"no fault: {self.mutant.fault}"
        return f"effect {self.effect:.1e}: {self.message}"


# --- Bases ------------------------------------------------------------------------------------------------------------


def _example(file: str, name: str, order: int = 1) -> Base:
    text = (EXAMPLES / file).read_text(encoding="utf-8")
    return Base(name, text, {"constant": name, "linear": f"{name}_linear"}, order)


def scheme_source(scheme: Scheme) -> str:
    """Python text that builds the scheme: its word and options as data, its splitting's parts written out."""
    splitting = scheme.splitting
    parts = "".join(
        f'    Part("{part.name}", drift=({part.sde.drift[0]}, {part.sde.drift[1]}), '
        f"diffusion=({part.sde.diffusion[0]}, {part.sde.diffusion[1]})),\n"
        for part in splitting.parts
    )
    held = "" if scheme.holds_score else f', frozen=FROZEN["{scheme.frozen}"], memory={scheme.memory}'
    held += "" if scheme.clock.is_theta else f', clock=CLOCKS["{scheme.clock}"]'
    tables = "from weakorder.theory.clock import CLOCKS\nfrom weakorder.theory.frozen import FROZEN\n" if held else ""
    return tables + (
        "from sympy import Abs, sqrt\n"
        "from weakorder.theory.model import gamma, kappa, m, nu, s_m, s_x, x\n"
        "from weakorder.theory.scheme import Scheme\n"
        "from weakorder.theory.splitting import SPLITTINGS, Part, Splitting\n"
        f'whole = SPLITTINGS["{splitting.name}"]\n'
        f"parts = (\n{parts})\n"
        f'splitting = Splitting("{splitting.name}", whole.diffusion, whole.whole, parts)\n'
        f'scheme = Scheme("{scheme.word}", splitting, "{scheme.name}", flow="{scheme.flow}", '
        f"lambda_s={scheme.lambda_s}, order={scheme.order}{held})\n"
    )


@cache
def bases() -> dict[str, Base]:
    """Every base by its name: examples by their object, schemes (catalogue and Langevin controls) by theirs."""
    examples = [_example("splitting.py", name) for name in ("sscs", "oba", "naive_oba", "robab", "verlet")]
    examples += [_example("published_em.py", name) for name in ("step", "sample")]
    examples += [_example("multistep.py", name, order=2) for name in ("ab2", "sab2")]
    schemes = [
        Base(scheme.name, scheme_source(scheme), dict.fromkeys(MODELS, "scheme"), scheme.order or 1)
        for scheme in (*CATALOGUE.values(), *LANGEVIN_CONTROLS)
    ]
    return {base.name: base for base in (*examples, *schemes)}


# --- The checks -------------------------------------------------------------------------------------------------------


def study(
    sampler: Any,
    order: int,
    model: Model,
    steps: tuple[int, ...] = STEPS,
    t_end: float = T_END,
    target: GaussianTarget | None = None,
) -> OrderStudy:
    """The order study of a scheme or a black box on a model. Raises ValueError where it is refused."""
    params, grid = model
    if isinstance(sampler, Scheme):
        return study_order(sampler, params, sampler.order or order, steps, target, t_end, grid)
    from .study import study_black_box

    return study_black_box("sampler", sampler, params, order, steps, target, t_end, grid)


def moments(sampler: Any, model: Model) -> Moments:
    """The moments after `EFFECT_STEPS` steps, on the targets of an order study."""
    diffusion = sampler.splitting.diffusion if isinstance(sampler, Scheme) else PSLD_DIFFUSION
    target = gaussian_targets(diffusion, model.params)
    taus = time_grid(model.grid, EFFECT_STEPS, model.params, T_END)
    if isinstance(sampler, Scheme):
        return exact_moments(sampler, target, taus)
    from .probing import probed_moments  # imports torch, which schemes do not need

    return probed_moments(sampler, target, taus)


def effect_of(changed: Moments, base: Moments, params: Parameters) -> float:
    """The largest difference of the moments, in units of the law's size; inf if only the changed run overflows."""
    if changed.diverged.any():
        return math.inf
    unit = np.array([1.0, params.M**0.5])

    def scaled(law: GaussianLaw) -> tuple[np.ndarray, np.ndarray]:
        return law.mean / unit[:, None], law.cov / (unit[:, None] * unit)[..., None]

    pairs = zip(scaled(changed.computed), scaled(base.computed), scaled(base.exact), strict=True)
    return max(float(np.abs(new - old).max() / max(1.0, np.abs(exact).max())) for new, old, exact in pairs)


@cache
def _base_moments(base: str, model: str) -> Moments:
    return moments(bases()[base].load(model), MODELS[model])


@cache
def _baseline(base: str, model: str) -> dict[str, Any]:
    return recorded(bases()[base].load(model), base, bases()[base].order, MODELS[model].params)


def recorded(sampler: Any, name: str, order: int, params: Parameters) -> dict[str, Any]:
    """The baseline of a scheme or a black box, with a short order study. Raises ValueError where it is refused."""
    from .baseline import record

    return record(name, sampler, params, expected=order, steps=BASELINE_STEPS)


def _differences(mutant: Mutant, model: str) -> tuple[str, ...]:
    """What the baseline of its base says of a mutant; empty if it is the same, or if baselines, which are of PSLD, do
    not know its diffusion."""
    from .baseline import check

    sampler = bases()[mutant.base].load(model, mutant.text)
    if isinstance(sampler, Scheme) and sampler.splitting.diffusion != PSLD_DIFFUSION:
        return ()
    return check(_baseline(mutant.base, model), sampler).lines


def run_mutant(mutant: Mutant, steps: tuple[int, ...] = STEPS, t_end: float = T_END) -> Outcome:
    """Verify a mutant, then check it against its base's baseline, under each of its models until something kills it.

    Raises MutationError if it is out of date.
    """
    base, text = bases()[mutant.base], mutant.text
    effect, reasons = 0.0, []
    for name in mutant.models:
        model = MODELS[name]
        try:
            result = study(base.load(name, text), base.order, model, steps, t_end)
            changed = moments(base.load(name, text), model)
            effect = max(effect, effect_of(changed, _base_moments(base.name, name), model.params))
            if result.verdict is Verdict.FAIL:
                outcome = Outcome(mutant, "verify", name, effect, result.reason)
                return outcome if outcome.points else replace(outcome, explanation=_differences(mutant, name))
            if lines := _differences(mutant, name):
                return Outcome(mutant, "baseline", name, effect, "\n".join(lines))
        except ValueError as error:
            return Outcome(mutant, "refused", name, effect or math.nan, str(error))
        if any(rounding := [warning for warning in result.warnings if "float32" in warning]):
            return Outcome(mutant, "warned", name, effect, "\n".join(rounding))
        reasons.append(f"{name}: {result.reason}")
    return Outcome(mutant, "", "", effect, "; ".join(reasons))
