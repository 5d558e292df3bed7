"""The catalogue: published schemes, one literal each.

A scheme is a word over a splitting (theory.scheme), its claimed weak order and its source. Nothing else is declared:
cost, symmetry and clocks follow from the word, and the tests hold every entry to its order.

When to choose which, by what the papers found at few evaluations (the report shows the errors behind it): ROBA is their
SPS, the best stochastic one; SSCS costs the same and needs no tuning; RVV is the best deterministic one here; the naive
ones (N...) are what the reduced ones (R...) are compared with; EM is the baseline.

Four families. `CATALOGUE` has the splitting schemes, which hold the score for a step: what they do is in the word.
`EXPONENTIAL` has the solvers that follow the whole dynamics and differ in what they hold, over how many evaluations:
SDE-DPM-Solver++2M and DPM-Solver++2M are nearest to the data at 20 to 100 evaluations on CIFAR-10's spectrum.
`POSITION` has the solvers of diffusions in position alone, named after them: the flow's (DDIM, DEIS, DPM-Solver++) for
few evaluations, those of the SDE where errors are to be forgotten on the way. `conjugate_scheme` makes the papers'
conjugate integrators.
"""

from __future__ import annotations

from functools import cache

from ..theory.clock import LOGSNR, THETA, TIME, Clock
from ..theory.frozen import DATA_HELD, EPS_HELD, RESIDUAL_HELD, Frozen
from ..theory.scheme import Scheme
from ..theory.splitting import (
    LANGEVIN,
    PSLD,
    PSLD_FLOW,
    PSLD_FLOW_WHOLE,
    PSLD_LINEAR,
    PSLD_WHOLE,
    SPLITTINGS,
    VP_FLOW,
    VP_WHOLE,
    Splitting,
)

_PSLD_PAPER = "Pandey and Mandt 2023, arXiv 2303.01748"
_SSCS_PAPER = "Dockhorn, Vahdat and Kreis 2022, arXiv 2112.07068"
_SPS_PAPER = "Pandey, Rudolph and Mandt 2024, arXiv 2402.07211"
_LONG_PAPER = "Pandey, Rudolph and Mandt 2024, arXiv 2310.07894"

STOCHASTIC = (
    Scheme("S F", PSLD_WHOLE, "EM", order=1, reference=_PSLD_PAPER),
    Scheme("U(1/2) S E U(1/2)", PSLD_LINEAR, "SSCS", order=1, reference=_SSCS_PAPER),
    Scheme("O S B S A", PSLD, "NOBA", order=1, reference=_SPS_PAPER),
    Scheme("S B S A O", PSLD, "NBAO", order=1, reference=_SPS_PAPER),
    Scheme("O S B(1/2) S A S B(1/2)", PSLD, "NOBAB", order=1, reference=_SPS_PAPER),
    Scheme("O S B A", PSLD, "ROBA", order=1, reference=_SPS_PAPER),
    Scheme("S B A O", PSLD, "RBAO", order=1, reference=_SPS_PAPER),
    Scheme("O S B(1/2) A S@1 B(1/2)", PSLD, "ROBAB", order=1, reference=_SPS_PAPER),
)

DETERMINISTIC = (
    Scheme("S B S A", PSLD_FLOW, "NSE", order=1, reference=_LONG_PAPER),
    Scheme("S B(1/2) S A S B(1/2)", PSLD_FLOW, "NVV", order=1, reference=_LONG_PAPER),
    Scheme("S B A", PSLD_FLOW, "RSE", order=1, reference=_LONG_PAPER),
    Scheme("S B(1/2) A S@1 B(1/2)", PSLD_FLOW, "RVV", order=1, reference=_LONG_PAPER),
)

