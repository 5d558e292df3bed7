"""The diffusions of a page, each with its own parameters: what its schemes and black boxes move under.

Errors are of the whole state of a scheme's own diffusion, in units of its own prior; distances to the data are in the
data's space, the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ...theory.model import Diffusion, Parameters
from ...verification.exact import Subject

Results = dict[str, Any]
ParametersOf = Parameters | Callable[[Diffusion], Parameters]


class Models:
    """The diffusions that occur, in the order of the schemes, and the parameters of each.

    params: those of all, or a function of the diffusion. Raises ValueError where the cut-offs differ: figures and
    tables of a page have one.
    """

    def __init__(self, schemes: Iterable[Subject], params: ParametersOf) -> None:
        self.diffusions = list(dict.fromkeys(scheme.splitting.diffusion for scheme in schemes))
        self.params = [params if isinstance(params, Parameters) else params(each) for each in self.diffusions]
        first, *others = zip(self.diffusions, self.params, strict=True)
        for diffusion, own in others:
            if own.eps != first[1].eps:
                raise ValueError(
                    f"the cut-off is eps = {first[1].eps:g} under {first[0].name!r} and {own.eps:g} under "
                    f"{diffusion.name!r}, and a page has one; give --eps, or a report to each"
                )

    def place(self, scheme: Subject) -> int:
        """Which of the diffusions a scheme moves under."""
        return self.diffusions.index(scheme.splitting.diffusion)

    def of(self, scheme: Subject) -> Parameters:
        """A scheme's parameters."""
        return self.params[self.place(scheme)]

    def entries(self, studies: Sequence[Results]) -> list[Results]:
        """Each diffusion for the page: name, components, the parameters and which of gamma, nu and kappa it `uses`, and
        what the `studies`, one of each, add."""
        return [
            {
                "name": diffusion.name,
                "components": list(diffusion.components),
                "uses": list(diffusion.parameter_names),
                "parameters": {**asdict(params), "M_inv": params.M_inv, "T": params.T},
                **study,
            }
            for diffusion, params, study in zip(self.diffusions, self.params, studies, strict=True)
        ]
