"""Correct samplers: rewritten, and still the same, so that the checks must find nothing in them.

The other side of blackbox.mutation. A `Variation` is a worked example at other parameters, drawing its noise in
another way, or a word of the catalogue cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from ...integrators.catalogue import CATALOGUE
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ...theory.scheme import Scheme
from ..targets import GaussianTarget
from ..verdicts import Verdict
from .mutation import STEPS, Model, bases, effect_of, moments, recorded, study

# Moments of 50 steps, products of a few hundred float64 matrices, that are equal but for roundings.
SAME = 1e-11


@dataclass(frozen=True)
class Variation:
    """A correct sampler: `make` gives it, `plain` the same sampler without the rewriting, that it must not differ from
    (a black box by its baseline, a word by its exact moments).

    order: its weak order; params, grid, target: what it is studied on, down to t_end.
    """

    name: str
    make: Callable[[], Any]
    plain: Callable[[], Any]
    order: int
    model: Model
    target: GaussianTarget
    t_end: float

    def alarms(self, steps: tuple[int, ...] = STEPS) -> tuple[str, ...]:
        """What the checks say against it, which should be nothing: FAIL, a refusal, a difference from its baseline."""
        from .baseline import check

        params, sampler = self.model.params, self.make()
        try:
            result = study(sampler, self.order, self.model, steps, self.t_end, self.target)
            found = [f"verify: {result.reason}"] if result.verdict is Verdict.FAIL else []
            if isinstance(sampler, Scheme):
                difference = effect_of(moments(sampler, self.model), moments(self.plain(), self.model), params)
                lines = [] if difference <= SAME else [f"the moments differ by {difference:.1e}"]
            else:
                lines = check(recorded(self.plain(), self.name, self.order, params), sampler).lines
            return (*found, *(f"baseline: {line}" for line in lines))
        except ValueError as error:
            return (f"refused: {error}",)


# Ways to draw the same standard normals as `torch.randn_like(v)`, of any floating type and with any seed.
DRAWS = {
    "randn_like": "torch.randn_like(v)",
    "float32": "torch.randn(v.shape, dtype=torch.float32).to(v.dtype)",
    "bfloat16": "torch.randn(v.shape, dtype=torch.bfloat16).to(v.dtype)",
    "generator": "torch.randn(v.shape, generator=GENERATOR, dtype=v.dtype)",
    "normal": "torch.normal(torch.zeros_like(v), torch.ones_like(v))",
    "normal_": "torch.empty_like(v).normal_()",
    "two draws": "0.6 * torch.randn_like(v) + 0.8 * torch.randn_like(v)",
    "negated": "-torch.randn_like(v)",
    "without gradients": "torch.randn(v.shape, dtype=v.dtype, requires_grad=True).detach()",
}
# The samplers of the examples for any parameters, by the base that holds their text.
BUILDERS = {
    "sscs": "SSCS(PSLD(beta_0, beta_1, gamma, nu))",
    "oba": "OBA(PSLD(beta_0, beta_1, gamma, nu))",
    "naive_oba": "NaiveOBA(PSLD(beta_0, beta_1, gamma, nu))",
    "robab": "ROBAB(PSLD(beta_0, beta_1, gamma, nu))",
    "verlet": "VelocityVerlet(PSLD(beta_0, beta_1, gamma, nu))",
    "step": "as_step(PSLD(beta_0, beta_1, gamma, nu, kappa), PARAMS)",
    "sample": "as_trajectory(PSLD(beta_0, beta_1, gamma, nu, kappa), PARAMS)",
    "ab2": "AB2(PSLD(beta_0, beta_1, gamma, nu))",
    "sab2": "SAB2(PSLD(beta_0, beta_1, gamma, nu))",
}


def variations(count: int) -> Iterator[Variation]:
    """`count` correct samplers, the same at every call: a third black boxes, the others words of the catalogue.

    Number i is drawn by the generator of seed i, and shows what no seed was chosen for.
    """
    for i in range(count):
        yield _black_box(i) if i % 3 == 0 else _word(i)


def _setting(rng: np.random.Generator, diffusion: Diffusion) -> tuple[Model, GaussianTarget, float]:
    """Parameters, grid and targets at which some hundred steps are stable."""
    beta_min = float(rng.choice([0.1, 0.5, 2.0, 4.0, 8.0]))
    params = Parameters(
        gamma=float(rng.choice([0.005, 0.01, 0.02, 0.1, 0.25])),
        nu=float(rng.choice([2.0, 3.0, 4.01, 4.02, 5.0])),
        kappa=float(rng.choice([0.01, 0.04, 0.25, 1.0])),
        beta_min=beta_min,
        beta_max=beta_min if rng.random() < 0.5 else float(rng.choice([8.0, 12.0, 15.9])),
    )
    mean, variance = rng.normal(size=3), np.exp(rng.uniform(np.log(0.02), np.log(5.0), size=3))
    target = GaussianTarget(mean, variance, diffusion, params)
    return Model(params, str(rng.choice(["uniform", "quadratic"]))), target, float(rng.choice([0.1, 0.2, 0.3, 0.5]))


def _word(i: int) -> Variation:
    """A scheme of the catalogue, with the parts that are solved exactly cut into pieces: the same map."""
    rng = np.random.default_rng(i)
    schemes = list(CATALOGUE.values())
    plain = replace(schemes[int(rng.integers(len(schemes)))], flow=str(rng.choice(["euler", "exact"])))
    setting = _setting(rng, plain.splitting.diffusion)
    tokens: list[str] = []
    for token in plain.tokens:
        share = Fraction(int(rng.integers(1, 4)), 4)
        if token.weight is None or plain.splitting[token.symbol].sde.uses_score or rng.random() < 0.3:
            tokens.append(str(token))
        else:
            tokens += [f"{token.symbol}({weight})" for weight in (share * token.weight, (1 - share) * token.weight)]
    scheme = replace(plain, word=" ".join(tokens))
    return Variation(f"{i}: {plain.name} as {scheme.word}", lambda: scheme, lambda: plain, plain.order or 1, *setting)


def _black_box(i: int) -> Variation:
    """An example at other parameters, drawing its noise in another way."""
    rng = np.random.default_rng(i)
    name, draw = list(BUILDERS)[int(rng.integers(len(BUILDERS)))], list(DRAWS)[int(rng.integers(len(DRAWS)))]
    model, target, t_end = _setting(rng, PSLD_DIFFUSION)
    p = model.params
    given = (
        f"\nbeta_0, beta_1, gamma, nu, kappa = {p.beta_min}, {p.beta_max}, {p.gamma}, {p.nu}, {p.kappa}\n"
        "from weakorder.theory.model import Parameters\nPARAMS = Parameters(gamma, nu, kappa, beta_0, beta_1)\n"
        f"SAMPLER = {BUILDERS[name]}\n"
    )
    base = bases()[name]
    base = replace(base, text=base.text + given, objects=dict.fromkeys(base.objects, "SAMPLER"))
    drawing = f"\nGENERATOR = torch.Generator().manual_seed({i})\n\n\ndef draw(v):\n    return {DRAWS[draw]}\n"
    rewritten = base.text.replace("torch.randn_like(", "draw(") + drawing
    return Variation(
        f"{i}: {name} drawing by {draw}",
        lambda: base.load("constant", rewritten),
        lambda: base.load("constant"),
        base.order,
        model,
        target,
        t_end,
    )
