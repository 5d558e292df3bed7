"""A thousand correct samplers raise no alarm: half an hour, in a file of its own, that no other file waits for."""

from __future__ import annotations

from itertools import islice

import pytest
from weakorder.verification.blackbox.correct_samplers import variations


@pytest.mark.nightly
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_correct_samplers_raise_no_alarm(hundred: int) -> None:
    chosen = islice(variations(1000), 100 * hundred, 100 * (hundred + 1))
    assert {variation.name: said for variation in chosen if (said := variation.alarms())} == {}
