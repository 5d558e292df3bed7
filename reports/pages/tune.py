"""What `weakorder tune` answers: settings of schemes at budgets, kept part by part, for people and as JSON.

tune_all     the searches, side by side; every part is kept in the folder as it is done, so that the same command goes
             on where it was stopped. All that is shown, as plain values
write_tune   tune.json, a figure for each scheme, one of all, and the grids as files that `--grid` takes
table        the catalogue's table in Markdown; `python -m weakorder.reports.pages.tune FILE.md DIR/tune.json` writes it
             between two marks of a page, and its figure beside the page
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ...theory.model import Parameters
from ...theory.scheme import Scheme
from ...verification.advice import (
    NEAR,
    Measured,
    Optimum,
    Settings,
    by_grid,
    by_scheme,
    check_growth,
    curves,
    elsewhere,
    jitter,
    measure,
    rank,
    tuned,
    untuned,
)
from ...verification.exact import Spectrum
from ...verification.files import make_folder, write_atomically
from ..figures import as_svg, tuned_curves, tuned_distances
from .jobs import Job, Jobs
from .orders import with_table
from .strict_json import dumps

Results = dict[str, Any]
Progress = Callable[[Sequence[Any]], Iterable[Any]]
FORMAT = 2  # of the parts in a folder: the next number whenever the same key would give others
BEGIN, END = "<!-- tune: begin -->", "<!-- tune: end -->"


def tune_all(
    asked: Sequence[tuple[Scheme, Parameters]],
    data: Spectrum,
    data_name: str,
    budgets: Sequence[int],
    free_grid: bool = True,
    kept: Sequence[str] = (),
    limit: float = 2.0,
    folder: Path | None = None,
    progress: Progress = iter,
    workers: int = 1,
) -> Results:
    """Every scheme, with its parameters, at every budget. folder: where parts are kept; None: nowhere. Raises
    ValueError as `tuned` does, before anything is searched."""
    check_growth(limit)
    for scheme, params in asked:
        for budget in budgets:
            untuned(scheme, params, budget)
    denoises = (True,) if "denoise" in kept else (True, False)
    store = _Parts(folder, data, (sorted(kept), limit, free_grid))
    searches = [
        (scheme, params, budget, denoise)
        for budget in sorted(budgets, reverse=True)  # the longest first
        for scheme, params in asked
        for denoise in denoises
    ]
    found = store.answers(
        "search", partial(_searched, data, free_grid, tuple(kept), limit), searches, progress, workers
    )
    pairs = [(scheme, params, budget) for scheme, params in asked for budget in budgets]
    chosen = {
        (scheme, budget): _chosen([found[scheme, params, budget, denoise] for denoise in denoises])
        for scheme, params, budget in pairs
    }
    around = [(scheme, params, budget, _keys(chosen[scheme, budget])) for scheme, params, budget in pairs]
    near = store.answers("around", partial(_around, data, tuple(kept)), around, progress, workers)
    schemes = []
    for scheme, params in asked:
        entries = [
            {"nfe": budget, **chosen[scheme, budget], **near[scheme, params, budget, _keys(chosen[scheme, budget])]}
            for budget in budgets
        ]
        schemes.append(_described(scheme, params) | {"budgets": entries})
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("weakorder", "numpy", "scipy")},
        "settings": {"nfe": list(budgets), "limit": limit, "kept": list(kept), "near": NEAR},
        "data": {"name": data_name, "images": data.images, "dimensions": int(data.mean.size)},
        "schemes": schemes,
        "papers": None,
        "network": None,
    }


def tune_with_papers(results: Results, params: Parameters, data: Spectrum) -> Results:
    """The results with what the papers measured, which is of CIFAR-10 and the default parameters."""
    tuned = {(s["name"], entry["nfe"]): entry["best"]["distance"] for s in results["schemes"] for entry in s["budgets"]}
    return results | {"papers": {"by_grid": by_grid(params, data), "by_scheme": by_scheme(params, data, tuned)}}


# --- The parts ---


class _Parts:
    """Answers that are kept in a folder, each in a file of its own, named by a hash of all that it depends on."""

    def __init__(self, folder: Path | None, data: Spectrum, options: tuple[Any, ...]) -> None:
        self.folder = None if folder is None else folder / "parts"
        digest = hashlib.sha256(data.variances.tobytes() + data.mean.tobytes()).hexdigest()
        self.common = [FORMAT, digest, *options]
        if self.folder is not None:
            make_folder(self.folder)

    def answers(
        self, kind: str, function: Callable[..., Results], asked: Sequence[Any], progress: Progress, workers: int
    ) -> dict[Any, Results]:
        """function(*arguments) of every item asked for, those that are kept read from the folder."""
        found, jobs, places = {}, Jobs(), dict[int, Any]()
        for arguments in asked:
            path = self._path(kind, arguments)
            if path is not None and path.is_file():
                found[arguments] = self._read(path)
            else:
                places[id(jobs.add(function, *arguments))] = arguments

        def kept(items: Sequence[Job]) -> Iterator[Job]:
            for job in progress(items):
                arguments = places[id(job)]
                found[arguments] = json.loads(dumps(job.result))  # as it is read again
                if (path := self._path(kind, arguments)) is not None:
                    write_atomically(path, dumps(job.result).encode())
                yield job

        if places:
            jobs.run(kept, min(workers, len(places)))
        return found

    def _path(self, kind: str, arguments: Sequence[Any]) -> Path | None:
        if self.folder is None:
            return None
        scheme, params, budget, *more = arguments
        parts = [kind, self.common, _fingerprint(scheme), asdict(params), budget, more]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        name = "".join(letter if letter.isalnum() else "_" for letter in scheme.name)[:40]
        return self.folder / f"{kind}-{name}-{budget}-{key}.json"

    def _read(self, path: Path) -> Results:
        try:
            return json.loads(path.read_text())
        except (ValueError, OSError) as error:
            raise ValueError(f"{str(path)!r} cannot be read; remove it, and it is computed again") from error


def _fingerprint(scheme: Scheme) -> list[Any]:
    """All that tells a scheme from others; its reference and claimed order do not matter here."""
    parts = [repr(scheme.splitting.parts), *(part.name for part in scheme.parts if part.euler)]
    return [scheme.word, *parts, scheme.flow, scheme.lambda_s, *map(str, scheme.held_key)]


def _searched(
    data: Spectrum,
    free_grid: bool,
    kept: tuple[str, ...],
    limit: float,
    scheme: Scheme,
    params: Parameters,
    budget: int,
    denoise: bool,
) -> Results:
    """One search, as plain values, with the published settings beside it."""
    found = tuned(scheme, params, data, budget, denoise, free_grid, kept, limit)
    published = measure(scheme, params, data, untuned(scheme, params, budget))
    return {
        "published": _plain(published, limit),
        "family": _optimum(found.family),
        "free": None if found.free is None else _optimum(found.free),
        "unlimited": found.unlimited,
    }


def _optimum(optimum: Optimum) -> Results:
    searched = {
        "starts": optimum.starts,
        "followed": optimum.followed,
        "agreeing": optimum.agreeing,
        "at_bounds": list(optimum.at_bounds),
    }
    ranked = {"stable": optimum.is_stable, "limit": optimum.limit, "rank": list(rank(optimum))}
    return _plain(optimum.measured, optimum.limit) | ranked | searched


def _plain(measured: Measured, limit: float) -> Results:
    settings = measured.settings
    return {
        "lambda_s": settings.lambda_s,
        "eps": settings.eps,
        "denoise": settings.denoise,
        "rho": settings.rho,
        "fractions": list(settings.fractions),
        "steps": settings.steps,
        "evaluations": measured.nfe,
        "distance": measured.distance,
        "from_exact": measured.from_exact,
        "floor": measured.floor,
        "growth": asdict(measured.growth),
        "stable": bool(measured.growth.growth <= limit),
    }


def tuned_settings(entry: Results) -> Settings:
    """The settings of a plain entry."""
    return Settings(entry["lambda_s"], entry["eps"], entry["denoise"], tuple(entry["fractions"]), entry["rho"])


def _rank(entry: Results) -> list[float]:
    return entry["rank"]


def _chosen(found: Sequence[Results]) -> Results:
    """Of the searches with and without the denoising step the better of each kind, and the best of all."""
    family = min((one["family"] for one in found), key=_rank)
    free = min((one["free"] for one in found if one["free"] is not None), key=_rank, default=None)
    best = min((one for one in (family, free) if one is not None), key=_rank)
    unlimited = [one["unlimited"] for one in found if one["unlimited"] is not None]
    return {
        "published": found[0]["published"],
        "family": family,
        "free": free,
        "best": best,
        "unlimited": min(unlimited, default=None),
    }


def _keys(chosen: Results) -> str:
    """The chosen settings as text, which the parts around them are kept by."""
    return json.dumps([chosen["published"], chosen["family"], chosen["free"]])


def _around(data: Spectrum, kept: tuple[str, ...], scheme: Scheme, params: Parameters, _: int, chosen: str) -> Results:
    """How sharp the optima are, and what they are worth elsewhere."""
    published, family, free = (None if one is None else tuned_settings(one) for one in json.loads(chosen))
    assert published is not None
    assert family is not None
    best = free or family
    found = curves(scheme, params, data, family, free, kept)
    return {
        "curves": [
            {
                "name": curve.name,
                "at": curve.at,
                "values": curve.values.tolist(),
                "distance": curve.distance.tolist(),
                "growth": curve.growth.tolist(),
                "near": list(curve.near),
            }
            for curve in found
        ],
        "jitter": {f"{size:g}": ratio for size, ratio in jitter(scheme, params, data, best).items()},
        "elsewhere": elsewhere(scheme, params, data, best, published),
    }


def _described(scheme: Scheme, params: Parameters) -> Results:
    return {
        "name": scheme.name,
        "word": scheme.word,
        "splitting": scheme.splitting.name,
        "sub_flows": scheme.sub_flows,
        "nfe_per_step": scheme.nfe_per_step,
        "kind": "stochastic" if scheme.splitting.whole.has_noise else "deterministic",
        "lambda_s": scheme.lambda_s,
        "parameters": asdict(params) | {"M_inv": params.M_inv},
    }


# --- Files and the page ---


def write_tune(results: Results, folder: Path) -> list[Path]:
    """tune.json, the figures and the grids, in the folder; what was written."""
    make_folder(folder)
    written = []

    def save(name: str, content: bytes) -> None:
        write_atomically(folder / name, content)
        written.append(folder / name)

    save("tune.json", dumps(results).encode())
    save("tune-distances.svg", as_svg(tuned_distances(results)))
    for scheme in results["schemes"]:
        safe = "".join(letter if letter.isalnum() else "_" for letter in scheme["name"])[:40]
        save(f"tune-{safe}.svg", as_svg(tuned_curves(scheme, results["settings"])))
        for entry in scheme["budgets"]:
            best = entry["best"]
            reach = Parameters.T - best["eps"]
            times = np.append(reach * np.array(best["fractions"][:-1]), reach)
            save(f"grid-{safe}-{entry['nfe']}.txt", ("\n".join(map(repr, times.tolist())) + "\n").encode())
    return written


def table(results: Results) -> str:
    """The catalogue's table in Markdown: by budget, the schemes by their best stable distance."""
    lines = []
    has_free = any(entry["free"] for s in results["schemes"] for entry in s["budgets"])
    header = "| scheme | distance | as published | lambda_s | grid | eps | denoise | growth |"
    rule = "| --- | ---: | ---: | ---: | --- | ---: | --- | ---: |"
    for budget in results["settings"]["nfe"]:
        lines += [f"**{budget} evaluations**", ""]
        lines += [header + " free grid |", rule + " ---: |"] if has_free else [header, rule]
        rows = [(s, entry) for s in results["schemes"] for entry in s["budgets"] if entry["nfe"] == budget]
        for scheme, entry in sorted(rows, key=lambda row: _rank(row[1]["family"])):
            one, free = entry["family"], entry["free"]
            grown = f"{one['growth']['growth']:.3g}" + ("" if one["stable"] else " (!)")
            scale = f"{one['lambda_s']:.3f}" if scheme["kind"] == "stochastic" else "-"
            cells = [scheme["name"], f"{one['distance']:.3g}", f"{entry['published']['distance']:.3g}", scale]
            cells += [f"rho = {one['rho']:.2f}", f"{one['eps']:.2g}", "yes" if one["denoise"] else "no", grown]
            if has_free:
                cells.append("-" if free is None else f"{free['distance']:.3g}" + ("" if free["stable"] else " (!)"))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    page, source = map(Path, sys.argv[1:3])
    answer = json.loads(source.read_text())
    page.write_text(with_table(page.read_text(), table(answer), (BEGIN, END)))
    page.with_name("tuned-distances.svg").write_bytes(as_svg(tuned_distances(answer)))
