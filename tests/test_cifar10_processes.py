"""What torchrun tells a process, and how work is divided among processes."""

from __future__ import annotations

import pytest
from weakorder.verification.cifar10.processes import Processes, from_environment, joined

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def environment(monkeypatch: pytest.MonkeyPatch, *values: str | None) -> None:
    for name, value in zip(NAMES, values, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, None, None, None, None)
    alone = from_environment()
    assert alone == Processes()
    assert alone.is_first
    with joined(alone):
        assert alone.agreed(7) == 7
        alone.wait()


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "3", "4", "1", "2")
    found = from_environment()
    assert found == Processes(3, 4, 1, 2)
    assert not found.is_first


@pytest.mark.parametrize(
    "values",
    [
        ("4", "4", "0", "1"),
        ("-1", "4", "0", "1"),
        ("one", "4", "0", "1"),
        ("0", None, "0", "1"),
        (None, "2", "0", "1"),
        ("0", "2", "1", "1"),
        ("0", "1", "0", "2"),
        ("0", "0", "0", "1"),
    ],
)
def test_variables_that_make_no_sense_are_refused(
    values: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, *values)
    with pytest.raises(ValueError, match="not what torchrun sets"):
        from_environment()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_item_is_one_processs(size: int) -> None:
    items = list(range(5))
    shares = [list(Processes(rank, size, 0, size).share(items)) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
