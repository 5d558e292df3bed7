"""The catalogue: published schemes, one literal each.

A scheme is a word over a splitting (theory.scheme), its claimed weak order and its source. Nothing else is declared:
cost, symmetry and clocks follow from the word, and the tests hold every entry to its order.

When to choose which, by what the papers found at few evaluations (the report shows the errors behind it): ROBA is their
SPS, the best stochastic one; SSCS costs the same and needs no tuning; RVV is the best deterministic one here; the naive
ones (N...) are what the reduced ones (R...) are compared with; EM is the baseline.
"""

from __future__ import annotations

from ..theory.scheme import Scheme
from ..theory.splitting import LANGEVIN, PSLD, PSLD_FLOW, PSLD_LINEAR, PSLD_WHOLE

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
