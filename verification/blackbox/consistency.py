"""What is wrong with a black box: the limits of its short runs that are not the model's.

A sampler of weak order 1 or more must agree with the reverse SDE du = beta (A u + G s) dtau + noise of covariance
beta D to first order in the length h of a short run (blackbox.anatomy; for the probability flow, with its own G and no
noise):

    (P - I) / h -> beta A,    sum_k K_k / h -> beta G,    Q / h -> beta D,    b / h -> 0,    t_k -> T - tau,

and the state at which s_k is taken tends to u: P_k -> I, sum_j K_kj -> 0, b_k -> 0, and its noise -> 0. Then it is
consistent whatever the score.

The limits are those of short runs (blackbox.short_runs), at times from the start down to the cut-off, so the entry that
is wrong is named, with its factor. What keeps state may begin and end in its own way, which changes a run's law by O(h)
and is no fault.

Noise of any covariance with the gain that fits it keeps the marginals p_t, and is consistent with them: a sampler of
the SDE that became one of the flow is right, and only a baseline shows the change. So does a skew matrix J added to the
gain, as div(p J grad log p) = div(J grad p) = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...integrators.blackbox import Kind, Sampler, kind_of
from ...theory.model import PSLD_DIFFUSION, Diffusion, Parameters
from ..verdicts import Array, extrapolate
from .anatomy import NAMES, Anatomy, Dissection
from .short_runs import LENGTHS, MAGNIFICATION, RATES, STEPS, TIMES, Spot, look
from .wording import factor, when

# Where runs of `STEPS` steps find something in what keeps state: the steps of longer ones, so that what dies out is
# told from what goes on: it falls to less than this part from one look to the next, though steps are four times as
# many, and a fault of any size stays what it is.
LONGER = ((16, 32), (64, 128))
_DIES_OUT = 0.5
_AGAIN = 4  # of the times where something was found
# A limit is wrong if it is off by this part of the largest entry of its matrix and by more than a few uncertainties;
# below the first number, constants rounded to float32 explain it.
_WRONG, _SURE = 1e-6, 4
# What a step of no length may leave: far more than float64 rounding, and nothing over a few thousand steps.
_STILL = 1e-9
# A rate grows without bound if it does by such a power of h from each of the last lengths to the next.
_GROWS, _GROWN = 0.25, 1e-3
# What a time in [0, 1] may be off by: a few roundings to float32.
_TIME = 4 * 2.0**-24


@dataclass(frozen=True)
class Inconsistency:
    """A limit that is not the SDE's: `what` it is, at which times tau of those `looked` at, found and expected values
    there (times,)."""

    what: str
    taus: tuple[float, ...]
    found: tuple[float, ...]
    expected: tuple[float, ...]
    looked: tuple[float, ...]

    def __str__(self) -> str:
        shown = next((k for k, tau in enumerate(self.taus) if tau in TIMES), 0)
        if f"{self.found[shown]:.6g}" == f"{self.expected[shown]:.6g}":  # next to nothing there
            shown = max(range(len(self.taus)), key=lambda k: abs(self.found[k] - self.expected[k]))
        return f"{self.what} is {factor(self.found, self.expected, shown)} {when(self.taus, self.looked)}"


@dataclass(frozen=True)
class Unbounded(Inconsistency):
    """A rate that has no limit: it grows like h^power, power < 0."""

    power: float = 0.0

    def __str__(self) -> str:
        return f"{self.what} grows like h^{self.power:.2g} as h -> 0, and has no limit"


class Indifferent(Inconsistency):
    """A state that moves alike in runs of any length."""

    def __str__(self) -> str:
        return f"{self.what} are not those of the times that it is given: a short run does the same whatever its length"


def check_moves(diffusion: Diffusion) -> Diffusion:
    """The diffusion. Raises ValueError where it has no noise, so that its reverse dynamics ask for no score, or where
    the score that its dynamics use is not that of all components, which black boxes are given."""
    if not diffusion.forward.has_noise:
        raise ValueError(
            f"diffusion {diffusion.name!r} has no noise to run backward from, and a black box is held to reverse "
            "dynamics; write its sampler as a word"
        )
    if missing := [name for name in diffusion.components if name not in diffusion.score_names]:
        raise ValueError(
            f"the score of diffusion {diffusion.name!r} does not know {', '.join(missing)}, and a black box is given "
            "that of the whole state; write its sampler as a word"
        )
    return diffusion


def inconsistencies(
    sampler: Sampler, params: Parameters, event: tuple[int, ...] = (), diffusion: Diffusion = PSLD_DIFFUSION
) -> list[Inconsistency]:
    """Where a black box departs from the reverse dynamics of a diffusion to first order; none for a sampler of weak
    order >= 1.

    With noise of covariance Q h, the dynamics of score gain (beta D + Q) / 2 + J, J skew, has the marginals p_t for
    every Q and J: Q = beta D is the reverse SDE and Q = 0 the probability flow. A gain that fits its noise is right,
    else both are held to the SDE, or to the flow if there is no noise. Raises BlackBoxError if the sampler cannot be
    probed.
    """
    anatomy = Dissection(sampler, event, diffusion)
    if kind_of(sampler) is Kind.STEP:
        return departures(look(anatomy, params, (1,)), params, diffusion)
    return lasting(
        departures(look(anatomy, params, STEPS), params, diffusion),
        lambda counts, at: departures(look(anatomy, params, counts, at), params, diffusion),
    )


def lasting(
    wrong: list[Inconsistency], again: Callable[[tuple[int, ...], Collection[float]], list[Inconsistency]]
) -> list[Inconsistency]:
    """Of what runs of `STEPS` steps show to be wrong, what is no start and no end; again: what longer ones show at
    some times.

    A start or an end that takes a number of steps, or dies out over steps, changes the law of a run by O(h). What is
    still dying out in the longest runs is not called a fault here: errors tell what is left of it.
    """
    before, at = wrong, _some(sorted({tau for fault in wrong for tau in fault.taus}))
    for counts in LONGER if wrong else ():
        now = again(counts, at)
        if not now:
            return []
        if _size(now) > _DIES_OUT * _size(before):
            names = {fault.what for fault in now}
            return [fault for fault in wrong if fault.what in names] or now
        before = now
    return []


def _some(taus: Sequence[float]) -> set[float]:
    """A few of them, the first and the last among them."""
    places = np.linspace(0, len(taus) - 1, min(_AGAIN, len(taus))).round().astype(int)
    return {taus[place] for place in places}


def _size(wrong: Sequence[Inconsistency]) -> float:
    """By how much limits are off, the worst beside itself."""
    return max(
        max(abs(f - e) for f, e in zip(fault.found, fault.expected, strict=True)) / max(1.0, *map(abs, fault.expected))
        for fault in wrong
    )


def departures(
    spots: Sequence[Spot],
    params: Parameters,
    diffusion: Diffusion = PSLD_DIFFUSION,
    rough: float = 0.0,
    measured: Mapping[str, Array] | None = None,
    table: float = 0.0,
) -> list[Inconsistency]:
    """What the short runs show to be wrong, as `inconsistencies`; rough: what the noise covariance of a run may be off
    by, where its constants are rounded; measured: see `Spot.rates`; table: the spacing of the times t from whose
    neighbours beta may be taken."""
    if wrong := _indifferent(spots) or _at_zero(spots) or _unbounded(spots):
        return wrong
    A, G, D = diffusion.reverse().numbers(params.values())
    taus = tuple(spot.tau for spot in spots)
    limits = [spot.rates(measured) for spot in spots]
    found = {name: np.stack([limit[name][0] for limit in limits]) for name in limits[0]}
    unsure = {name: np.stack([limit[name][1] for limit in limits]) for name in limits[0]}
    for k, spot in enumerate(spots):
        unsure["noise"][k] = np.maximum(unsure["noise"][k], MAGNIFICATION * rough / spot.lengths[-1])
    beta = np.array([params.beta(params.T - tau) for tau in taus])[:, None, None]
    others = [[params.beta(params.T - tau + by) for tau in taus] for by in (-table, table)]
    loose = np.abs(np.array(others)[:, :, None, None] / beta - 1).max(0)
    for name, right in {"drift": A, "gain": G, "noise": D}.items():
        unsure[name] = np.maximum(unsure[name], loose * np.abs(beta * right) / _SURE)
    slack = _SURE * np.maximum(unsure["gain"], unsure["noise"])
    most = _SURE * np.max([unsure[name] for name in ("drift", "gain", "noise")], axis=(0, 2, 3))
    slack = np.maximum(slack, most[:, None, None]) if measured is None else slack
    wanted = reference(found["gain"], found["noise"], beta * G, beta * D, slack)
    if rough:
        wanted |= {"noise": beta * D, "gain": beta * G} if found["noise"].any() else {}
    wanted |= {"drift": beta * A, "offset": np.zeros(found["offset"].shape)}
    if (common := _common_factor(found, wanted, most)) is not None:
        have, want = common
        what = "the rate of everything (drift, gain and noise: beta or a step size)"
        backward = [params.beta(tau) / params.beta(params.T - tau) for tau in taus]
        if np.abs(np.array(have) / backward - 1).max() <= _WRONG:
            what = "the rate of everything (drift, gain and noise: beta is taken at tau, not at t = T - tau)"
        return [Inconsistency(what, taus, have, want, taus)]
    scale = float(np.abs(beta * G).max())
    wrong = []
    for name in ("drift", "gain", "noise", "offset"):
        # components are of different sizes: a row's own entries judge it
        rows = np.maximum(np.abs(wanted[name]).reshape(*wanted["offset"].shape, -1).max(2), 1e-3 * scale)
        for place in np.ndindex(wanted[name].shape[1:]):
            if name == "noise" and place[0] > place[1]:
                continue
            have, want = (values[name][(slice(None), *place)] for values in (found, wanted))
            size = np.sqrt(rows[:, place[0]] * rows[:, place[-1]]) if name == "noise" else rows[:, place[0]]
            bad = np.abs(have - want) > np.maximum(_WRONG * size, _SURE * unsure[name][(slice(None), *place)])
            wrong += _where(bad, DESCRIPTIONS[name].format(*(NAMES[i] for i in place)), have, want, taus)
    return wrong


DESCRIPTIONS = {
    "drift": "the drift of {0} by {1}",
    "gain": "the gain of {0} from s_{1}",
    "noise": "the noise covariance of {0} and {1}",
    "offset": "the constant drift of {0}",
}


def _where(bad: NDArray[np.bool_], what: str, have: Array, want: Array, looked: Sequence[float]) -> list[Inconsistency]:
    """The inconsistency at the times where it is bad, if it is anywhere."""
    if not bad.any():
        return []
    taus, found, expected = (tuple(values[bad].tolist()) for values in (np.array(looked), have, want))
    return [Inconsistency(what, taus, found, expected, tuple(looked))]


def reference(gain: Array, noise: Array, G: Array, D: Array, slack: Array | float = 0.0) -> dict[str, Array]:
    """The gain and noise that a sampler is held to: with noise Q the gain (G + Q) / 2 is right, as G = D, and with any
    skew matrix added to it; if neither fits the other, those of the SDE, or of the probability flow where there is no
    noise and the gain is nearer to it. slack: what gain and noise are known to."""
    size = float(np.abs(G).max())
    off = gain - (G - D / 2 + noise / 2)
    if (np.abs(off + np.swapaxes(off, -1, -2)) / 2 <= np.maximum(_WRONG * size, slack)).all():
        return {"gain": gain, "noise": noise}
    is_flow = (np.abs(noise) <= np.maximum(_WRONG * size, slack)).all() and np.abs(gain - G / 2).max() < np.abs(
        gain - G
    ).max()
    return {"gain": G - D / 2, "noise": 0 * D} if is_flow else {"gain": G, "noise": D}


def _common_factor(
    found: dict[str, Array], wanted: dict[str, Array], slack: Array
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Found and expected rates, if drift, gain and noise all are one factor other than 1 times what they must be."""
    times = len(found["drift"])
    have, want = (
        np.concatenate([values[name].reshape(times, -1) for name in ("drift", "gain", "noise")], axis=1)
        for values in (found, wanted)
    )
    ratio = (have * want).sum(1) / (want * want).sum(1)
    size = np.abs(want).max()
    same = (np.abs(have - ratio[:, None] * want) <= np.maximum(_WRONG * size, slack[:, None])).all()
    is_one = np.abs(ratio - 1) <= np.maximum(_WRONG, slack / np.abs(want).max(1))
    return (tuple(ratio.tolist()), (1.0,) * times) if same and not is_one.all() else None


