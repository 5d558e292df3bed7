"""The command `weakorder cifar10 study` on a tiny network, and what it left."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from click.testing import CliRunner, Result
from weakorder.reports.commands.cli import cli
from weakorder.verification.cifar10.model.network import Config

# Images keep CIFAR-10's size, which the shipped statistics are of; nothing else of the network does.
TINY = Config(nf=4, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), dropout=0.0)
SMALL = ("--schemes", "ROBA", "SSCS", "RVV", "--nfe", "4", "6", "-n", "9", "--refinement", "2", "--batch", "3")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, ["cifar10", "study", *words])


def refused(*words: str) -> str:
    """The one line of an error, as `main` prints it."""
    result = invoke(*words)
    assert result.exception is not None
    assert isinstance(result.exception, ValueError | OSError | SystemExit), repr(result.exception)
    text = result.output if isinstance(result.exception, SystemExit) else str(result.exception)
    assert result.exit_code != 0
    return text


def cells(folder: Path) -> dict[str, bytes]:
    """Every cell's samples."""
    found = {}
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path) as arrays:
            found[str(path.relative_to(folder))] = arrays["x"].tobytes()
    return found


class Outcome(NamedTuple):
    code: int
    out: str
    err: str
