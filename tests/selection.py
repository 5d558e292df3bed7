"""What of a wide test runs in every run: representatives of its cases, or few examples. The rest runs under --nightly.

A representative can fail for what the others can: one scheme of each splitting of the catalogue, among them one that
evaluates the score twice a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings
from weakorder.theory.scheme import Scheme

REPRESENTATIVES = ("EM", "SSCS", "ROBAB", "RVV")


def nightly_but(kept: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """All cases (values, or tuples of them); those that are not kept are marked nightly."""
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) and not isinstance(case, Scheme) else (case,)
        marked.append(pytest.param(*values, marks=() if kept(case) else pytest.mark.nightly))
    return marked


def is_representative(scheme: Scheme | str) -> bool:
    """Whether a scheme of the catalogue, or its name, stands for its splitting."""
    return (scheme.name if isinstance(scheme, Scheme) else scheme) in REPRESENTATIVES


def examples(count: int) -> settings:
    """`count` examples in every run, ten times as many under --nightly: for properties of which one takes seconds."""
    return settings(max_examples=count * settings().max_examples // 40)