def _indifferent(spots: Sequence[Spot]) -> list[Inconsistency]:
    """Whether the length of a run is nothing to the sampler, at all times."""
    for spot in spots:
        moved = np.array([run.moved for run in spot.runs])
        size = float(np.abs(moved[-1]).max())
        if not (size > _GROWN and np.abs(moved - moved[-1]).max() <= _WRONG * size):
            return []
    taus = tuple(spot.tau for spot in spots)
    return [Indifferent("its steps", taus, (1.0,) * len(taus), (0.0,) * len(taus), taus)]


def _at_zero(spots: Sequence[Spot]) -> list[Inconsistency]:
    """What a run of no length must do: nothing, its scores taken where it stands. The first of these that it breaks."""
    taus = tuple(spot.tau for spot in spots)
    most = max(run.nfe for spot in spots for run in spot.runs)
    for what, (part, wanted) in _stillness(most, len(spots[0].runs[0].offset)).items():
        limits = [extrapolate(spot.lengths, [part(run) for run in spot.runs]) for spot in spots]
        have = np.stack([limit for limit, _ in limits])
        rounding = np.array([MAGNIFICATION * max(run.rounding for run in spot.runs) for spot in spots])
        unsure = np.maximum([uncertainty for _, uncertainty in limits], rounding)
        wrong: list[Inconsistency] = []
        for place in np.ndindex(wanted.shape):
            values, want = have[(slice(None), *place)], np.full(len(taus), float(wanted[place]))
            bad = np.abs(values - want) > np.maximum(_TIME if "time" in what else _STILL, _SURE * unsure)
            if what == "the score's time":
                start = 1 - np.array(taus)
                wrong += _where(bad, f"{what} t", start + values, start, taus)
            else:
                wrong += _where(bad, f"as h -> 0, {what.format(*(NAMES[i] for i in place))}", values, want, taus)
        if wrong:
            return wrong
    return []


