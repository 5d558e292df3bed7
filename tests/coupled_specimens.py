"""Coupled runs that more than one file of tests looks at: random pairs of them, and the noises of one as rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from scipy import linalg
from strategies import parameters, splittings, words
from weakorder.integrators.coupling import Coupling
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, PSLD_LINEAR, PSLD_WHOLE, Splitting


def images(coupling: Coupling, run: int = 0) -> np.ndarray:
    """The noises of all segments of a run as rows: (segments, n, columns width)."""
    coupled, size = coupling.runs[run], coupling.size
    dense = np.zeros((coupled.updates + 1, size, coupling.columns, coupling.width))
    dense[coupled.segment, :, coupled.column] = coupled.image
    return dense.reshape(coupled.updates + 1, size, coupling.columns * coupling.width)


def law_errors(coupling: Coupling) -> list[float]:
    """How far each run's joint noise covariance is from the compiled run's: Q in every segment, 0 between them."""
    errors = []
    for number, coupled in enumerate(coupling.runs):
        rows = images(coupling, number)
        flat = rows.reshape(coupling.size * len(rows), rows.shape[2])
        compiled = np.concatenate([coupled.run.prologue.noise_cov[None], coupled.run.updates.flow.noise_cov])
        # Rounding is relative to the terms that a noise is summed from: those of its segment, propagated.
        size = max(1e-300, float(np.abs(compiled).max()))
        errors.append(float(np.abs(flat @ flat.T - linalg.block_diag(*compiled)).max()) / size)
    return errors


@st.composite
def coupled_runs(
    draw: st.DrawFn, own: Sequence[Splitting] = (), others: Sequence[Splitting] = (PSLD, PSLD_LINEAR, PSLD_WHOLE)
) -> tuple[list[tuple[Scheme, np.ndarray]], Parameters]:
    """Two words over one splitting, or over two, on grids where the second one's times are the first one's and more.
    own: the splittings of the first, default phase space's; others: what the second may be over, of its diffusion."""
    params = draw(parameters())
    splitting = draw(st.sampled_from(list(own)) if own else splittings())
    same = [other for other in others if other.diffusion == splitting.diffusion]
    other = draw(st.sampled_from([splitting, *same]))
    runs = []
    steps = draw(st.integers(1, 3))
    first, last = draw(st.floats(0, 0.4)), draw(st.floats(0.5, 1 - params.eps))
    cuts = np.cumsum([0, *draw(st.lists(st.integers(1, 5), min_size=2 * steps, max_size=2 * steps))])
    fine = first + (last - first) * cuts / cuts[-1]
    for chosen, grid in ((splitting, fine[::2]), (other, fine)):
        word = draw(words(chosen, consistent=draw(st.booleans()), within_step=True))
        scheme = Scheme(word, chosen, flow=draw(st.sampled_from(["euler", "exact"])))
        if any(part.sde.noise[0, 0] != 0 for part in scheme.parts):
            scheme = Scheme(word, chosen, flow=scheme.flow, lambda_s=draw(st.sampled_from([1.0, 0.7, 1.3])))
        runs.append((scheme, grid))
    return runs, params
