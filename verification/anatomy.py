"""The anatomy of a black box: what it does in a short run, whatever the score.

The score is an input like the noise. Answer each of its evaluations with numbers of our own, and a run of any sampler
is

    u' = P u + sum_k K_k s_k + b + xi,   xi ~ N(0, Q),   s_k the score as conditioned at time t_k,

read off by probing: P, K_k, b, Q and the times t_k, to all digits and without any target. Two questions follow.

What changed? Two samplers are compared part by part (verification.baseline).

What is wrong? A sampler of weak order 1 or more must agree with the reverse SDE du = beta (A u + G s) dtau + noise of
covariance beta D to first order in the length h of the run (theory.model; for the probability flow, with its own G and
no noise):

    (P - I) / h -> beta A,    sum_k K_k / h -> beta G,    Q / h -> beta D,    b / h -> 0,    t_k -> T - tau.

The limits are extrapolated from a few short runs (Richardson), so the entry that is wrong is named, with its factor.
The state at which the score is taken is not read off: it must tend to u, which exact moments check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..integrators.blackbox import Sampler, Score, as_trajectory
from ..theory.model import PSLD_DIFFUSION, Parameters
from .algebra import Array
from .extrapolation import extrapolate
from .probing import Probe, one_time

# Steps of the short runs: enough for a method of three steps to be at work.
STEPS = 3
# Where the limits are taken, and the lengths h of the runs; from the last of them Richardson reaches about 1e-10.
TIMES = (0.1, 0.4, 0.7, 0.95)
LENGTHS = tuple(2.0**-k for k in range(6, 12))
# Rounding of (P - I) / h: a few units of 2^-53, over the shortest h, magnified by the extrapolation.
_ROUND_OFF = 16 * 2.0**-53 / LENGTHS[-1] * 9
# A limit is wrong if it is off by this part of the largest entry of its matrix and by more than a few uncertainties;
# below the first number, constants rounded to float32 explain it.
_WRONG, _SURE = 1e-6, 4
# What a step of no length may leave: far more than float64 rounding, and nothing over a few thousand steps.
_STILL = 1e-9

NAMES = "xm"


@dataclass(frozen=True)
class Anatomy:
    """A short run over the times `taus`: propagator P (2, 2), gains K (evaluations, 2, 2), noise_cov Q (2, 2), offset b
    (2,), and t (evaluations,), where each score was conditioned; rounding: to float32, relative, else 0."""

    taus: tuple[float, ...]
    propagator: Array
    gains: Array
    noise_cov: Array
    offset: Array
    times: tuple[float, ...]
    rounding: float

    @property
    def nfe(self) -> int:
        """Score evaluations."""
        return len(self.times)

    def parts(self) -> Iterator[tuple[str, Array]]:
        """What it consists of, by name."""
        yield "propagator", self.propagator
        for k, gain in enumerate(self.gains):
            yield f"score gain {k + 1}", gain
        yield "noise covariance", self.noise_cov
        yield "offset", self.offset


@dataclass(frozen=True)
class Inconsistency:
    """A limit that is not the SDE's: `what` it is, at which times tau, found and expected values there (times,)."""

    what: str
    taus: tuple[float, ...]
    found: tuple[float, ...]
    expected: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.what} is {_factor(self.found, self.expected)} {_when(self.taus)}"


def dissect(sampler: Sampler, taus: Array, event: tuple[int, ...] = ()) -> Anatomy:
    """The anatomy of a black box of any kind on a short run over taus (N + 1,). Raises BlackBoxError."""
    times = tuple(float(tau) for tau in taus)

    def free(rows: int, batch: int) -> Score:  # noqa: ARG001 - the numbers do not depend on the batch
        def score(u: Tensor, t: float | Tensor) -> Tensor:
            probe.label = one_time(t)
            return torch.randn_like(u)

        return score

    probe = Probe(1, free, event)
    run = as_trajectory(sampler, list(times))
    probe.discover(run)
    columns = probe.read(run)
    draws = columns.draws[0]
    is_score = np.repeat([label is not None for label in probe.labels], probe.widths or []).astype(bool)
    noise = draws[~is_score]
    return Anatomy(
        times,
        columns.state[0].T,
        draws[is_score].reshape(-1, 2, 2).transpose(0, 2, 1),
        noise.T @ noise,
        columns.offset[0],
        tuple(label for label in probe.labels if isinstance(label, float)),
        columns.rounding,
    )


