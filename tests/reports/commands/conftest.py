"""Fixtures of the study's command: a tiny network, the command as a shell runs it, and no figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import line
from study_command import TINY, Outcome
from undrawn import leave_the_study_undrawn
from weakorder.reports.commands.cli import main
from weakorder.theory.model import Parameters
from weakorder.verification.cifar10.model.checkpoint import save_network
from weakorder.verification.cifar10.model.network import NCSNpp

__all__ = ["line"]  # a fixture of all


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network with random weights."""
    network, generator = NCSNpp(TINY), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    save_network(path, network.state_dict(), TINY, Parameters())
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, for studies of which numbers and text are looked at."""
    leave_the_study_undrawn(monkeypatch)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path
) -> Callable[..., Outcome]:
    """The command as a shell runs it, on the tiny network and into a folder of its own."""

    def command(*words: str) -> Outcome:
        here = ["--checkpoint", str(checkpoint), "-o", str(tmp_path / "study")]
        monkeypatch.setattr(sys, "argv", ["weakorder", "cifar10", "study", *words, *here])
        with pytest.raises(SystemExit) as stop:
            main()
        return Outcome(int(stop.value.code or 0), *capsys.readouterr())

    return command
