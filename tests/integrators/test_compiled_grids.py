"""Steps of several grids, compiled in one call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from weakorder.integrators import compiled
from weakorder.integrators.catalogue import CATALOGUE, EXPONENTIAL, POSITION
from weakorder.integrators.compiled import Run, Segment, compile_run, compile_runs, compile_step, compile_steps
from weakorder.theory.scheme import Scheme

SCHEMES = (
    CATALOGUE["NOBAB"],
    CATALOGUE["RVV"],
    EXPONENTIAL["SDE-DPM-Solver++2M"],
    EXPONENTIAL["DDIM"],
    POSITION["vp-UniP-3"],
)
GRIDS = [np.array(times) for times in ([0.0, 0.3, 0.5, 0.9, 0.99], [0.0, 0.2, 0.45, 0.8], [0.1, 0.7, 0.95])]


def parts(segments: list[Segment]) -> list[np.ndarray]:
    """All arrays of the segments, the axis of steps first."""
    found = []
    for segment in segments:
        found += [] if segment.time is None else [segment.time]
        found += list(segment.flow)
        found += [] if segment.memory is None else list(segment.memory)
    return found


def difference(scheme: Scheme) -> float:
    """The largest one between a call for all grids and a call for each, of the largest entry."""
    params = scheme.splitting.diffusion.parameters()
    together = parts(compile_steps(scheme, GRIDS, params))
    each = [parts(compile_step(scheme, taus, params)) for taus in GRIDS]
    pairs = zip(together, (np.concatenate(entries) for entries in zip(*each, strict=True)), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)) for a, b in pairs)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_steps_of_several_grids_are_those_of_each(scheme: Scheme) -> None:
    assert difference(scheme) < 1e-13


def test_a_memory_that_reaches_into_the_grid_before_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    held = compiled.compile_held
    monkeypatch.setattr(
        compiled, "compile_held", lambda scheme, stages, params, past, *_: held(scheme, stages, params, past)
    )
    assert difference(EXPONENTIAL["SDE-DPM-Solver++2M"]) > 1e-2


def run_difference(scheme: Scheme, runs: list[Run]) -> float:
    """The largest one between these runs on the grids and each on its own."""
    params = scheme.splitting.diffusion.parameters()
    pairs = []
    for run, taus in zip(runs, GRIDS, strict=True):
        own = compile_run(scheme, taus, params)
        assert run.scheme == own.scheme
        assert run.updates.time is not None
        assert np.array_equal(run.updates.time, own.updates.time)
        pairs += zip((*run.prologue, *parts([run.updates])), (*own.prologue, *parts([own.updates])), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)) for a, b in pairs)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_runs_on_several_grids_are_those_on_each(scheme: Scheme) -> None:
    assert run_difference(scheme, compile_runs(scheme, GRIDS, scheme.splitting.diffusion.parameters())) < 1e-13


def test_a_run_that_goes_on_into_the_next_grid_is_seen() -> None:
    """Its last update is merged with the first part of the next run's first step, as within a run."""
    scheme = CATALOGUE["NOBAB"]
    runs = compile_runs(scheme, GRIDS, scheme.splitting.diffusion.parameters())
    wrong = []
    for run, later in zip(runs, [*runs[1:], runs[0]], strict=True):
        flow = compiled.Flow(*(entry.copy() for entry in run.updates.flow))
        last = compiled.Flow(*(entry[-1] for entry in flow)).then(later.prologue)
        for entry, merged in zip(flow, last, strict=True):
            entry[-1] = merged
        wrong.append(run._replace(updates=run.updates._replace(flow=flow)))
    assert run_difference(scheme, wrong) > 1e-2


def test_sub_flows_that_follow_the_score_are_refused() -> None:
    scheme = replace(CATALOGUE["ROBA"], flow="true")
    with pytest.raises(ValueError, match="the true sub-flow evaluates the score inside a part"):
        compile_steps(scheme, GRIDS, scheme.splitting.diffusion.parameters())
