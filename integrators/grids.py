"""Time grids: where the steps in tau = T - t begin and end, from the prior (tau = 0) to the cut-off (tau = T - t_end).

    tau_i = (T - t_end) g(i/N),     g increasing from g(0) = 0 to g(1) = 1

A grid is a text, and every text is a family, one grid for each number of steps N:

    uniform          g(s) = s
    quadratic        g(s) = 1 - (1 - s)^2, fine near the data (arXiv 2310.07894, section 5)
    an expression    g itself, in s = i/N: "1 - (1 - s)**3"
    times            tau_0 = 0, ..., tau_K: "0, 0.4, 0.8, 0.999". With K steps they are the times themselves. With other
                     numbers of steps g is the monotone cubic (PCHIP) through (k/K, tau_k / tau_K), so that steps are
                     as dense as the given ones, and errors are smooth in 1/N, which an order needs: straight lines
                     have kinks that move among the steps as N changes.

    G on PATH        steps that are G in the time of a Gaussian path (theory.paths), from the noise of t = T to that of
                     the last time: "uniform on flow" are equal steps of rectified flow, "karras on edm" those of Karras
                     et al. 2022 (arXiv 2206.00364, equation 5, rho = 7), "exponential on edm" equal steps of log sigma

    graded G         a grid G whose first step is cut in halves towards its beginning, into lengths h/2^J, h/2^J,
                     h/2^(J-1), ..., h/2, for schemes that look back on several evaluations: J = ceil(log2 N)

A run's first step has one evaluation to go by, and an error of (h/2^J)^2 where it is cut so, at most that of a step of
order 3 everywhere else; uncut it would leave h^2, and so would any scheme of higher order (Hairer, Norsett and Wanner
1993, section III.1).

An expression is a formula in s (theory.formulas): arithmetic and the usual functions, and nothing else is ever run.
"""

from __future__ import annotations

import json
import math
import warnings
from functools import lru_cache
from keyword import iskeyword
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..theory.formulas import FormulaError, evaluated
from ..theory.model import SMALLEST_TIME, Parameters


def _uniform(steps: int) -> NDArray[np.float64]:
    return np.linspace(0.0, 1.0, steps + 1)


def _quadratic(steps: int) -> NDArray[np.float64]:
    return 1 - (1 - np.linspace(0.0, 1.0, steps + 1)) ** 2


MOST_STEPS = 10_000_000
GRIDS = {"uniform": _uniform, "quadratic": _quadratic}
# On a path from its time a to its time b: t at s.
_ON_PATHS = {
    "karras": lambda a, b, s: (a ** (1 / 7) + s * (b ** (1 / 7) - a ** (1 / 7))) ** 7,
    "exponential": lambda a, b, s: a ** (1 - s) * b**s,
}
_GRADED, _ON = "graded ", " on "
FILES = (".txt", ".npy", ".json")
RULE = (
    f"choose {', '.join(GRIDS)}, an expression in s = i/N such as '1 - (1 - s)**3', times tau as in '0, 0.5, 0.999', "
    "or equal steps on a path as in 'uniform on flow'"
)

_LONGEST = 500  # letters of an expression
_TRIED = 1 << 10  # steps at which an expression is tried when it is given
_END = 1e-6  # how far given times may end from T - eps: text and float32 round them


def time_grid(name: str, steps: int, params: Parameters, t_end: float | None = None) -> NDArray[np.float64]:
    """The `steps` + 1 times tau of the grid `name`, increasing from 0 to T - t_end (default: the cut-off eps); float64.

    Given times are scaled to T - t_end where t_end is given; where it is not they must end at T - eps themselves.
    Raises ValueError on an unknown grid, fewer than 1 step, t_end outside (0, T), and times that do not increase.
    """
    if name not in GRIDS:
        check_name(name)
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps = {steps}: a run has at least 1 step, and at most {MOST_STEPS}; 50 is usual")
    stop = params.eps if t_end is None else t_end
    if not SMALLEST_TIME <= stop < params.T:
        raise ValueError(f"t_end = {stop:g} is outside [{SMALLEST_TIME:g}, {params.T:g}); stop between data and prior")
    if is_graded(name):
        return _graded(base_of(name), steps, params, t_end)
    if name in GRIDS:
        return (params.T - stop) * GRIDS[name](steps)
    if _ON in name:
        return check_grid(_along(name, steps, params, stop), params)
    if (times := _times(name)) is None:
        return check_grid((params.T - stop) * _evaluated(name, steps), params)
    if t_end is None and abs(times[-1] - (params.T - stop)) > _END:
        raise ValueError(
            f"the grid's times end at {times[-1]:g}, and the run at T - eps = {params.T - stop:g}; give times up to "
            f"there, or eps = {params.T - times[-1]:g}"
        )
    return check_grid((params.T - stop) * _interpolated(times, steps), params)


