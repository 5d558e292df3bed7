"""What `weakorder tune` prints."""

from __future__ import annotations

import math
import shlex
from typing import Any

Results = dict[str, Any]
Row = list[str]
# Of a distance that Gaussians promise (docs: on networks).
TRUST = (
    "A network is no Gaussian's score, nor are images Gaussian: at 20, 50 and 100 evaluations exact distances ranked "
    "12 schemes as a network's power spectrum did with correlations of 0.62, 0.33 and 0.53 only."
)
HEADER = ["", "steps", "lambda_s", "rho", "eps", "denoise", "distance", "of published", "growth"]


def tune_rows(scheme: Results, entry: Results) -> list[Row]:
    """The table of a scheme at a budget."""
    rows = []
    for label, key in (("as published", "published"), ("one exponent", "family"), ("free grid", "free")):
        if (found := entry[key]) is None:
            continue
        ratio = _ratio(found["distance"], entry["published"]["distance"])
        rho = "free" if found["rho"] is None else f"{found['rho']:.4g}"
        scale = f"{found['lambda_s']:.4g}" if scheme["kind"] == "stochastic" else "-"
        numbers = [label, str(found["steps"]), scale, rho, f"{found['eps']:.3g}", "yes" if found["denoise"] else "no"]
        grown = found["growth"]["growth"]
        rows.append([*numbers, _number(found["distance"]), ratio, "inf" if grown is None else f"{grown:.3g}"])
    return rows


def tune_notes(entry: Results, settings: Results) -> list[str]:
    """How sharp the optimum is, and where it is not to be trusted."""
    lines, best = [], entry["best"]
    spans = [_span(curve) for curve in entry["curves"] if curve["name"] != "blend"]
    if spans:
        lines.append(f"within {100 * (settings['near'] - 1):.0f}% of the optimum (one exponent): {'; '.join(spans)}")
    jitter = ", ".join(f"{float(size):.0%}: x {ratio:.3g}" for size, ratio in entry["jitter"].items())
    lines.append(f"step lengths off at random by {jitter}")
    agreeing = f"of {best['starts']} starts the best {best['followed']} were followed; {best['agreeing']} end there"
    at_bounds = [name for name in best["at_bounds"] if not name.startswith("h_")]
    lines.append(agreeing + (f"; at a bound of the search: {', '.join(at_bounds)}" if at_bounds else ""))
    if not best["stable"]:
        within = (
            f"within the growth of the published ones, {best['limit']:.3g}"
            if best["rank"][0] == 1
            else "of the least growth found"
        )
        lines.append(
            f"WARNING: no settings were found whose growth is at most {settings['limit']:g}; these are the nearest "
            f"{within}, and a network's errors may grow with them"
        )
    if entry["unlimited"] is not None and entry["unlimited"] < 0.99 * best["distance"]:
        lines.append(f"without the limit on growth the distance would be {entry['unlimited']:.3g}")
    if best["distance"] < best["floor"]:
        lines.append(
            f"not to be trusted that far: an exact sampler with this cut-off ends at {best['floor']:.3g}, and the run "
            f"is {best['from_exact']:.3g} from that law; what lies below is errors that cancel, on this spectrum"
        )
    changes = ", ".join(f"{name}: {ratio:.3g}" for name, ratio in entry["elsewhere"].items())
    lines.append(f"of the published distance on other data: {changes}")
    return lines


def reproduce(scheme: Results, entry: Results, grid_file: str) -> str:
    """The commands that run it: only what `cifar10 study` can be told, which always takes the denoising step."""
    best = entry["best"]
    words = ["weakorder", "cifar10", "study", "--schemes", scheme["name"], "--nfe", str(entry["nfe"])]
    grid = grid_file if best["rho"] is None else f"1 - (1 - s)**{best['rho']!r}"
    words += ["--grid", grid, "--eps", repr(best["eps"])]
    if scheme["kind"] == "stochastic" and best["lambda_s"] != 1:
        words += ["--lambda-s", repr(best["lambda_s"])]
    return shlex.join(words)


def papers_text(papers: Results) -> list[str]:
    """Where the papers' rankings agree with exact distances."""
    lines = ["FIDs of EM and SSCS on two grids (arXiv 2303.01748, table 5) and exact distances, rank correlations:"]
    found = ", ".join(f"{entry['correlation']:.2f} at {entry['nfe']}" for entry in papers["by_grid"])
    lines.append(f"  {found}")
    lines.append("FIDs by scheme (arXiv 2310.07894, ROBA's lambda_s tuned there) and exact distances:")
    for entry in papers["by_scheme"]:
        parts = []
        for one in entry["entries"]:
            tuned = "" if one["tuned"] is None else f", tuned {one['tuned']:.3g}"
            parts.append(f"{one['name']} FID {one['fid']:g}, {one['distance']:.3g}{tuned}")
        correlation = entry["correlation"]
        lines.append(f"  {entry['nfe']} NFE (rank correlation {correlation:.2f}): {'; '.join(parts)}")
    lines.append("lambda_s: the papers tune it by FID and state no value.")
    return lines


def network_text(network: Results) -> list[str]:
    """The validation, a line for each candidate."""
    steps = ", ".join(f"{kind} {count}" for kind, count in network["reference_steps"].items())
    lines = [
        f"on {network['network']}, {network['samples']} samples, against a fine run ({steps} steps), weak error of the "
        "power spectrum, relative, +- a standard error; spectral Fréchet distance:"
    ]
    for group in network["groups"]:
        for entry in group["candidates"]:
            name = f"{group['scheme']} at {group['nfe']}, {entry['label']}"
            if entry["diverged"]:
                lines.append(f"  {name}: diverges")
                continue
            weak = entry["weak"]
            text = f"{weak['relative']:.3g} +- {weak['standard_error']:.2g}" + ("" if weak["sure"] else " ?")
            if (distance := entry["distance"]) is not None:
                text += f", distance {distance['value']:.3g} +- {distance['standard_error']:.2g}"
            if (ratio := entry["ratio"]) is not None:
                text += f"; weak error {ratio['value']:.3g} +- {ratio['standard_error']:.2g} of the published"
            lines.append(f"  {name}: {text}" + (f": {entry['says']}" if "says" in entry else ""))
    lines.append("?: not four times its noise")
    return lines


def _span(curve: Results) -> str:
    low, high = curve["near"]
    ends = [value if edge is None else edge for edge, value in zip(curve["near"], (0, 0), strict=True)]
    text = f"{curve['name']} "
    if low is None and high is None:
        return text + f"anywhere in {curve['values'][0]:.3g} to {curve['values'][-1]:.3g}"
    if low is None:
        return text + f"up to {ends[1]:.4g}"
    return text + (f"from {ends[0]:.4g}" if high is None else f"{low:.4g} to {high:.4g}")


def _ratio(value: float | None, published: float | None) -> str:
    if value is None or published is None or not published > 0:
        return "-"
    return _number(value / published)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"
