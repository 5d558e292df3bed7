"""Reports without figures, for pages of which only the text is looked at."""

from __future__ import annotations

import pytest
from weakorder.reports.figures import stability, style, targets
from weakorder.reports.pages import cifar10_page, report

FIGURES = (*style.drawings(), *stability.drawings(), *targets.drawings())


def leave_undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure of a report is blank."""
    monkeypatch.setattr(report, "_drawings", lambda *_: dict.fromkeys(FIGURES, lambda: None))
    monkeypatch.setattr(style, "as_svg", lambda _: b"<svg ></svg>")
    monkeypatch.setattr(style, "as_png", lambda _: b"")


def leave_the_study_undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study on a network has no figures."""
    for module in (cifar10_page.cifar10_figures, cifar10_page.cifar10_scatter):
        monkeypatch.setattr(module, "draw", lambda _: {})
