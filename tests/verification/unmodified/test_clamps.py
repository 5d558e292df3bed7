"""Samplers of one's own that clamp what they predict: the clamp is named, and the method beside it verified."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.integrators.unmodified import Unmodified, function_sampler
from weakorder.theory.paths import PATHS
from weakorder.verification.unmodified import identify, study_on_mixture, study_unmodified, transcribe

CLAMPS = {
    "a method": lambda x0: x0.clamp(-1, 1),
    "a function": lambda x0: torch.clip(x0, min=-1, max=1),
    "in place": lambda x0: x0.clamp_(-1, 1),
    "from below": lambda x0: torch.clamp_min(input=x0, min=-1),
    "from above, in place": lambda x0: x0.clamp_max_(1.0),
    "into another": lambda x0: torch.clamp(x0, -1, 1, out=torch.empty_like(x0)),
}


def ddim(kept):
    """DDIM, eta 0, on vp; kept: what is made of the data that it predicts."""

    def sample(model, x, steps):
        path = PATHS["vp"]
        times = np.linspace(path.end, 1e-3, steps)
        for t, later in zip(times, [*times[1:], None], strict=True):
            at = path.level(float(t))
            eps = model(x, float(t))
            x0 = kept((x - at.sigma * eps) / at.alpha)
            eps = (x - at.alpha * x0) / at.sigma
            if later is None:
                return x0
            after = path.level(float(later))
            x = after.alpha * x0 + after.sigma * eps
        raise AssertionError

    return function_sampler("mine", sample, PATHS["vp"], "eps")


def is_named(sampler: Unmodified, lines: int = 1) -> bool:
    """Whether so many lines of this file are said to clamp."""
    return len(sampler.clamps) == lines and all(line.startswith("test_clamps.py:") for line in sampler.clamps)


@pytest.mark.parametrize("clamp", CLAMPS.values(), ids=list(CLAMPS))
def test_a_clamp_of_states_is_left_out_and_named(clamp):
    plain, own = ddim(lambda x0: x0), ddim(clamp)
    one, two = transcribe(plain, 6), transcribe(own, 6)
    for name in ("start", "offset", "gains", "noise"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-12, atol=1e-12)
    assert is_named(own)
    assert own.said[-1] == f"{own.clamps[0]} clamps states or noise, which is nonlinear, and is off here"
    assert plain.said == ()


def test_studies_and_identify_say_that_a_clamp_is_off():
    for study in (study_unmodified, study_on_mixture):
        found = study({"default": ddim(CLAMPS["a method"])}, steps=(10, 20, 40, 80))
        assert "clamps states or noise, which is nonlinear, and is off here" in " ".join(found.warnings)
        assert found.verdict != "FAIL"
    same = ddim(CLAMPS["a method"])
    assert identify(same)[0].is_same
    assert same.said


def test_a_run_that_cannot_do_without_its_clamp_is_refused_and_does_not_fail():
    off = r"test_clamps.py:\d+ clamps? states or noise, which is nonlinear, and is off here"

    def threshold(x0):
        s = torch.quantile(x0.abs().flatten(1), 0.995, dim=1).view(-1, 1, 1, 1)
        return torch.minimum(torch.maximum(x0, -s), s) / s.maximum(torch.ones_like(s))

    def bound(x0):
        return x0.clamp(-1, 1) / (1 + x0.abs())

    def least(x0):
        return x0 / x0.abs().clamp_(min=1.0)

    with pytest.raises(BlackBoxError, match="not an affine map"):
        transcribe(ddim(threshold), 4)
    with pytest.raises(BlackBoxError, match=f"not an affine map.*{off}: put off what goes with it"):
        transcribe(ddim(bound), 4)
    with pytest.raises(BlackBoxError, match=f"NaN.*{off}: put off what goes with it"):
        study_unmodified({"default": ddim(least)}, steps=(10, 20, 40, 80))
    with pytest.raises(BlackBoxError, match=f"diverges; {off}"):
        study_unmodified({"default": ddim(lambda x0: (1e9 * x0).clamp(-1, 1))}, steps=(10, 20, 40, 80))


def test_a_clamp_of_levels_that_are_alike_for_all_stays():
    def sample(model, x, steps):
        levels = torch.linspace(1.2, 0.1, steps, dtype=x.dtype)
        for level in levels:
            each = level.expand(len(x)).reshape(-1, 1, 1, 1).clamp(max=1.0)
            x = x - each * model(x, float(level.clamp(max=1.0)))
        return x

    def clamped(model, x, steps):
        return sample(lambda y, t: model(y, t), x, steps)

    own = function_sampler("mine", clamped, PATHS["vp"], "eps")
    run = transcribe(own, 4)
    assert own.clamps == []
    assert run.gains[1, 0] == pytest.approx(-1.0)  # and not -1.2


def test_a_clamp_that_never_acts_is_not_named():
    own = ddim(lambda x0: x0.clamp(-1e9, 1e9))
    transcribe(own, 4)
    assert own.clamps == []


def test_a_result_that_is_not_finite_is_no_clamps_doing():
    """Claim: one that changes nothing but stands behind a nan; the sampler fails as it would without it."""
    own = ddim(lambda x0: (x0 * float("nan")).clamp(-1e9, 1e9))
    found = study_unmodified({"default": own}, steps=(10, 20, 40, 80))
    assert (found.verdict, own.clamps) == ("FAIL", [])


def test_truncated_noise_is_named_too():
    def sample(model, x, steps):
        noise = torch.randn_like(x).clamp(-1, 1)
        return model(x, 0.5) + noise

    own = function_sampler("mine", sample, PATHS["vp"], "eps")
    assert transcribe(own, 1).noise[-1] == pytest.approx([1.0])
    assert own.clamped.endswith("clamps states or noise, which is nonlinear, and is off here")