def _graded(name: str, steps: int, params: Parameters, t_end: float | None) -> NDArray[np.float64]:
    cuts = math.ceil(math.log2(steps))
    if steps <= cuts:
        raise ValueError(f"steps = {steps}: a graded grid has more than {cuts} steps; take more, or the grid {name!r}")
    taus = time_grid(name, steps - cuts, params, t_end)
    return np.concatenate([taus[:1], taus[0] + (taus[1] - taus[0]) / 2.0 ** np.arange(cuts, 0, -1), taus[1:]])


def _along(name: str, steps: int, params: Parameters, stop: float) -> NDArray[np.float64]:
    """The times tau at which the diffusion is as noisy as the path at G's times."""
    from ..theory.clock import time_at
    from ..theory.paths import PATHS

    spacing, _, where = name.rpartition(_ON)
    path = PATHS[where]
    first, last = (path.time_of(params.theta(t, t)) for t in (params.T, stop))
    if spacing in _ON_PATHS:
        times = _ON_PATHS[spacing](first, last, GRIDS["uniform"](steps))
    else:
        times = first - (first - last) * (GRIDS[spacing](steps) if spacing in GRIDS else _evaluated(spacing, steps))
    tau = params.T - time_at(path.theta(times), params)
    tau[0], tau[-1] = 0.0, params.T - stop
    return tau


def is_graded(name: str) -> bool:
    """Whether the grid's first step is cut in halves towards its beginning."""
    return name.startswith(_GRADED)


def base_of(name: str) -> str:
    """The grid that a graded one cuts the first step of; another grid itself."""
    return name.removeprefix(_GRADED)


def check_grid(taus: ArrayLike, params: Parameters) -> NDArray[np.float64]:
    """`taus` as float64 (steps + 1,). Raises ValueError unless it increases strictly, by at least a step, in [0, T)."""
    taus = np.asarray(taus, dtype=float)
    if taus.ndim != 1 or taus.size < 2:
        raise ValueError(f"a grid of shape {taus.shape} has no step; give at least 2 times tau on one axis")
    if (stuck := np.flatnonzero(~(np.diff(taus) > 0))).size:
        i = int(stuck[0])
        raise ValueError(f"tau_{i + 1} = {taus[i + 1]:g} after tau_{i} = {taus[i]:g}: a grid must increase strictly")
    if not (taus[0] >= 0 and taus[-1] < params.T):
        raise ValueError(f"the grid runs from {taus[0]:g} to {taus[-1]:g}; it must stay within [0, {params.T:g})")
    return taus


def label(name: str) -> str:
    """A grid in a line of text: given times are counted."""
    if is_graded(name):
        return _GRADED + label(base_of(name))
    times = None if name in GRIDS else _times(name)
    return name if times is None else f"{len(times)} given times"


def steps_of(name: str) -> int | None:
    """The number of steps that given times make; None for other grids, which have any."""
    times = None if name in GRIDS or is_graded(name) else _times(name)
    return None if times is None else len(times) - 1


@lru_cache(maxsize=64)
def check_name(name: str) -> None:
    """Raises ValueError, in one line, unless the text is a grid: a name, an expression from 0 to 1, or times from 0."""
    name = base_of(name)
    if name in GRIDS:
        return
    if _ON in name:
        from ..theory.paths import PATHS

        name, _, path = name.rpartition(_ON)
        if path not in PATHS:
            raise ValueError(f"grid on the path {path!r}: the paths are {', '.join(PATHS)}")
        if _times(name) is not None:
            raise ValueError(f"times tau on the path {path!r}: they are the diffusion's own; give them by themselves")
        if name in GRIDS or name in _ON_PATHS:
            return
    if (times := _times(name)) is not None:
        _check_times(times)
        return
    values = _raw(name, _TRIED)
    if not np.isfinite(values).all():
        s = np.flatnonzero(~np.isfinite(values))[0] / _TRIED
        raise ValueError(f"grid {name!r} is not a finite number at s = {s:g}; it must increase from 0 to 1")
    if not (abs(values[0]) <= _END and abs(values[-1] - 1) <= _END):
        raise ValueError(
            f"grid {name!r} runs from {values[0]:g} to {values[-1]:g}; it must be 0 at s = 0 and 1 at s = 1: subtract "
            "the first, divide by the difference"
        )
    if (stuck := np.flatnonzero(~(np.diff(values) > 0))).size:
        raise ValueError(f"grid {name!r} does not increase from s = {stuck[0] / _TRIED:g} on; it must everywhere")