def inconsistencies(sampler: Sampler, params: Parameters, event: tuple[int, ...] = ()) -> list[Inconsistency]:
    """Where a black box departs from the reverse dynamics of PSLD to first order; none for a sampler of weak order >=
    1.

    With noise of covariance Q h, the dynamics of score gain (beta D + Q) / 2 has the marginals p_t for every Q: Q =
    beta D is the reverse SDE and Q = 0 the probability flow. A gain that fits its noise is right, else both are held to
    the SDE, or to the flow if there is no noise. Raises BlackBoxError if the sampler cannot be probed.
    """
    A, G, D = PSLD_DIFFUSION.reverse().numbers(params.values())
    limits = [_limits(sampler, tau, event) for tau in TIMES]
    betas = [params.beta(params.T - tau) for tau in TIMES]
    found = {name: np.stack([limit[name][0] for limit in limits]) for name in limits[0]}
    unsure = {name: np.array([limit[name][1] for limit in limits]) for name in limits[0]}
    beta = np.asarray(betas)[:, None, None]
    noise = found["noise"]
    fitting = (beta * D + noise) / 2
    scale = np.abs(beta * G).max()
    if np.abs(noise).max() <= _WRONG * scale:
        expected_noise, expected_gain = 0 * noise, beta * (G - D / 2)
    elif np.abs(found["gain"] - beta * (G - D) - fitting).max() <= _WRONG * scale:
        expected_noise, expected_gain = noise, found["gain"]
    else:
        expected_noise, expected_gain = beta * D + 0 * noise, beta * G + 0 * noise
    expected = {
        "drift": beta * A + 0 * noise,
        "gain": expected_gain,
        "noise": expected_noise,
        "offset": np.zeros((len(TIMES), 2)),
    }
    wrong = _at_zero(limits)
    if wrong:
        return wrong
    for name, wanted in expected.items():
        # position and momentum are of different sizes: a row's own entries judge it
        rows = np.maximum(np.abs(wanted).reshape(len(TIMES), 2, -1).max(2), 1e-3 * scale)
        for place in np.ndindex(wanted.shape[1:]):
            if name == "noise" and place == (1, 0):
                continue
            have, want = found[name][(slice(None), *place)], wanted[(slice(None), *place)]
            size = np.sqrt(rows[:, place[0]] * rows[:, place[-1]]) if name == "noise" else rows[:, place[0]]
            bad = np.abs(have - want) > np.maximum(_WRONG * size, _SURE * unsure[name])
            if bad.any():
                what = _DESCRIPTIONS[name].format(*(NAMES[i] for i in place))
                wrong.append(
                    Inconsistency(what, *(tuple(values[bad].tolist()) for values in (np.array(TIMES), have, want)))
                )
    times, wanted = found["time"][:, 0], params.T - np.array(TIMES)
    if (bad := np.abs(times - wanted) > _WRONG + _SURE * unsure["time"]).any():
        taken = (tuple(values[bad].tolist()) for values in (np.array(TIMES), times, wanted))
        wrong.append(Inconsistency("the score's time t", *taken))
    return wrong


def _at_zero(limits: list[dict[str, tuple[Array, float]]]) -> list[Inconsistency]:
    """What a step of no length does to the state: it must do nothing, or its error grows with the number of steps."""
    wrong = []
    for place in np.ndindex(2, 2):
        have = np.array([limit["still"][0][place] for limit in limits])
        want = np.full(len(TIMES), float(place[0] == place[1]))
        unsure = np.array([limit["still"][1] for limit in limits])
        if (bad := np.abs(have - want) > np.maximum(_STILL, _SURE * unsure)).any():
            what = "as h -> 0 the next {} is the old {} times a factor that".format(*(NAMES[i] for i in place))
            wrong.append(
                Inconsistency(what, *(tuple(values[bad].tolist()) for values in (np.array(TIMES), have, want)))
            )
    return wrong


_DESCRIPTIONS = {
    "drift": "the drift of {0} by {1}",
    "gain": "the gain of {0} from s_{1}",
    "noise": "the noise covariance of {0} and {1}",
    "offset": "the constant drift of {0}",
}


def _limits(sampler: Sampler, tau: float, event: tuple[int, ...]) -> dict[str, tuple[Array, float]]:
    """The limits of the module's docstring at tau, each with its uncertainty. "time": that of the evaluation whose time
    departs most."""
    runs = [dissect(sampler, tau + np.linspace(0, h, STEPS + 1), event) for h in LENGTHS]
    worst = [max(run.times, key=lambda t: abs(t - (1 - tau)), default=1 - tau) for run in runs]
    rates = {
        "still": [run.propagator for run in runs],
        "drift": [(run.propagator - np.eye(2)) / h for run, h in zip(runs, LENGTHS, strict=True)],
        "gain": [run.gains.sum(0) / h for run, h in zip(runs, LENGTHS, strict=True)],
        "noise": [run.noise_cov / h for run, h in zip(runs, LENGTHS, strict=True)],
        "offset": [run.offset / h for run, h in zip(runs, LENGTHS, strict=True)],
        "time": [np.array([t]) for t in worst],
    }
    rounding = 9 * max(run.rounding for run in runs) / LENGTHS[-1]
    limits = {name: extrapolate(LENGTHS, values) for name, values in rates.items()}
    return {name: (limit, max(uncertainty, rounding, _ROUND_OFF)) for name, (limit, uncertainty) in limits.items()}


def _factor(found: tuple[float, ...], expected: tuple[float, ...]) -> str:
    """How the found values relate to the expected ones: by a factor, where there is one."""
    first = f"{found[0]:.6g} where {expected[0]:.6g} is right"
    if all(abs(e) > 1e-12 for e in expected):
        ratios = [f / e for f, e in zip(found, expected, strict=True)]
        if max(ratios) - min(ratios) <= 1e-6 * max(1.0, abs(ratios[0])):
            return f"{ratios[0]:.6g} times what is right ({first})"
    return first


def _when(taus: tuple[float, ...]) -> str:
    return "at all times" if taus == TIMES else f"at tau = {', '.join(f'{tau:g}' for tau in taus)}"
