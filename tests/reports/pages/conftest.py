"""Every results.json that a test of the pages makes is as its schema says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from json_schemas import checked
from weakorder.reports.pages import report


@pytest.fixture(autouse=True, scope="session")
def _results_are_as_their_schema_says() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "dumps", checked("results", report.dumps))
        yield
