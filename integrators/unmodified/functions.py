"""A sampler of one's own: `sample(model, x, steps)`, with what its author states of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...theory.paths import GaussianPath, Level
from ..draws import BlackBoxError
from .clamps import WithoutClamps
from .contract import PREDICTIONS, Network, Unmodified

Sample = Callable[[Network, Tensor, int], Tensor]
TIMES = ("t", "index", "sigma")
ROWS = 1000
_TABLE = "if the network was trained on a table, give --diffusion FILE.py:OBJ with table_of(alpha_bar) of theory.paths"


def function_sampler(
    name: str, sample: Sample, path: GaussianPath, predicts: str, time: str = "t", event: tuple[int, ...] = (1, 1, 1)
) -> Unmodified:
    """`sample(model, x, steps)`: a whole run from x (batch, *event), which it takes to be drawn at the first time that
    it asks the network for.

    predicts: eps, data, denoiser, v, score or flow. time: what the network is told: t of the path; index, from 0 to 999
    for t = end / 1000 to end; sigma, the ratio sigma / alpha. Where it clamps states, the clamp is left out, and noted
    (clamps). Raises ValueError on another name.
    """
    if predicts not in PREDICTIONS:
        raise ValueError(f"a network that predicts {predicts!r} is unknown; choose {', '.join(PREDICTIONS)}")
    if time not in TIMES:
        raise ValueError(f"a network that is told {time!r} is unknown; choose {', '.join(TIMES)}")
    if path.table and time == "t":
        time = "row"

    def prepare(steps: int, exact: bool) -> _Prepared:  # noqa: ARG001 - its constants are its own
        return _Prepared(sample, path, time, steps, clamps)

    clamps: list[str] = []
    smooth = path if time in ("t", "index") and not path.table else None
    is_read = time == "index" and not path.table
    instead = _TABLE if is_read else ""
    return Unmodified(
        name, prepare, PREDICTIONS[predicts], predicts, None, event, path=smooth, instead=instead, clamps=clamps
    )


@dataclass(frozen=True)
class _Prepared:
    sample: Sample
    path: GaussianPath
    time: str
    steps: int
    clamps: list[str]

    def level(self, time: float) -> Level:
        """Of a time that the network is told. Raises BlackBoxError on one that is not on the path."""
        try:
            if self.time == "sigma" and self.path.name not in ("edm", "ve"):
                alpha = 1 / (1 + time**2) ** 0.5
                return Level(alpha, time * alpha)
            if self.time == "sigma":
                return Level(1.0, time)
            if self.time == "index" and not self.path.table:
                return self.path.level((time + 1) / ROWS * self.path.end)
            return self.path.level(time)
        except ValueError as error:
            raise BlackBoxError(f"the network is told {time:g}: {error}") from error

    @property
    def rows(self) -> int:
        """Of the table that is its path; 0 where none is."""
        return round(self.path.end) + 1 if self.path.table else 0

    @property
    def prior(self) -> float | None:
        """That of data of variance 1."""
        return None

    def start(self, first: float) -> Level:
        """The level of the first time that the network is asked for."""
        return self.level(first)

    def run(self, network: Network, x: Tensor) -> Tensor:
        """One call, without clamps of states."""
        with WithoutClamps(x.shape, self.clamps):
            return self.sample(network, x, self.steps)
