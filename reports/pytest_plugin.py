"""The pytest plugin: the fixture `weakorder` and the option --weakorder-update.

It is loaded in every session of an environment that has weakorder, so it imports nothing until a test asks.
"""

from __future__ import annotations

import os
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --weakorder-update."""
    group = parser.getgroup("weakorder")
    group.addoption(
        "--weakorder-update", action="store_true", help="rewrite the baselines of samplers, compare nothing"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell the assertions, which know nothing of pytest."""
    if config.getoption("--weakorder-update"):
        from ..verification.testing import UPDATE

        os.environ[UPDATE] = "1"
        config.add_cleanup(_forget)


def _forget() -> None:
    from ..verification.testing import UPDATE

    os.environ.pop(UPDATE, None)


@pytest.fixture
def weakorder() -> Any:
    """`weakorder.assert_weak_order(step, 1)` and `weakorder.assert_matches_baseline(step, path)`."""
    from ..verification import testing

    return testing
