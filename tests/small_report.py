"""A report whose section on stability is coarse, for claims that are not about its numbers."""

from __future__ import annotations

import pytest
from weakorder.reports.pages import stability


def make_stability_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions of a few points, growth at a few budgets, one other Gamma. In this process: others have the defaults."""
    monkeypatch.setattr(stability, "_POINTS", 10)
    monkeypatch.setattr(stability, "BUDGETS", (20, 50, 100))
    monkeypatch.setattr(stability, "GAMMAS", (0.02,))
