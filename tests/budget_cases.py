"""What tests of error budgets share: parameters, and budgets that leave a replacement out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from diffusions import THIRD
from error_constants import BALANCED
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.verification.advice.budget import Source, _samplers
from weakorder.verification.exact.subject import moments_of

SAMPLERS = "weakorder.verification.advice.budget._samplers"


def params_of(scheme: Scheme) -> Parameters:
    """Of which no part is small beside another, and under which few steps are stable."""
    diffusion = scheme.splitting.diffusion
    if diffusion == THIRD:
        return Parameters(beta_min=0.5, beta_max=0.5)
    return BALANCED if diffusion.name == "psld" else diffusion.parameters()


def leave_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets that do not make one replacement: its term is 0, and the next one holds both."""

    def samplers(subject: Any, run: Any) -> Iterator[tuple[Source, Any]]:
        kept: Any = lambda target: moments_of(subject, target, run.taus, run.start, run.denoise).computed  # noqa: E731
        for source, sampler in _samplers(subject, run):
            kept = kept if str(source) == name else sampler
            yield source, kept

    monkeypatch.setattr(SAMPLERS, samplers)
