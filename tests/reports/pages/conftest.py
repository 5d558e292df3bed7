"""What tests of pages share: studies that are the same in every report."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from weakorder.reports.pages import report


@pytest.fixture(autouse=True, scope="session")
def _controls_once() -> Iterator[None]:
    """The control studies are computed for the first report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_controls", functools.cache(report._controls))
        yield
