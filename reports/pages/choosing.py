"""When to choose a scheme, in sentences that the readings of all of them make true.

A scheme is compared with those of its kind: the same diffusion, with or without noise. What is compared, each with
"none is better", so that equals share it:

    nearest    the distance to the data at a budget of evaluations, on the better of the grids
    frugal     the fewest evaluations with which a run is stable, on the better of the grids
    accurate   at many evaluations: of one proven order p, the error constant per evaluation, C n^p with n evaluations a
               step, where the measured order is the proven one

A scheme that is nearest at no budget is compared with those that remember evaluations as it does, or none as it does;
and it is said what ends nearest, and by what factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .templates import number

Results = dict[str, Any]

# How far a measured order may be from the proven one where error constants are compared.
_SETTLED = 0.1


def when_to_choose(row: Results, rows: Sequence[Results]) -> list[str]:
    """Sentences on a scheme (a row of `gallery.collect`), true of all `rows`; at least one."""
    kin = [other for other in rows if _kind(other) == _kind(row)]
    equals = [other for other in kin if (other["memory"] > 1) == (row["memory"] > 1)]
    budgets = [int(budget) for budget in row["distance"]]
    found = []
    if best := _nearest_at(row, kin, budgets):
        found.append(f"Choose it at {_listed(best)} evaluations: none of the {_called(kin)} ends nearer to the data.")
    elif best := _nearest_at(row, equals, budgets):
        memory = "remember evaluations" if row["memory"] > 1 else "remember none"
        among = f"{_called(equals)} that {memory}"
        found.append(f"Choose it at {_listed(best)} evaluations among the {among}: none of them ends nearer.")
    if _is_least(row, kin, fewest):
        found.append(f"It is stable with {fewest(row):.0f}, and none of the {_called(kin)} is with fewer evaluations.")
    same = [other for other in kin if other["proven"] == row["proven"] and _is_settled(other)]
    if _is_settled(row) and _is_least(row, same, _accuracy):
        among = f"{_called(same)} of order {row['proven']}"
        found.append(f"At many evaluations none of the {among} has a smaller error, evaluation for evaluation.")
    if not _nearest_at(row, kin, budgets):
        found.append(_nearer(row, kin, budgets))
    return found


def _nearest_at(row: Results, rows: Sequence[Results], budgets: Sequence[int]) -> list[int]:
    """The budgets at which none of the rows is nearer to the data."""
    return [budget for budget in budgets if _is_least(row, rows, lambda entry, b=budget: distance(entry, b))]


def distance(row: Results, budget: int) -> float:
    """The distance at a budget on the better grid; inf where the run diverges on both, or the budget buys no step."""
    return min((math.inf if d is None else d for d in row["distance"][str(budget)].values()), default=math.inf)


def fewest(row: Results) -> float:
    """The fewest evaluations that are stable, on the better grid; inf where none are."""
    return min(math.inf if entry["nfe"] is None else entry["nfe"] for entry in row["stability"].values())


def _nearer(row: Results, kin: Sequence[Results], budgets: Sequence[int]) -> str:
    """What ends nearest at each budget, and by what factor nearer, one clause for each scheme that does."""
    clauses: dict[str, list[str]] = {}
    for budget in budgets:
        best = min(kin, key=lambda entry, b=budget: distance(entry, b))
        own, least = distance(row, budget), distance(best, budget)
        factor = "where this one diverges" if math.isinf(own) else f"{number(own / least)} times nearer"
        clauses.setdefault(best["name"], []).append(f"at {budget} ({factor})")
    said = [f"{name} {_words(entries)}" for name, entries in clauses.items()]
    return f"To end nearest to the data, choose {', '.join(said)}."


def _is_least(row: Results, rows: Sequence[Results], measure: Callable[[Results], float]) -> bool:
    own = measure(row)
    return math.isfinite(own) and len(rows) > 1 and own <= min(map(measure, rows))


def _accuracy(row: Results) -> float:
    return abs(row["constant"]) * row["nfe_per_step"] ** row["proven"]


def _is_settled(row: Results) -> bool:
    return row["proven"] is not None and row["measured"] is not None and abs(row["measured"] - row["proven"]) < _SETTLED


def _kind(row: Results) -> tuple[str, str]:
    return row["diffusion"], row["kind"]


def _called(rows: Sequence[Results]) -> str:
    where = "in position alone" if len(rows[0]["components"]) == 1 else f"of ({', '.join(rows[0]['components'])})"
    return f"{len(rows)} {rows[0]['kind']} schemes {where}"


def _listed(budgets: Sequence[int]) -> str:
    return _words([str(budget) for budget in budgets])


def _words(entries: Sequence[str]) -> str:
    return entries[0] if len(entries) == 1 else f"{', '.join(entries[:-1])} and {entries[-1]}"
