"""The command line on a user's file: a step is verified, its moments printed, and what cannot be verified refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from weakorder.reports.commands import cli

BOX = """
import torch
def step(u, tau, h, score):
    s = score(u, 1 - tau)
    x, m = u[:, 0], u[:, 1]
    dx = 4 * (0.01 * x - 4 * m + 0.02 * s[:, 0])
    dm = 4 * (x + 4.01 * m + 2 * 0.25 * 4.01 * s[:, 1])
    noise = torch.randn_like(u) * torch.tensor([0.08, 8 * 4.01 * 0.25]).sqrt().to(u)
    return u + h * torch.stack([dx, dm], 1) + h ** 0.5 * noise
def exponential(u, tau, h, score):
    return u + torch.empty_like(u).exponential_()
"""


def _run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["weakorder", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), *capsys.readouterr()


def test_the_command_line_verifies_a_users_step(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text(BOX)
    box = f"{tmp_path / 'box.py'}:step"
    code, out, _ = _run(monkeypatch, capsys, "verify", box, "--json", "--steps", "20,40,80,160", "--t-end", "0.3")
    answer = json.loads(out)
    assert (code, answer["verdict"], answer["nfe_per_step"]) == (0, "PASS", 1)
    code, out, _ = _run(monkeypatch, capsys, "moments", box, "--json")
    mine, em = json.loads(out), json.loads(_run(monkeypatch, capsys, "moments", "EM", "--json")[1])
    np.testing.assert_allclose(mine["cov"], em["cov"], rtol=1e-6)  # the file rounds its constants in float32
    code, out, err = _run(monkeypatch, capsys, "verify", f"{tmp_path / 'box.py'}:exponential")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "draws from torch.exponential_" in err
    code, _, err = _run(monkeypatch, capsys, "verify", box, "--flow", "exact")
    assert (code, err.count("\n")) == (2, 1)
