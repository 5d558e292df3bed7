"""A network that predicts eps rounds as one of its type does, and refuses what is no batch of states."""

from __future__ import annotations

import pytest
import torch
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox.adapters import EpsNetwork

PARAMS = Parameters(beta_min=0.5, beta_max=12.0)


def test_an_eps_network_in_float32_rounds_as_a_float32_network_does() -> None:
    network = EpsNetwork(lambda u, t: -u, PARAMS, dtype=torch.float32)
    u = torch.full((2, 6, 4, 4), 1 / 3, dtype=torch.float64)
    eps = network(u, torch.full((2,), 0.3))
    exact = EpsNetwork(lambda u, t: -u, PARAMS)(u, 0.3)
    assert (eps.dtype, eps.shape) == (torch.float32, u.shape)
    assert 0 < float((eps - exact).abs().max()) < 1e-6
    with pytest.raises(ValueError, match=r"\(2, 5, 4, 4\) cannot be split .*; give \(batch, 2, \*event\)"):
        network(u[:, :5], 0.3)
    with pytest.raises(ValueError, match=r"several times in one call, from 0\.1 to 0\.2"):
        network(u, torch.tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match="numerical_eps = -1"):
        EpsNetwork(lambda u, t: u, PARAMS, numerical_eps=-1)
