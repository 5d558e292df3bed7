"""Part d of a prepared run: what the products' precision changes of expectations, on the network that ships
(tests/benchmarks/gpu)."""

from __future__ import annotations

import contextlib
import io
import json
import time
from typing import Any

from weakorder.reports.commands.cli import cli

from .parts import Context


def precision(context: Context) -> None:
    """Part d: a few samples first, so that there is a result; then more, where what that took says that time is left.

    The study's statistics run on one thread of the processor, whatever the device: of 256 samples of 24 cells they had
    not ended 29 s after the samples, which took 34 s on an H200."""
    schemes, budgets, refinement = (
        (("EM",), ("3",), "2") if context.tiny else (("EM", "SSCS", "ROBA", "RVV"), ("50",), "8")
    )
    took: list[tuple[int, float]] = []
    for samples in (2,) if context.tiny else (64, 256, 512):
        if took and samples / took[-1][0] * took[-1][1] > context.left():
            context.record(f"{samples} samples", "left out: no time")
            break
        began = time.time()
        context.attempt(f"{samples} samples", lambda n=samples: study(context, schemes, budgets, n, refinement))
        took.append((samples, time.time() - began))


def study(context: Context, schemes: tuple[str, ...], budgets: tuple[str, ...], samples: int, refinement: str) -> Any:
    """What the command says of rounding, and of each cell's weak error."""
    words = ["cifar10", "study", "--nfe", *budgets, "--schemes", *schemes, "-n", str(samples)]
    words += ["--refinement", refinement, "--precision", "float32", "tf32", "bfloat16", "--device", context.device]
    words += ["--json", "-o", str(context.work / "study")]
    began, printed = time.time(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main(args=words, standalone_mode=False)
    answer = json.loads(printed.getvalue())
    cells = [
        {
            "scheme": scheme["name"],
            "nfe": cell["nfe"],
            "seconds": cell["seconds"],
            "weak": cell["weak"],
            "precisions": cell["precisions"],
        }
        for scheme in answer["schemes"]
        for cell in scheme["cells"]
    ]
    return {
        "command": "weakorder " + " ".join(words[:-2]),
        "seconds": time.time() - began,
        "rounding": answer["rounding"],
        "settings": answer["settings"],
        "cells": cells,
    }