# Underdamped Langevin dynamics, whose orders are published: controls for the proofs and the measurements.
LANGEVIN_CONTROLS = tuple(
    Scheme(word, LANGEVIN, name, order=order, reference="Leimkuhler and Matthews 2013, doi 10.1093/amrx/abs010")
    for name, word, order in (
        ("BAOAB", "S B(1/2) A(1/2) O A(1/2) S@1 B(1/2)", 2),
        ("ABOBA", "A(1/2) S@1/2 B(1/2) O B(1/2) A(1/2)", 2),
        ("OBABO", "O(1/2) S B(1/2) A S@1 B(1/2) O(1/2)", 2),
        ("OABAO", "O(1/2) A(1/2) S@1/2 B A(1/2) O(1/2)", 2),
        ("OBA", "O S B A", 1),
        ("BAO", "S B A O", 1),
    )
)

CATALOGUE = {scheme.name: scheme for scheme in (*STOCHASTIC, *DETERMINISTIC)}

# Solvers that follow the whole dynamics exactly but for what they hold of the network's answer, over one or two
# evaluations, carried over to phase space: what the sources hold in one dimension, theory.frozen holds in two.
_DDIM = "Song, Meng and Ermon 2021, arXiv 2010.02502; in phase space Zhang, Tao and Chen 2022, arXiv 2206.05564"
_DEIS = "Zhang and Chen 2023, arXiv 2204.13902"
_DPM_SOLVER = "Lu et al. 2022, arXiv 2211.01095, section 4"
_SA_SOLVER = "Xue et al. 2023, arXiv 2309.05019, the predictor; Lu et al. 2022, arXiv 2211.01095, appendix B"
_ADAMS = "Buckwar and Winkler 2006, doi 10.1137/040602857"
_RES = "Dockhorn, Vahdat and Kreis 2022, arXiv 2112.07068, the residual of SSCS, held over two evaluations here"


def _exponential(
    name: str, splitting: Splitting, frozen: Frozen, memory: int, reference: str, clock: Clock = THETA
) -> Scheme:
    """Of order `memory`, 2 at most: beyond that the first steps of a run limit it, and noise that of an SDE."""
    return Scheme("S F", splitting, name, "exact", 1.0, min(memory, 2), reference, frozen, memory, clock)


EXPONENTIAL = {
    scheme.name: scheme
    for scheme in (
        _exponential("SDE-DPM-Solver++1", PSLD_WHOLE, DATA_HELD, 1, _SA_SOLVER),
        _exponential("SDE-DPM-Solver++2M", PSLD_WHOLE, DATA_HELD, 2, _SA_SOLVER),
        _exponential("RES-1", PSLD_WHOLE, RESIDUAL_HELD, 1, _RES),
        _exponential("RES-2", PSLD_WHOLE, RESIDUAL_HELD, 2, _RES),
        _exponential("DDIM", PSLD_FLOW_WHOLE, EPS_HELD, 1, _DDIM),
        _exponential("DEIS-2", PSLD_FLOW_WHOLE, EPS_HELD, 2, _DEIS),
        _exponential("DPM-Solver++1", PSLD_FLOW_WHOLE, DATA_HELD, 1, _DPM_SOLVER),
        _exponential("DPM-Solver++2M", PSLD_FLOW_WHOLE, DATA_HELD, 2, _DPM_SOLVER),
        _exponential("RES-2-flow", PSLD_FLOW_WHOLE, RESIDUAL_HELD, 2, _RES),
        Scheme("S F", PSLD_WHOLE, "SAB2", order=2, reference=_ADAMS, memory=2),
    )
}

# In position alone, where these solvers were published, each with the clock that it is published with: DPM-Solver++(2M)
# and its SDE form hold the middle of a line in log-SNR ("midpoint", the default of all their code), UniPC's and
# SA-Solver's predictors the whole polynomial; DEIS takes t, diffusers' DEIS log-SNR. The third order of DPM-Solver++'s
# code is none of them: it weighs the second difference by half, which leaves order 2.
_SCORE_SDE = "Song et al. 2021, arXiv 2011.13456, appendix D"
_DDPM = (
    "Ho, Jain and Abbeel 2020, arXiv 2006.11239, algorithm 2 with the posterior's variance; it is SDE-DPM-Solver++(1)"
)
_SDE_DPM_SOLVER = "Lu et al. 2022, arXiv 2211.01095, appendix B"
_UNIPC = "Zhao et al. 2023, arXiv 2302.04867, the predictor UniP-3"
_DEIS_T, _DEIS_LOG_RHO = f"{_DEIS}, tAB", f"{_DEIS}, in log rho as in diffusers"
_SA_PREDICTOR = "Xue et al. 2023, arXiv 2309.05019, the 3-step predictor at tau = 1"
_SEEDS = "Gonzalez et al. 2023, arXiv 2305.14267, SEEDS-1"

