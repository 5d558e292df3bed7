"""The page of the CIFAR-10 study: results and images to one folder that can be shown and read on its own.

write_page   index.html (self-contained: figures as SVG, images as PNG within), results.json, figures/*.svg and *.png
render       the page alone

Everything is read from the results; nothing is estimated here. Missing cells, and cells without one of their parts, are
named on the page; a diverged cell has no number, no point and no image, whatever the results hold for it.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ...integrators import grids
from ...verification.cifar10.model import CIFAR10
from ...verification.cifar10.study import ENOUGH, FEWEST_FOR_DISTANCES
from ...verification.files import write_atomically
from ..figures import cells, cifar10_figures, cifar10_scatter, measured, names
from ..figures import style as figures
from .cifar10_answers import answers
from .strict_json import dumps
from .templates import inline, number, template

Results = dict[str, Any]
Images = Mapping[Any, NDArray[np.uint8]]

# What a cell may lack, by its key, and what the page calls it.
_PARTS = {
    "weak": "weak errors",
    "power": "power spectra",
    "distances": f"distances (they take {FEWEST_FOR_DISTANCES} samples)",
    "strong": "strong errors",
    "frechet": "Fréchet distances",
    "predicted": "predictions",
}
_SPACES = {"pixels": "pixels", "features": "compact features", "inception": "Inception features (FID)"}
_TARGETS = {"to_reference": "to the reference", "to_data": "to the data", "excess": "excess over the reference"}
_DESCRIPTIONS = cifar10_figures.DESCRIPTIONS | cifar10_scatter.DESCRIPTIONS
_GAP = 1  # white pixels between the images of a strip
_EMPTY = np.zeros((8, 32, 32, 3), dtype=np.uint8)  # what a strip without images is as large as


def write_page(results: Results, images: Images, output: str | os.PathLike[str]) -> Path:
    """Write the page into `output`, made if need be; returns the path of its index.html.

    results: JSON values, as described in `render`. images: uint8 (k, height, width, 3), the samples that are shown, by
    (scheme's label or name, budget), and those of a reference by its name; sets that are not there are said to be
    missing. Each file appears whole or not at all, the page last.
    Raises ValueError as `render` does and OSError where the folder cannot be written.
    """
    output, text = Path(output), dumps(results)
    results = json.loads(text)  # the page shows what the file beside it says: no nan, no arrays
    drawn = cifar10_figures.draw(results) | cifar10_scatter.draw(results)
    svgs = {name: figures.as_svg(figure) for name, figure in drawn.items()}
    page = output / "index.html"
    contents: dict[Path, bytes] = {output / "results.json": text.encode()}
    for name, figure in drawn.items():
        contents[output / "figures" / f"{name}.svg"] = svgs[name]
        contents[output / "figures" / f"{name}.png"] = figures.as_png(figure)
    contents[page] = render(results, images, svgs).encode()
    (output / "figures").mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        write_atomically(path, content)
    for name in _DESCRIPTIONS.keys() - drawn.keys():  # of an earlier study, which had more
        for kind in ("svg", "png"):
            (output / "figures" / f"{name}.{kind}").unlink(missing_ok=True)
    return page


def render(results: Results, images: Images, svgs: Mapping[str, bytes]) -> str:
    """The page, from the results, the images and the figures (of `cifar10_figures` and `cifar10_scatter`) alone.

    results: keys date, command, versions, device, seconds, model, settings, references, schemes (each with its cells),
    comparison, rounding, grid_samples; None for what does not exist. Raises ValueError if two schemes have one label,
    and for images of another kind.
    """
    filters = {
        "number": number,
        "plain": lambda value: f"{value:g}",
        "count": lambda value: f"{int(value):,}",
        "uncertain": _uncertain,
        "duration": _duration,
        "grid": grids.label,
    }
    drawings = {
        name.removeprefix("cifar10-"): Markup(inline(svg, name, _DESCRIPTIONS[name])) for name, svg in svgs.items()
    }
    labels = [scheme["label"] for scheme in results["schemes"]]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"two schemes are labelled {twice[0]!r}; give each its own label")
    for key, shown in images.items():
        if shown.dtype != np.uint8 or shown.ndim != 4 or shown.shape[-1] != 3 or not shown.size:
            raise ValueError(f"images of {key!r} are {shown.dtype} {shown.shape}: give uint8 (k, height, width, 3)")
    budgets = cifar10_figures.budgets(results)
    quantities = {part: names(results, part) for part in ("weak", "distances", "moments")}
    quantities["distances"] += ["strong"]
    rows = [_row(scheme, budgets) for scheme in results["schemes"]]
    comparison = {"quantities": {}, "disagreements": []} | (results.get("comparison") or {})
    entries = [entry for found in comparison["quantities"].values() for entry in found]
    return template("cifar10.html.j2", filters).render(
        study={"processes": None, "rounding": {}} | results | {"settings": {"prepared": None} | results["settings"]},
        model={
            "side_from": None,
            "trained": None,
            "steps": None,
            "images_seen": None,
            "losses": None,
            "held_out_loss": None,
        }
        | results["model"],
        answers=answers(results),
        comparison=comparison,
        compared=[nfe for nfe in [*budgets, None] if any(entry["nfe"] == nfe for entry in entries)],
        figures=drawings,
        bars=cifar10_figures.BARS,
        largest=cifar10_figures.LARGEST,
        budgets=budgets,
        rows=rows,
        compared_with=_compared_with(results, rows),
        quantities=quantities,
        there={
            part: any(name in cell["numbers"] for row in rows for cell in row["cells"] for name in quantities[part])
            for part in ("weak", "distances")
        },
        frechet=_frechet(rows),
        enough=ENOUGH,
        gaps=_gaps(rows),
        gallery=_gallery(results, rows, images),
        dataset=results["settings"].get("dataset", "CIFAR-10"),
        training_images=results["settings"].get("training_images", CIFAR10.training_images),
        is_predicted=results["settings"].get("is_predicted", True),
    )


# --- What the page shows, in its order ------------------------------------------------------------------------------


def _row(scheme: Results, budgets: list[int]) -> Results:
    """A scheme with its cells in the order of the budgets, those that are missing among them."""
    found = cells(scheme)
    nothing = dict.fromkeys(("verdict", "reason", "order", "fits", "systematic", "source", "warnings"))
    return {"scheme": nothing | scheme, "cells": [_cell(nfe, found.get(nfe)) for nfe in budgets]}


def _cell(nfe: int, cell: Results | None) -> Results:
    state = "missing" if cell is None else "diverged" if cell.get("diverged") else "there"
    shown = (cell or {}) if state == "there" else {}
    return {
        "nfe": nfe,
        "state": state,
        "steps": (cell or {}).get("steps"),
        "evaluations": (cell or {}).get("evaluations"),
        "numbers": measured(shown),
        "weak": shown.get("weak") or {},
        "moments": shown.get("moments") or {},
        "distance_samples": shown.get("distance_samples"),
        "lacks": [title for part, title in _PARTS.items() if state == "there" and not _has_number(shown.get(part))],
        "frechet": {
            (space, target): value if isinstance(value, dict) else {"value": value, "standard_error": None}
            for space, distances in (shown.get("frechet") or {}).items()
            for target, value in (distances or {}).items()
        },
        "precisions": shown.get("precisions") or {},
        "predicted": (cell or {}).get("predicted"),
        "predicted_to_data": (cell or {}).get("predicted_to_data"),
        "published_fid": (cell or {}).get("published_fid"),
    }


def _compared_with(results: Results, rows: list[Results]) -> str | None:
    """The label of the scheme that weak errors are ratios to; None where there are no ratios."""
    weak = [entry for row in rows for cell in row["cells"] for entry in cell["weak"].values()]
    if not any((entry or {}).get("ratio") for entry in weak):
        return None
    return results["settings"].get("against")


def _frechet(rows: list[Results]) -> list[Results]:
    """The Frechet distances that any cell has: of which space, and in it to what."""
    found = dict.fromkeys(
        key
        for row in rows
        for cell in row["cells"]
        for key, entry in cell["frechet"].items()
        if entry["value"] is not None
    )
    spaces = sorted({space for space, _ in found}, key=[*_SPACES, *(space for space, _ in found)].index)
    targets = [*_TARGETS, *(target for _, target in found)]
    return [
        {
            "name": _SPACES.get(space, space),
            "columns": [
                {"key": key, "target": _TARGETS.get(key[1], key[1])}
                for key in sorted(found, key=lambda key: targets.index(key[1]))
                if key[0] == space
            ],
        }
        for space in spaces
    ]


def _has_number(value: Any) -> bool:
    """Whether a part of a cell says anything."""
    if isinstance(value, dict):
        return any(map(_has_number, value.values()))
    if isinstance(value, list):
        return any(map(_has_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _gaps(rows: list[Results]) -> Results:
    """What diverged, what was not run, and which parts of cells are missing: scheme by scheme, with the budgets."""

    def those(holds: Callable[[Results], bool]) -> list[str]:
        found = [(row["scheme"]["label"], [cell["nfe"] for cell in row["cells"] if holds(cell)]) for row in rows]
        if len(rows) > 1 and all(len(at) == len(row["cells"]) for row, (_, at) in zip(rows, found, strict=True)):
            return ["every scheme at every budget"]
        return [f"{label} at {', '.join(map(str, at))}" for label, at in found if at]

    lacking = {title: those(lambda cell, title=title: title in cell["lacks"]) for title in _PARTS.values()}
    states = [cell["state"] for row in rows for cell in row["cells"]]
    return {
        "cells": len(states),
        "there": len(states) - states.count("missing"),
        "missing": those(lambda cell: cell["state"] == "missing"),
        "diverged": those(lambda cell: cell["state"] == "diverged"),
        "lacking": {title: found for title, found in lacking.items() if found},
    }


def _gallery(results: Results, rows: list[Results], images: Images) -> list[Results]:
    """A block of strips for each budget: a kind's reference, then its schemes; a strip is an image or says why not."""
    names = [scheme["name"] for scheme in results["schemes"]]
    width, height = max((_strip_size(shown) for shown in images.values()), default=_strip_size(_EMPTY))
    blocks = []
    for place, nfe in enumerate(cifar10_figures.budgets(results)):
        groups = []
        for kind in figures.KINDS:
            own = [row for row in rows if row["scheme"]["kind"] == kind]
            strips = [
                _strip("reference", "there", images.get(reference["name"]), f"reference: {reference['name']}")
                for reference in results["references"]
                if reference["kind"] == kind
            ]
            for row in own:
                label, name = row["scheme"]["label"], row["scheme"]["name"]
                keys = [(label, nfe), (name, nfe)] if names.count(name) == 1 else [(label, nfe)]
                shown = next((images[key] for key in keys if key in images), None)
                strips.append(_strip(label, row["cells"][place]["state"], shown, f"{label}, {nfe} evaluations"))
            if own:
                groups.append({"kind": kind, "strips": strips})
        blocks.append({"nfe": nfe, "width": width, "height": height, "groups": groups})
    return blocks


def _strip_size(images: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of images (k, height, width, 3) side by side, in their pixels."""
    count, height, width = images.shape[:3]
    return count * (width + _GAP) - _GAP, height


def _strip(label: str, state: str, shown: NDArray[np.uint8] | None, description: str) -> Results:
    """Images beside each other as one PNG, with its label; without it where there is nothing to show."""
    strip: Results = {"label": label, "state": state, "source": None, "description": description}
    if state != "there" or shown is None:
        return strip
    gap = np.full((*shown.shape[1:2], _GAP, 3), 255, dtype=np.uint8)
    wide = np.concatenate([part for image in shown for part in (image, gap)][:-1], axis=1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, wide, format="png", metadata={"Software": "weakorder"})
    data = base64.b64encode(buffer.getvalue()).decode()
    return strip | {"source": f"data:image/png;base64,{data}"}


# --- Numbers --------------------------------------------------------------------------------------------------------


def _uncertain(value: float | None, error: float | None) -> str | Markup:
    """value ± error, both to the decimals of the error's second digit; without an error as `number` sets it."""
    if value is None or not error:
        return number(value)
    largest = math.floor(math.log10(max(abs(value), error)))
    digit = math.floor(math.log10(float(f"{error:.1e}")))
    scale = 0 if -3 <= largest < 5 else largest
    decimals = max(0, 1 - digit + scale)
    shown = [f"{round(entry / 10.0**scale, decimals) + 0.0:.{decimals}f}" for entry in (value, error)]
    text = " ± ".join(shown).replace("-", "−")
    if not scale:
        return text
    return Markup("({})×10<sup>{}</sup>").format(text, str(scale).replace("-", "−"))


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, the two largest."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
