"""The anatomy of a black box: what it does in a short run, whatever the score.

The score is an input like the noise. Answer each of its evaluations with numbers of our own, and a run of any sampler
is

    u' = P u + sum_k K_k s_k + b + xi,   xi ~ N(0, Q),   s_k the score as conditioned at time t_k,

read off by probing: P, K_k, b, Q and the times t_k, to all digits and without any target. Two questions follow.

What changed? Two samplers are compared part by part (blackbox.baseline).

What is wrong? A sampler of weak order 1 or more must agree with the reverse SDE du = beta (A u + G s) dtau + noise of
covariance beta D to first order in the length h of the run (theory.model; for the probability flow, with its own G and
no noise):

    (P - I) / h -> beta A,    sum_k K_k / h -> beta G,    Q / h -> beta D,    b / h -> 0,
    t_k -> T - tau,    and the state at which s_k is taken tends to u.

The limits are extrapolated from a few short runs (Richardson), so the entry that is wrong is named, with its factor.
Noise of any covariance with the gain that fits it keeps the marginals p_t, and is consistent with them: a sampler of
the SDE that became one of the flow is right, and only a baseline shows the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...integrators.blackbox import BlackBoxError, Sampler, Score, as_trajectory
from ...integrators.threads import one_thread
from ...theory.model import PSLD_DIFFUSION, Parameters
from ..verdicts import Array, extrapolate, magnification
from .probing import Probe, check_own_batch, one_time

# Steps of the short runs: enough for a method of three steps to be at work.
STEPS = 3
# Where the limits are taken, and the lengths h of the runs; from the last of them Richardson reaches about 1e-10.
TIMES = (0.1, 0.4, 0.7, 0.95)
LENGTHS = tuple(2.0**-k for k in range(6, 12))
# Rounding of (P - I) / h: a few units of 2^-53, over the shortest h, magnified by the extrapolation.
_MAGNIFICATION = magnification(LENGTHS)
_ROUND_OFF = 16 * 2.0**-53 / LENGTHS[-1] * _MAGNIFICATION
# A limit is wrong if it is off by this part of the largest entry of its matrix and by more than a few uncertainties;
# below the first number, constants rounded to float32 explain it.
_WRONG, _SURE = 1e-6, 4
# What a step of no length may leave: far more than float64 rounding, and nothing over a few thousand steps.
_STILL = 1e-9
# What a time in [0, 1] may be off by: a few roundings to float32.
_TIME = 4 * 2.0**-24

NAMES = "xm"
_IMAGE = (2, 2, 2)


class Place(NamedTuple):
    """The state at which a score is taken, as far as it is no score's: state = propagator u + noise, (2, 2) each, the
    noise's covariance, and its covariance with the noise of the whole run."""

    propagator: Array
    noise_cov: Array
    noise_cross: Array


@dataclass(frozen=True)
class Anatomy:
    """A short run over the times `taus`: propagator P (2, 2), gains K (evaluations, 2, 2), noise_cov Q (2, 2), offset b
    (2,); t (evaluations,), where each score was conditioned, and the places, the states at which it was taken;
    rounding: to float32, relative, else 0."""

    taus: tuple[float, ...]
    propagator: Array
    gains: Array
    noise_cov: Array
    offset: Array
    times: tuple[float, ...]
    places: tuple[Place, ...]
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
        yield "offset", self.offset
        yield "noise covariance", self.noise_cov
        for k, place in enumerate(self.places):
            yield f"state of score {k + 1}", place.propagator
            yield f"noise covariance in the state of score {k + 1}", place.noise_cov
            yield f"noise covariance of the run and the state of score {k + 1}", place.noise_cross


@dataclass(frozen=True)
class Inconsistency:
    """A limit that is not the SDE's: `what` it is, at which times tau, found and expected values there (times,)."""

    what: str
    taus: tuple[float, ...]
    found: tuple[float, ...]
    expected: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.what} is {_factor(self.found, self.expected)} {_when(self.taus)}"


@one_thread()
def dissect(sampler: Sampler, taus: Array, event: tuple[int, ...] = ()) -> Anatomy:
    """The anatomy of a black box of any kind on a short run over taus (N + 1,). Raises BlackBoxError."""
    times = tuple(float(tau) for tau in taus)
    asked: list[Array] = []  # the states at which the score is asked for, of the call at work

    def free(rows: int, batch: int) -> Score:
        asked.clear()

        def score(u: Tensor, t: float | Tensor) -> Tensor:
            check_own_batch(u, batch, event)
            asked.append(probe.unpack(u, rows)[0])
            probe.label = one_time(t)
            return torch.randn_like(u)

        return score

    probe = Probe(1, free, event)
    run = as_trajectory(sampler, list(times))
    probe.discover(run)
    columns = probe.read(run)
    is_score = np.repeat([label is not None for label in probe.labels], probe.widths or []).astype(bool)
    noise = columns.draws[0][~is_score]
    width = len(is_score)
    read = [(rows[1:3] - rows[0], (rows[3 : 3 + width] - rows[0])[~is_score]) for rows in asked]
    return Anatomy(
        times,
        columns.state[0].T,
        columns.draws[0][is_score].reshape(-1, 2, 2).transpose(0, 2, 1),
        noise.T @ noise,
        columns.offset[0],
        tuple(label for label in probe.labels if isinstance(label, float)),
        tuple(Place(state.T, draws.T @ draws, draws.T @ noise) for state, draws in read),
        columns.rounding,
    )


