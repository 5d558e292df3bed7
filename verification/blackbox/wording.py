"""How departures are put into words: by a factor, where there is one, and when."""

from __future__ import annotations


def factor(found: tuple[float, ...], expected: tuple[float, ...], shown: int) -> str:
    """How the found values relate to the expected ones: by a factor, where there is one; shown: which of them is."""
    have, want = found[shown], expected[shown]
    digits = next((n for n in range(6, 17) if f"{have:.{n}g}" != f"{want:.{n}g}"), 17)  # those that tell them apart
    first = f"{have:.{digits}g} where {want:.{digits}g} is right"
    if all(abs(e) > 1e-12 for e in expected):
        ratios = [f / e for f, e in zip(found, expected, strict=True)]
        if max(map(abs, ratios)) <= 1e-9:
            return f"missing ({expected[shown]:.6g} is right)"
        if max(ratios) - min(ratios) <= 1e-6 * max(1.0, abs(ratios[shown])):
            return f"{ratios[shown]:.{digits}g} times what is right ({first})"
    return first


def when(taus: tuple[float, ...], looked: tuple[float, ...]) -> str:
    """At which times, of those that were looked at."""
    if taus == looked:
        return "at all times"
    if len(taus) > 1 and taus == looked[-len(taus) :]:
        return f"from tau = {taus[0]:.4g} on"
    if len(taus) > 1 and taus == looked[: len(taus)]:
        return f"up to tau = {taus[-1]:.4g}"
    more = f" and {len(taus) - 4} more" if len(taus) > 4 else ""
    return f"at tau = {', '.join(f'{tau:.4g}' for tau in taus[:4])}{more}"