def _unbounded(spots: Sequence[Spot]) -> list[Inconsistency]:
    """What of a short run is not of the size of h: over h it grows without bound."""
    found, full = [], [spot for spot in spots if spot.lengths == LENGTHS]
    for name, of in RATES.items():
        powers: dict[tuple[int, ...], list[float]] = {}
        for spot in full:
            rates = np.abs(spot.over_time(of))
            least = _GROWN + 16 * max(run.rounding for run in spot.runs) / spot.lengths[-1]
            with np.errstate(divide="ignore", invalid="ignore"):
                power = -np.log2(rates[1:] / rates[:-1])
            for place in np.ndindex(power.shape[1:]):
                own = power[(slice(-3, None), *place)]
                to = float(2 * own[-1] - own[-2])  # of a rate that has a limit about 0
                if rates[(-1, *place)] > least and own.max() < -_GROWS and to < -_GROWS:
                    powers.setdefault(place, []).append(to)
        for place, all_powers in powers.items():
            if len(all_powers) == len(full) and (name != "noise" or place[0] <= place[1]):
                what = DESCRIPTIONS[name].format(*(NAMES[i] for i in place))
                taus = tuple(spot.tau for spot in full)
                found.append(
                    Unbounded(what, taus, (1.0,) * len(taus), (0.0,) * len(taus), taus, float(np.mean(all_powers)))
                )
    return found