def on_images(sampler: Sampler) -> str | None:
    """A warning if a sampler that was probed with one coordinate a sample does something else on images, None if not.

    It may be meant for such states alone; but one that mixes pixels, or shares their noise, is right on no image.
    """
    taus = np.array([0.5, 0.52])
    try:
        one, many = dissect(sampler, taus), dissect(sampler, taus, _IMAGE)
    except BlackBoxError as error:
        return f"verified for states of shape (batch, 2) alone; on images {error}; --event gives them a shape"
    for (name, part), (_, other) in zip(one.parts(), many.parts(), strict=False):
        if np.abs(part - other).max() > 1e-6 * max(1.0, float(np.abs(part).max())):
            return f"verified for states of shape (batch, 2) alone; on images its {name} is another; see --event"
    return None


def inconsistencies(sampler: Sampler, params: Parameters, event: tuple[int, ...] = ()) -> list[Inconsistency]:
    """Where a black box departs from the reverse dynamics of PSLD to first order; none for a sampler of weak order >=
    1.

    With noise of covariance Q h, the dynamics of score gain (beta D + Q) / 2 has the marginals p_t for every Q: Q =
    beta D is the reverse SDE and Q = 0 the probability flow. A gain that fits its noise is right, else both are held to
    the SDE, or to the flow if there is no noise. Raises BlackBoxError if the sampler cannot be probed.
    """
    A, G, D = PSLD_DIFFUSION.reverse().numbers(params.values())
    runs = [[dissect(sampler, tau + np.linspace(0, h, STEPS + 1), event) for h in LENGTHS] for tau in TIMES]
    if wrong := _at_zero(runs):
        return wrong
    limits = [_rates(anatomies) for anatomies in runs]
    found = {name: np.stack([limit[name][0] for limit in limits]) for name in limits[0]}
    unsure = {name: np.array([limit[name][1] for limit in limits]) for name in limits[0]}
    beta = np.array([params.beta(params.T - tau) for tau in TIMES])[:, None, None]
    wanted = _reference(found["gain"], found["noise"], beta * G, beta * D)
    wanted |= {"drift": beta * A, "offset": np.zeros((len(TIMES), 2))}
    if (factor := _common_factor(found, wanted)) is not None:
        return [Inconsistency("the rate of everything (drift, gain and noise: beta or a step size)", TIMES, *factor)]
    scale = float(np.abs(beta * G).max())
    wrong = []
    for name in ("drift", "gain", "noise", "offset"):
        # position and momentum are of different sizes: a row's own entries judge it
        rows = np.maximum(np.abs(wanted[name]).reshape(len(TIMES), 2, -1).max(2), 1e-3 * scale)
        for place in np.ndindex(wanted[name].shape[1:]):
            if name == "noise" and place == (1, 0):
                continue
            have, want = (values[name][(slice(None), *place)] for values in (found, wanted))
            size = np.sqrt(rows[:, place[0]] * rows[:, place[-1]]) if name == "noise" else rows[:, place[0]]
            bad = np.abs(have - want) > np.maximum(_WRONG * size, _SURE * unsure[name])
            wrong += _where(bad, _DESCRIPTIONS[name].format(*(NAMES[i] for i in place)), have, want)
    return wrong


_DESCRIPTIONS = {
    "drift": "the drift of {0} by {1}",
    "gain": "the gain of {0} from s_{1}",
    "noise": "the noise covariance of {0} and {1}",
    "offset": "the constant drift of {0}",
}


def _where(bad: NDArray[np.bool_], what: str, have: Array, want: Array) -> list[Inconsistency]:
    """The inconsistency at the times where it is bad, if it is anywhere."""
    taus = np.array(TIMES)
    return [Inconsistency(what, *(tuple(values[bad].tolist()) for values in (taus, have, want)))] if bad.any() else []


def _reference(gain: Array, noise: Array, G: Array, D: Array) -> dict[str, Array]:
    """The gain and noise that a sampler is held to: with noise Q the gain (G + Q) / 2 is right, as G = D; if neither
    fits the other, those of the SDE, or of the probability flow where there is no noise and the gain is nearer to
    it."""
    size = float(np.abs(G).max())
    if np.abs(gain - (G - D / 2 + noise / 2)).max() <= _WRONG * size:
        return {"gain": gain, "noise": noise}
    is_flow = np.abs(noise).max() <= _WRONG * size and np.abs(gain - G / 2).max() < np.abs(gain - G).max()
    return {"gain": G - D / 2, "noise": 0 * D} if is_flow else {"gain": G, "noise": D}


