"""Part c of a prepared run: the published network's speed, and the sampler's share of it (tests/benchmarks/gpu)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.grids import time_grid
from weakorder.integrators.sampler import draw_prior, sample
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.cifar10.model.checkpoint import NetworkScore
from weakorder.verification.cifar10.model.configuration import COMPACT
from weakorder.verification.cifar10.model.machine import products
from weakorder.verification.cifar10.model.network import PUBLISHED, NCSNpp

from ..cifar10_network import lively
from .parts import EVENT, Context
from .timing import compiled_for, seconds_of, wait


def published_network(context: Context) -> None:
    """Network evaluations per second, by precision and mode; the most important first."""
    device, batch = context.device, (2 if context.tiny else 256)
    network, last = _networks(context)
    x = torch.randn(batch, 6, 32, 32, generator=torch.Generator().manual_seed(1)).to(device)
    x_last = x.contiguous(memory_format=torch.channels_last)
    t = torch.full((batch,), 0.3, device=device)
    size = {"batch": batch, "weights": sum(weight.numel() for weight in network.parameters())}
    context.record("size", size | {"unit": "network evaluations per second; images/s at 100 are a hundredth"})
    compiled = compiled_for(device, last)
    graphs = compiled_for(device, last, mode="reduce-overhead")

    def prepare() -> dict[str, float]:
        began = time.time()
        with torch.no_grad(), products("bfloat16", torch.device(device)):
            compiled(x_last, t)
            wait(device)
        return {"seconds": time.time() - began}

    compiles = "error" not in context.attempt("compilation bfloat16", prepare)
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    context.prepared()
    measure = _measurement(context, t)
    rows: list[tuple[str, Callable[..., Tensor], Tensor, str]] = [
        ("float32 eager", network, x, "float32"),
        ("bfloat16 compiled, channels last", compiled, x_last, "bfloat16"),
        ("bfloat16 eager, channels last", last, x_last, "bfloat16"),
        ("tf32 eager, channels last", last, x_last, "tf32"),
        ("float32 eager, channels last", last, x_last, "float32"),
        ("bfloat16 eager", network, x, "bfloat16"),
        ("tf32 eager", network, x, "tf32"),
    ]
    if not compiles:
        rows = [row for row in rows if row[1] is not compiled]
    for name, model, image, precision in rows[:4]:
        context.attempt(name, lambda m=model, i=image, p=precision: measure(m, i, p))
    best = ("bfloat16 compiled", compiled) if compiles else ("bfloat16 eager", last)
    for (name, model), precision, dtypes in (
        (best, "bfloat16", (torch.float64, torch.float32)),
        (("tf32 eager", last), "tf32", (torch.float64,)),
    ):
        context.attempt(
            f"sampler's share, {name}",
            lambda m=model, p=precision, d=dtypes: share(context, m, last, x_last, t, p, Parameters(), d),
        )
    for name, model, image, precision in rows[4:]:
        context.attempt(name, lambda m=model, i=image, p=precision: measure(m, i, p))
    if torch.device(device).type == "cuda":
        name = "bfloat16 CUDA graph, eager kernels"
        context.attempt(name, lambda: measure(graphed(last, x_last, t), x_last, "bfloat16"))
    if compiles and (context.left() > 25 or context.tiny):
        context.attempt("bfloat16 compiled, CUDA graphs", lambda: measure(graphs, x_last, "bfloat16"))
    if compiles and context.left() > 40:
        context.attempt("tf32 compiled, channels last", lambda: measure(compiled_for(device, last), x_last, "tf32"))


def _networks(context: Context) -> tuple[NCSNpp, NCSNpp]:
    """The network, and the same with its channels last."""
    network = lively(NCSNpp(COMPACT if context.tiny else PUBLISHED)).eval().to(context.device)
    last = NCSNpp(network.config)
    last.load_state_dict(network.state_dict())
    return network, last.eval().to(context.device, memory_format=torch.channels_last)


def _measurement(context: Context, t: Tensor) -> Callable[[Callable[..., Tensor], Tensor, str], dict[str, Any]]:
    """What measures a model on a batch of images at times `t` in a precision; changes are against the first one."""
    device, batch, exact = context.device, len(t), list[Tensor]()

    def measure(model: Callable[..., Tensor], image: Tensor, precision: str) -> dict[str, Any]:
        least = 0.01 if context.tiny else 1.5
        cuda = torch.device(device).type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        with torch.no_grad(), products(precision, torch.device(device)):
            output = model(image, t).double().cpu()
            took = seconds_of(lambda: model(image, t), device, least)
        exact.extend([output] if not exact else [])
        return {
            "evaluations_per_second": batch / took["median"],
            "images_per_second_at_100": batch / took["median"] / 100,
            "change": float((output - exact[0]).norm() / exact[0].norm()),
            "memory": torch.cuda.max_memory_allocated() if cuda else None,
            **took,
        }

    return measure


def graphed(model: Callable[..., Tensor], x: Tensor, t: Tensor) -> Callable[..., Tensor]:
    """A CUDA graph of eager kernels, in the precision that is on."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())

    with torch.no_grad(), torch.cuda.stream(stream), products("bfloat16", x.device):
        for _ in range(3):
            model(x, t)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, cache_enabled=False), torch.cuda.graph(graph):
        output = model(x, t)

    def replay(x_new: Tensor, t_new: Tensor) -> Tensor:
        x.copy_(x_new)
        t.copy_(t_new)
        graph.replay()
        return output

    return replay


def share(
    context: Context, model: Any, plain: Any, x: Tensor, t: Tensor, precision: str, params: Any, dtypes: tuple[Any, ...]
) -> dict[str, Any]:
    """A run of the sampler over the time that its network evaluations alone take."""
    device, steps = context.device, (2 if context.tiny else 5)
    score = NetworkScore(plain, params)
    score.network = model
    numbers = torch.arange(len(x), device=device)
    taus = time_grid("quadratic", steps, params)
    found: dict[str, Any] = {"steps": steps}
    with torch.no_grad(), products(precision, torch.device(device)):
        for dtype in dtypes:
            u = draw_prior(PSLD_DIFFUSION, params, numbers, EVENT, dtype=dtype)
            least = 0.01 if context.tiny else 1.5

            def alone() -> None:
                for _ in range(steps):
                    model(x, t)

            def loop(u: Tensor = u) -> Tensor:
                return sample(CATALOGUE["ROBA"], score, u, taus, params)

            network, whole = seconds_of(alone, device, least), seconds_of(loop, device, least)
            found[str(dtype).removeprefix("torch.")] = {
                "network": network["median"],
                "sampler": whole["median"],
                "share": 1 - network["median"] / whole["median"],
            }
    return found
