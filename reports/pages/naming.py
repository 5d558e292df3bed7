"""What a report calls its schemes, and the commands that print what it shows of them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict

from ...integrators.catalogue import is_catalogued
from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ...verification.exact import Opaque, Subject, order


def labels_of(schemes: Sequence[Subject]) -> list[str]:
    """Names for the figures: with lambda_s, sub-flow and what is held where a name does not say them already."""
    labels = []
    for scheme in schemes:
        if isinstance(scheme, Scheme) and is_catalogued(scheme):
            labels.append(scheme.name)
            continue
        scale = "" if scheme.lambda_s == 1 else f" λ={scheme.lambda_s:g}"
        flow = ", ".join(word for word in ("" if scheme.flow == "euler" else scheme.flow, scheme.held) if word)
        labels.append(scheme.name + scale + (f" ({flow})" if flow else ""))
    return labels


def command_of(
    scheme: Subject,
    params: Parameters,
    steps: Sequence[int],
    t_end: float,
    default_steps: Sequence[int],
    more: Sequence[str] = (),
) -> str:
    """The command that prints a study of the scheme; what has its default value is left out."""
    options: list[object] = [] if isinstance(scheme, Opaque) else ["--splitting", scheme.splitting.name]
    if scheme.flow != "euler":
        options += ["--flow", scheme.flow]
    if isinstance(scheme, Scheme) and not scheme.holds_score:
        options += ["--frozen", scheme.frozen, "--memory", scheme.memory]
        options += [] if scheme.clock.is_theta else ["--clock", scheme.clock]
    if scheme.lambda_s != 1:
        options += ["--lambda-s", scheme.lambda_s]
    if scheme.order not in (None, 1):
        options += ["--order", scheme.order]
    levels = tuple(default_steps)
    if isinstance(scheme, Opaque):
        from ...verification.blackbox import BLACK_BOX_STEPS as levels  # which brings torch
    if tuple(steps) not in (levels, tuple(default_steps)):
        options += ["--steps", ",".join(map(str, steps))]
    if t_end != order.T_END:
        options += ["--t-end", t_end]
    for name, default in asdict(scheme.splitting.diffusion.parameters()).items():
        if (value := getattr(params, name)) != default:
            options += [f"--{name.replace('_', '-')}", value]
    subject = scheme.name if isinstance(scheme, Opaque) else scheme.word
    return shlex.join(["weakorder", "verify", subject, *map(str, options), *more])
