"""Samplers with a grid of their own, as scripts write them around a network that predicts eps or a velocity.

weakorder verify own_grid.py:ddim --diffusion vp --predicts eps
weakorder verify own_grid.py:ancestral --diffusion vp --predicts eps
weakorder verify own_grid.py:euler --diffusion flow --predicts flow
weakorder verify own_grid.py:heun --diffusion edm --predicts denoiser --time sigma
"""

import itertools
import math

import torch

BETA_MIN, BETA_MAX = 0.1, 20.0


def alpha_of(t):
    """Of the variance-preserving path."""
    return math.exp(-(BETA_MIN * t + (BETA_MAX - BETA_MIN) * t**2 / 2) / 2)


def times(steps, last=0.02):
    """From 1 down to `last`, log-spaced."""
    return [last ** (i / steps) for i in range(steps + 1)]


def ddim(model, x, steps):
    """DDIM (Song et al. 2021), deterministic."""
    grid = times(steps)
    for t, later in itertools.pairwise(grid):
        eps = model(x, t)
        alpha, alpha_later = alpha_of(t), alpha_of(later)
        data = (x - math.sqrt(1 - alpha**2) * eps) / alpha
        x = alpha_later * data + math.sqrt(1 - alpha_later**2) * eps
    return denoised(model, x, grid[-1])


def ancestral(model, x, steps):
    """Ancestral sampling (Ho et al. 2020): DDIM with eta = 1."""
    grid = times(steps)
    for t, later in itertools.pairwise(grid):
        eps = model(x, t)
        a, b = alpha_of(t) ** 2, alpha_of(later) ** 2
        data = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        spread = (1 - b) / (1 - a) * (1 - a / b)
        x = math.sqrt(b) * data + math.sqrt(1 - b - spread) * eps + math.sqrt(spread) * torch.randn_like(x)
    return denoised(model, x, grid[-1])


def denoised(model, x, t):
    """What the network takes for the data, as the last step."""
    alpha = alpha_of(t)
    return (x - math.sqrt(1 - alpha**2) * model(x, t)) / alpha


def euler(model, x, steps):
    """Euler along a rectified flow, from t = 1 to 0."""
    grid = [1 - i / steps for i in range(steps + 1)]
    for t, later in itertools.pairwise(grid):
        x = x + (later - t) * model(x, t)
    return x


def heun(model, x, steps, sigma_min=0.02, sigma_max=80.0, rho=7.0):
    """Heun's method on the grid of Karras et al. (2022), algorithm 1, to the data."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)] + [0.0]
    for sigma, later in itertools.pairwise(sigmas):
        slope = (x - model(x, sigma)) / sigma
        moved = x + (later - sigma) * slope
        if later > 0:
            slope = (slope + (moved - model(moved, later)) / later) / 2
            moved = x + (later - sigma) * slope
        x = moved
    return x