POSITION = {
    scheme.name: scheme
    for scheme in (
        Scheme("S F", VP_WHOLE, "vp-EM", order=1, reference=_SCORE_SDE),
        _exponential("vp-DDPM", VP_WHOLE, DATA_HELD, 1, _DDPM),
        _exponential("vp-SEEDS-1", VP_WHOLE, EPS_HELD, 1, _SEEDS),
        _exponential("vp-SDE-DPM-Solver++1", VP_WHOLE, DATA_HELD, 1, _SDE_DPM_SOLVER),
        _exponential("vp-SDE-DPM-Solver++2M", VP_WHOLE, DATA_HELD, 2, _SDE_DPM_SOLVER, LOGSNR.at_midpoint),
        _exponential("vp-SA-Solver-P3", VP_WHOLE, DATA_HELD, 3, _SA_PREDICTOR, LOGSNR),
        Scheme("S F", VP_FLOW, "vp-Euler", order=1, reference=_SCORE_SDE),
        _exponential("vp-DDIM", VP_FLOW, EPS_HELD, 1, _DDIM.partition(";")[0]),
        _exponential("vp-DEIS-2", VP_FLOW, EPS_HELD, 2, _DEIS_T, TIME),
        _exponential("vp-DEIS-3", VP_FLOW, EPS_HELD, 3, _DEIS_T, TIME),
        _exponential("vp-DEIS-2-logrho", VP_FLOW, EPS_HELD, 2, _DEIS_LOG_RHO, LOGSNR),
        _exponential("vp-DPM-Solver++2M", VP_FLOW, DATA_HELD, 2, _DPM_SOLVER, LOGSNR.at_midpoint),
        _exponential("vp-UniP-3", VP_FLOW, DATA_HELD, 3, _UNIPC, LOGSNR),
    )
}

# The papers' conjugate integrators: their splittings are made when they are asked for (theory.conjugate), by sympy. The
# strength lambda is ours, per unit of int beta: the papers tune theirs by FID.
LAMBDA = 0.1
CONJUGATE_WORDS = {
    "lambda-DDIM-I": ("S NF F", "psld-flow-whole", False),
    "lambda-DDIM-II": ("S NF F", "psld-flow-whole", True),
    "CSPS-D": ("S NB(1/2) B(1/2) NA A S@1 NB(1/2) B(1/2)", "psld-flow", True),
    "CSPS-S": ("O S NB B NA A", "psld", True),
}


@cache
def conjugate_scheme(name: str, strength: float = LAMBDA) -> Scheme:
    """A conjugate integrator by its name in `CONJUGATE_WORDS`, with another `strength` lambda if given.

    Raises KeyError on another name, ValueError on a strength that is not finite.
    """
    from ..theory.conjugate import conjugate

    word, base, coupled = CONJUGATE_WORDS[name]
    splitting = conjugate(SPLITTINGS[base], strength, coupled)
    reference = f"{_LONG_PAPER}, section 3 and 5; lambda {strength:g} per unit of int beta"
    return Scheme(word, splitting, name, flow="exact", order=1, reference=reference, frozen=EPS_HELD)


def all_schemes() -> dict[str, Scheme]:
    """The splitting schemes, the exponential integrators, those in position alone and the conjugate ones, by name.
    Imports sympy."""
    return CATALOGUE | EXPONENTIAL | POSITION | {name: conjugate_scheme(name) for name in CONJUGATE_WORDS}


def is_catalogued(scheme: Scheme) -> bool:
    """Whether the scheme is the one that its name stands for. Imports sympy where the name is a conjugate's."""
    if (name := scheme.name) in CONJUGATE_WORDS:
        return conjugate_scheme(name) == scheme
    return (CATALOGUE | EXPONENTIAL | POSITION).get(name) == scheme
