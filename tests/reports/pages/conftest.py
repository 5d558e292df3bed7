"""What tests of pages share: studies that are the same in every report, and that every results.json is as its schema
says."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from json_schemas import checked
from weakorder.reports.pages import report


@pytest.fixture(autouse=True, scope="session")
def _controls_once() -> Iterator[None]:
    """The control studies are computed for the first report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_controls", functools.cache(report._controls))
        yield


@pytest.fixture(autouse=True, scope="session")
def _results_are_as_their_schema_says() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "dumps", checked("results", report.dumps))
        yield