def _stillness(most: int, n: int) -> dict[str, tuple[Callable[[Anatomy], Array], Array]]:
    """The parts that have a limit as h -> 0, and the limit; most: score evaluations of a run of n components."""
    identity, nothing = np.eye(n), np.zeros((n, n))
    parts: dict[str, tuple[Callable[[Anatomy], Array], Array]] = {
        "the next {} in terms of the old {}": (lambda run: run.propagator, identity),
        "the noise covariance of {} and {}": (lambda run: run.noise_cov, nothing),
        "the constant offset of the next {}": (lambda run: run.offset, np.zeros(n)),
        "the gain of {} from s_{}": (lambda run: run.gains.sum(0), nothing),
        "the score's time": (lambda run: np.array(_farthest(run.times, 1 - run.taus[0])), np.array(0.0)),
    }
    for k in range(most):  # a run without a score of that number has nothing wrong with it
        score = f"of score {k + 1}" if most > 1 else "of the score"
        for what, part, limit_of in _PLACE:
            limit = limit_of(n)
            parts[what.format(score)] = (
                lambda run, k=k, p=part, to=limit: p(run.places[k]) if k < run.nfe else to,
                limit,
            )
    return parts


def _nothing(n: int) -> Array:
    return np.zeros((n, n))


# Of the state at which a score is taken, and what it tends to, of n components. The gains of the scores before it may
# be large one by one: together they are those of one score, as h -> 0.
_PLACE: tuple[tuple[str, Callable[..., Array], Callable[[int], Array]], ...] = (
    ("the {{}} {} in terms of the old {{}}", lambda place: place.propagator, np.eye),
    ("the constant offset of the {{}} {}", lambda place: place.offset, np.zeros),
    ("the gain of the {{}} {} from an earlier score's s_{{}}", lambda place: place.gains.sum(0), _nothing),
    ("the noise covariance of {{}} and {{}} {}", lambda place: place.noise_cov, _nothing),
)


def _farthest(times: Sequence[float], start: float) -> float:
    """How far the time that departs most is from where the run starts."""
    return max((t - start for t in times), key=abs, default=0.0)
