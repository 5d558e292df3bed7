"""While `keeping_flows` is open no flow is computed twice, and no run is another."""

from __future__ import annotations

import numpy as np
import pytest
from weakorder.integrators import held
from weakorder.integrators.compiled import compile_run
from weakorder.integrators.grids import time_grid
from weakorder.theory.clock import LOGSNR
from weakorder.theory.frozen import DATA_HELD, EPS_HELD
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_WHOLE

PARAMS = Parameters(beta_min=3.0, beta_max=5.0)
TAUS = time_grid("quadratic", 6, PARAMS)
# Of some words the flows differ in what is held, in its clock, in the times that it was evaluated at, in the part.
SCHEMES = [
    Scheme(word, splitting, flow="exact", frozen=frozen, memory=2, clock=clock)
    for word, splitting, clock in (
        ("S F", PSLD_WHOLE, LOGSNR),
        ("S@1/2 F", PSLD_WHOLE, LOGSNR),
        ("S F", PSLD_WHOLE, LOGSNR.at_midpoint),
        ("O S B A", PSLD, LOGSNR),
        ("O S B(1/2) A B(1/2)", PSLD, LOGSNR),
    )
    for frozen in (DATA_HELD, EPS_HELD)
] + [Scheme("S F", PSLD_WHOLE, memory=2), Scheme("S F", PSLD_WHOLE, memory=3)]


def tables(scheme: Scheme, params: Parameters = PARAMS) -> list[np.ndarray]:
    run = compile_run(scheme, TAUS, params)
    return [*run.prologue, *run.updates.flow, *(run.updates.memory or ())]


def test_runs_are_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [tables(scheme) for scheme in SCHEMES]
    other = tables(SCHEMES[0], Parameters())
    asked = []
    original = held.held_flow
    monkeypatch.setattr(held, "held_flow", lambda *a: asked.append(a) or original(*a))
    with held.keeping_flows():
        for _ in range(2):
            for scheme, entries in zip(SCHEMES, expected, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(tables(scheme), entries, strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(tables(SCHEMES[0], Parameters()), other, strict=True))
    # of the last word A was known; the first word under other parameters was not
    assert len(asked) == 2 * (1 + 1 + 1 + 2 + 2) + 1
    tables(SCHEMES[0])
    assert len(asked) == 2 * (1 + 1 + 1 + 2 + 2) + 2, "nothing is kept afterwards"
