"""How near correct samplers come to the thresholds of verdicts: a thousand variations, none of which may fail.

    python tests/calibration.py 1000            # or a part, 300 to 599: python tests/calibration.py 300 600

A threshold is sound if no correct sampler reaches it, and useful if faults do (the mutants). `nearness` says of one
study how much of the way to each threshold it went, 1 being the threshold:

    limit        |bias| as h -> 0 over what would be called a wrong law (exact.errors)
    order        how far the order of a settled fit falls short of the expected one, over MARGIN
    convergence  how far the order over the finest three levels falls short of it, over what would be called no
                 convergence (verdicts.course)
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import numpy as np
from weakorder.verification.blackbox.correct_samplers import Variation, variations
from weakorder.verification.blackbox.mutation import study
from weakorder.verification.exact.errors import CONSTANTS_IN_FLOAT32, QUANTITIES, SURE
from weakorder.verification.exact.order import OrderStudy
from weakorder.verification.verdicts.fits import MARGIN


def nearness(found: OrderStudy) -> dict[str, float]:
    """How much of the way to each threshold a study went."""
    way = {"limit": 0.0, "order": 0.0, "convergence": 0.0}
    if (limit := found.limit) is not None:
        way["limit"] = abs(limit.bias) / max(SURE * limit.uncertainty, CONSTANTS_IN_FLOAT32)
    for fit in found.fits.values():
        if fit.is_settled:
            way["order"] = max(way["order"], (found.expected - fit.high) / MARGIN)
    for name in QUANTITIES:
        errors = found.seen(name)[-3:]
        if len(errors) == 3 and np.isfinite(errors).all():
            order = float(np.log(errors[0] / errors[-1]) / np.log(found.steps[-1] / found.steps[-3]))
            way["convergence"] = max(way["convergence"], (found.expected - order) / (found.expected - MARGIN))
    return way


def calibrated(variation: Variation) -> dict[str, Any]:
    """The verdict on a correct sampler, and how near it came to another."""
    try:
        found = study(
            variation.make(), variation.order, variation.model, target=variation.target, t_end=variation.t_end
        )
    except ValueError as error:
        return {"name": variation.name, "verdict": "refused", "reason": str(error)}
    return {"name": variation.name, "verdict": str(found.verdict), "reason": found.reason, **nearness(found)}


def main() -> None:
    """Print a line of JSON for each variation, then what they add up to."""
    first, last = (0, *map(int, sys.argv[1:]))[-2:]
    rows = []
    for variation in itertools.islice(variations(last), first, None):
        rows.append(calibrated(variation))
        print(json.dumps(rows[-1]), flush=True)
    verdicts = sorted({row["verdict"] for row in rows})
    print({verdict: sum(row["verdict"] == verdict for row in rows) for verdict in verdicts})
    for name in ("limit", "order", "convergence"):
        print(name, max((row.get(name, 0.0) for row in rows), default=0.0))


if __name__ == "__main__":
    main()
