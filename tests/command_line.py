"""The command line as a shell runs it: exit code, output, errors."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from weakorder.reports.commands import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["weakorder", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return command