def _common_factor(found: dict[str, Array], wanted: dict[str, Array]) -> tuple[tuple[float, ...], ...] | None:
    """Found and expected rates, if drift, gain and noise all are one factor other than 1 times what they must be."""
    have, want = (
        np.concatenate([values[name].reshape(len(TIMES), -1) for name in ("drift", "gain", "noise")], axis=1)
        for values in (found, wanted)
    )
    ratio = (have * want).sum(1) / (want * want).sum(1)
    one = np.ones(len(TIMES))
    same = np.abs(have - ratio[:, None] * want).max() <= _WRONG * np.abs(want).max()
    return (tuple(ratio.tolist()), tuple(one.tolist())) if same and np.abs(ratio - 1).max() > _WRONG else None


def _at_zero(runs: list[list[Anatomy]]) -> list[Inconsistency]:
    """What a run of no length must do: nothing, its scores taken where it stands. The first of these that it breaks."""
    identity, nothing = np.eye(2), np.zeros((2, 2))
    most = max(run.nfe for anatomies in runs for run in anatomies)
    parts: dict[str, tuple[Callable[[Anatomy], Array], Array]] = {
        "the next {} in terms of the old {}": (lambda run: run.propagator, identity),
        "the noise covariance of {} and {}": (lambda run: run.noise_cov, nothing),
        "the gain of {} from s_{}": (lambda run: run.gains.sum(0), nothing),
        "the score's time": (lambda run: np.array(_farthest(run.times, 1 - run.taus[0])), np.array(0.0)),
    }
    for k in range(most):  # a run without a score of that number has nothing wrong with it
        score = f"of score {k + 1}" if most > STEPS else "of the score"
        parts[f"the {{}} {score} in terms of the old {{}}"] = (
            lambda run, k=k: run.places[k].propagator if k < run.nfe else identity,
            identity,
        )
        parts[f"the noise covariance of {{}} and {{}} {score}"] = (
            lambda run, k=k: run.places[k].noise_cov if k < run.nfe else nothing,
            nothing,
        )
    for what, (part, wanted) in parts.items():
        limits = [extrapolate(LENGTHS, [part(run) for run in anatomies]) for anatomies in runs]
        have = np.stack([limit for limit, _ in limits])
        rounding = _MAGNIFICATION * max(run.rounding for anatomies in runs for run in anatomies)
        unsure = np.array([max(uncertainty, rounding) for _, uncertainty in limits])
        wrong: list[Inconsistency] = []
        for place in np.ndindex(wanted.shape):
            values, want = have[(slice(None), *place)], np.full(len(TIMES), float(wanted[place]))
            bad = np.abs(values - want) > np.maximum(_TIME if "time" in what else _STILL, _SURE * unsure)
            if what == "the score's time":
                start = 1 - np.array(TIMES)
                wrong += _where(bad, f"{what} t", start + values, start)
            else:
                wrong += _where(bad, f"as h -> 0, {what.format(*(NAMES[i] for i in place))}", values, want)
        if wrong:
            return wrong
    return []


def _farthest(times: Sequence[float], start: float) -> float:
    """How far the time that departs most is from where the run starts."""
    return max((t - start for t in times), key=abs, default=0.0)


def _rates(runs: list[Anatomy]) -> dict[str, tuple[Array, float]]:
    """The limits of the module's docstring at one time, each with its uncertainty."""
    rates = {
        "drift": [(run.propagator - np.eye(2)) / h for run, h in zip(runs, LENGTHS, strict=True)],
        "gain": [run.gains.sum(0) / h for run, h in zip(runs, LENGTHS, strict=True)],
        "noise": [run.noise_cov / h for run, h in zip(runs, LENGTHS, strict=True)],
        "offset": [run.offset / h for run, h in zip(runs, LENGTHS, strict=True)],
    }
    rounding = _MAGNIFICATION * max(run.rounding for run in runs) / LENGTHS[-1]
    limits = {name: extrapolate(LENGTHS, values) for name, values in rates.items()}
    return {name: (limit, max(uncertainty, rounding, _ROUND_OFF)) for name, (limit, uncertainty) in limits.items()}


def _factor(found: tuple[float, ...], expected: tuple[float, ...]) -> str:
    """How the found values relate to the expected ones: by a factor, where there is one."""
    first = f"{found[0]:.6g} where {expected[0]:.6g} is right"
    if all(abs(e) > 1e-12 for e in expected):
        ratios = [f / e for f, e in zip(found, expected, strict=True)]
        if max(map(abs, ratios)) <= 1e-9:
            return f"missing ({expected[0]:.6g} is right)"
        if max(ratios) - min(ratios) <= 1e-6 * max(1.0, abs(ratios[0])):
            return f"{ratios[0]:.6g} times what is right ({first})"
    return first


def _when(taus: tuple[float, ...]) -> str:
    return "at all times" if taus == TIMES else f"at tau = {', '.join(f'{tau:g}' for tau in taus)}"
