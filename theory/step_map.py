"""The one-step map of a word, in closed form.

Between two evaluations of the score a step is affine, u <- P u + K s + xi with xi ~ N(0, Q); if parts hold another
quantity q than the score, of s = Phi u + Psi q with Phi and Psi that do not change in time, q stands in its place (for
others there is no closed form: theory.held_flows). Here P, K and Q are sympy matrices in theta, the integral of beta
over the whole step: a part of weight w acts over w theta, as it does exactly for constant beta. The numbers that
samplers use are compiled with each part's own clock (integrators.compiled).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from .cache import cached
from .flows import Flow, exact_flow
from .frozen import SCORE_HELD
from .model import LinearSDE
from .scheme import FROZEN_FLOWS, Scheme, check_holds_score
from .splitting import Part


class SymbolicSegment(NamedTuple):
    """u <- P u + K s + xi with the score evaluated at tau + time h (None: before any evaluation); sympy matrices."""

    time: Fraction | None
    flow: Flow


def step_map(scheme: Scheme) -> list[SymbolicSegment]:
    """The segments of one step, the one before the first S only if something acts there.

    Raises ValueError for sub-flows that follow the score inside a part: they are not affine in a frozen score; and on a
    scheme that holds what has no closed form, or for longer than a step.
    """
    import sympy as sp

    from .formulas import parse
    from .symbols import SYMBOLS

    n, segments = scheme.splitting.diffusion.size, []
    for time, entries in step_map_text(scheme):
        flow = Flow(*(sp.Matrix(n, n, [parse(entry, SYMBOLS) for entry in entries[name]]) for name in "PKQ"))
        segments.append(SymbolicSegment(None if time is None else Fraction(time), flow))
    return segments


def step_map_text(scheme: Scheme) -> list[tuple[str | None, dict[str, list[str]]]]:
    """The same in text: for each segment the time, and by name P, K and Q n^2 entries, row-major."""
    return [(time, entries) for time, entries in cached(_question(scheme), lambda: _compose(scheme))]


def _question(scheme: Scheme) -> tuple[Any, ...]:
    """What a step's map depends on. Raises ValueError where it has none in closed form."""
    if scheme.flow not in FROZEN_FLOWS:
        raise ValueError(
            f"the {scheme.flow} sub-flow follows the score inside a part; its step is no affine map of u and s; "
            f"use {' or '.join(FROZEN_FLOWS)}"
        )
    sdes = {part.name: followed(scheme, part) for part in scheme.parts}
    if scheme.memory > 1 or None in sdes.values():
        check_holds_score(scheme, "a one-step map in closed form is")
    declaration = [(part.name, part.declaration) for part in scheme.parts]
    question = ("step map", scheme.word, scheme.flow, str(scheme.lambda_s), declaration)
    if not scheme.holds_score:
        question = (*question, [sde.declaration for sde in sdes.values() if sde is not None])
    return question


def has_step_map(scheme: Scheme) -> bool:
    """Whether the step has a map in closed form."""
    return scheme.flow in FROZEN_FLOWS and scheme.memory == 1 and all(followed(scheme, part) for part in scheme.parts)


def followed(scheme: Scheme, part: Part) -> LinearSDE | None:
    """What a part follows exactly, with what is held in the score's place; None if its coefficients depend on time."""
    if scheme.frozen == SCORE_HELD or not part.sde.uses_score:
        return part.sde
    from .held_proof import steady

    return steady(part.sde, scheme.frozen, scheme.splitting.diffusion)


def _compose(scheme: Scheme) -> list[tuple[str | None, dict[str, list[str]]]]:
    import numpy as np
    import sympy as sp

    from .exponential_polynomials import expression, in_one_field, unit
    from .flow_proof import euler_matrices
    from .formulas import text

    letters = dict.fromkeys(token.symbol for token in scheme.tokens if token.weight is not None)
    flows = []
    for letter in letters:
        part = scheme.splitting[letter]
        euler = part.euler or (scheme.flow == "euler" and part.sde.uses_score)
        sde = followed(scheme, part) or part.sde
        flow = euler_matrices(sde) if euler else exact_flow(sde).matrices
        scale = sp.diag(sp.nsimplify(scheme.lambda_s), *(1 for _ in range(sde.size - 1)))
        flows.append(flow._replace(noise_cov=scale * flow.noise_cov * scale))
    field, flows = in_one_field(flows)
    of_part = dict(zip(letters, flows, strict=True))
    identity = unit(field, scheme.splitting.diffusion.size)
    segments: list[tuple[str | None, Flow]] = [(None, identity)]
    for token in scheme.tokens:
        if token.weight is None:
            segments.append((str(token.start), identity))
            continue
        weight = field.from_sympy(sp.Rational(token.weight.numerator, token.weight.denominator))
        over = np.vectorize(lambda entry, weight=weight: entry.at_multiple(weight), otypes=[object])
        time, before = segments[-1]
        segments[-1] = (time, before.then(Flow(*map(over, of_part[token.symbol]))))
    if segments[0][1] is identity:
        segments = segments[1:]
    return [
        (
            time,
            {name: [text(expression(e, field)) for e in matrix.flat] for name, matrix in zip("PKQ", flow, strict=True)},
        )
        for time, flow in segments
    ]