def read_times(path: Path) -> str:
    """The grid of a file: times tau, increasing from 0, as text (numbers between spaces, commas or lines; # begins a
    comment), an array in .npy, or a list in .json. Raises ValueError or OSError, in one line."""
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                values = np.load(file, allow_pickle=False)
        elif path.suffix == ".json":
            values = np.array(json.loads(path.read_text()), dtype=float)
        else:
            lines = (line.split("#")[0] for line in path.read_text().splitlines())
            values = np.array(" ".join(lines).replace(",", " ").split(), dtype=float)
        if values.dtype.kind not in "fiu":
            raise ValueError(f"it holds {values.dtype}")
    except (ValueError, TypeError, EOFError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{str(path)!r} holds no times ({reason}); write them as 0, 0.5, 0.999") from error
    if values.ndim != 1:
        raise ValueError(f"{str(path)!r} holds an array of shape {values.shape}; give times tau on one axis")
    if values.size > MOST_STEPS:
        raise ValueError(f"{str(path)!r} holds {values.size} times; give at most {MOST_STEPS}")
    try:
        _check_times(values.astype(float))
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    return ", ".join(map(repr, values.astype(float).tolist()))


# --- Given times ---


@lru_cache(maxsize=8)
def _times(name: str) -> NDArray[np.float64] | None:
    """The numbers of a list, None if the text is none."""
    words = name.replace(",", " ").split()
    try:
        return np.array(words, dtype=float) if "," in name else None
    except ValueError:
        return None


def _check_times(times: NDArray[np.float64]) -> None:
    if times.size < 2:
        raise ValueError(f"{times.size} times make no step; give at least 2, from 0 to T - eps")
    if not np.isfinite(times).all():
        raise ValueError(f"tau_{np.flatnonzero(~np.isfinite(times))[0]} is not a finite number; give times from 0 to T")
    if (np.diff(times) < 0).all():
        raise ValueError(
            f"the times decrease from {times[0]:g} to {times[-1]:g}, as t does; give tau = T - t, increasing from 0"
        )
    if times[0] != 0:
        raise ValueError(f"the times begin at {times[0]:g}; give tau = T - t, which begins at 0")
    if (stuck := np.flatnonzero(~(np.diff(times) > 0))).size:
        i = int(stuck[0])
        raise ValueError(f"tau_{i + 1} = {times[i + 1]:g} after tau_{i} = {times[i]:g}: a grid must increase strictly")


def _interpolated(times: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """g at i/N: the given times where they are met, else the monotone cubic through them."""
    known = times / times[-1]
    place, rest = np.divmod(np.arange(steps + 1) * (len(times) - 1), steps)
    values = known[place]
    if rest.any():
        from scipy.interpolate import PchipInterpolator

        smooth = PchipInterpolator(np.arange(len(times)), known)(place + rest / steps)
        values = np.where(rest == 0, values, smooth)
    return values


# --- Expressions ---


def _evaluated(name: str, steps: int) -> NDArray[np.float64]:
    """g at i/N, exactly 0 and 1 at the ends."""
    values = _raw(name, steps)
    values[0], values[-1] = 0.0, 1.0
    return values


def _raw(name: str, steps: int) -> NDArray[np.float64]:
    if len(name) > _LONGEST:
        raise ValueError(f"grid {name[:40]!r}... is {len(name)} letters long; an expression has at most {_LONGEST}")
    s = np.arange(steps + 1) / steps
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning), np.errstate(all="ignore"):
            value = evaluated(name, {"s": s})  # texts that are refused may warn; what is not finite is refused
    except FormulaError as error:
        if error.part == name.strip() and name.strip().isidentifier() and not iskeyword(name.strip()):
            raise ValueError(f"grid {name!r} is unknown; {RULE}") from error
        raise ValueError(
            f"grid {name!r} holds {error.part[:60]!r}; an expression has s, numbers, pi, + - * / **, and functions as "
            "sqrt, exp, log, sin"
        ) from error
    except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"grid {name!r} is unknown; {RULE}") from error
    if np.iscomplexobj(value):
        raise ValueError(f"grid {name!r} is complex; it must be a real number at every s")
    return np.array(np.broadcast_to(value, steps + 1), dtype=float)
