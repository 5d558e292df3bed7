"""The parts of a prepared run that measure: what is right, how fast, how exact (tests/benchmarks/gpu.py)."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
EVENT = (3, 32, 32)


def compiled_for(device: str, function: Any, **options: Any) -> Any:
    """torch.compile; a rehearsal without an accelerator compiles nothing."""
    if torch.device(device).type == "cpu":
        return torch.compile(function, backend="eager")
    return torch.compile(function, **options)


def wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], object], device: str, least: float = 1.0, most: int = 30) -> dict[str, float]:
    """The median of a few runs after two to warm up, each until the device has done its work; at least 3 of them, for
    about `least` seconds."""
    for _ in range(2):
        run()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < least and len(times) < most):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - start)
    return {"median": median(times), "least": min(times), "runs": len(times)}


# --- a. Correctness ---------------------------------------------------------------------------------------------------


def machine(device: str) -> dict[str, Any]:
    import platform

    found: dict[str, Any] = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "memory": properties.total_memory,
            "processors": properties.multi_processor_count,
        }
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            words = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
            found["driver"] = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip()
    with contextlib.suppress(ImportError):
        import triton

        found["triton"] = triton.__version__
    return found


def correctness(context: Any) -> None:
    context.record("machine", machine(context.device))
    context.attempt("noise", lambda: noise_agrees(context))
    context.attempt("derivations", derive)
    context.attempt("samples", lambda: samples_agree(context))
    context.attempt("tests", lambda: device_tests(context))


def derive() -> dict[str, float]:
    """What sympy derives once for each machine."""
    from weakorder.integrators.catalogue import CATALOGUE
    from weakorder.integrators.compiled import compile_run
    from weakorder.integrators.grids import time_grid
    from weakorder.theory.model import Parameters

    began = time.time()
    for scheme in CATALOGUE.values():
        compile_run(scheme, time_grid("quadratic", 3, Parameters()), Parameters())
    return {"seconds": time.time() - began, "schemes": len(CATALOGUE)}


def noise_agrees(context: Any) -> dict[str, Any]:
    """The generator's words must be the CPU's; the normals differ by the last bits of log, cos and sin."""
    from weakorder.integrators.noise import normal_pairs, philox

    rng = np.random.default_rng(0)
    count = 1000 if context.tiny else 1 << 20
    counter = [torch.from_numpy(rng.integers(0, 1 << 32, count)) for _ in range(4)]
    key = (0x12345678, 0x9ABCDEF0)
    here = philox(counter, key)
    there = philox([word.to(context.device) for word in counter], key)
    numbers = torch.arange(2 if context.tiny else 64)
    normals = normal_pairs(7 << 33, numbers, 3, EVENT)
    on_device = normal_pairs(7 << 33, numbers.to(context.device), 3, EVENT).cpu()
    single = normal_pairs(7 << 33, numbers.to(context.device), 3, EVENT, torch.float32).cpu()
    return {
        "words": 4 * count,
        "words_equal": all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True)),
        "normals": normals.numel(),
        "normals_equal_share": float((normals == on_device).double().mean()),
        "normals_largest_difference": float((normals - on_device).abs().max()),
        "float32_equal_share": float((normals.float() == single).double().mean()),
    }


def samples_agree(context: Any) -> dict[str, Any]:
    """Every catalogue scheme, with a score that is not linear: largest difference over the largest sample."""
    from weakorder.integrators.catalogue import CATALOGUE
    from weakorder.integrators.grids import time_grid
    from weakorder.integrators.sampler import draw_prior, sample
    from weakorder.theory.model import Parameters

    params = Parameters()
    taus = time_grid("quadratic", 3 if context.tiny else 20, params)
    numbers = torch.arange(2 if context.tiny else 8)
    found: dict[str, Any] = {}

    def score(u: Tensor, t: float) -> Tensor:
        return -u / (1 + t) + 0.1 * torch.sin(3 * u)

    for name, scheme in CATALOGUE.items():
        found[name] = {}
        for dtype in (torch.float64, torch.float32):
            u = draw_prior(scheme.splitting.diffusion, params, numbers, EVENT, dtype=dtype)
            here = sample(scheme, score, u, taus, params, denoise=True)
            there = sample(scheme, score, u.to(context.device), taus, params, denoise=True).cpu()
            off = float((here - there).abs().max() / here.abs().max())
            found[name][str(dtype).removeprefix("torch.")] = off
    worst = {d: max(entry[d] for entry in found.values()) for d in ("float64", "float32")}
    return {
        "schemes": found,
        "worst": worst,
        "within_1e-6": worst["float64"] < 1e-6,
        "float32_within_1e-4": worst["float32"] < 1e-4,
    }


def device_tests(context: Any) -> dict[str, Any]:
    """The pytest files that run on a device where there is one."""
    import os

    words = [sys.executable, "-m", "pytest", "-q", "-x" if context.tiny else "-q", "-p", "no:cacheprovider", "-n", "0"]
    words += ["-W", "default", "-m", "device", "--tb=line", *map(str, sorted((ROOT / "tests").glob("**/test_*.py")))]
    marked = [word for word in words if word.endswith(".py") and "mark.device" in Path(word).read_text()]
    words = [word for word in words if not word.endswith(".py")] + marked
    words += ["-k", "cuda or cpu and EM"] if context.tiny else ["-k", "cuda"]
    left = max(10.0, context.left() - 3)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=left, cwd=ROOT, env=os.environ)
    except subprocess.TimeoutExpired as error:
        return {"outcome": "timeout", "tail": str(error.stdout or "")[-1500:]}
    print(done.stdout[-4000:], done.stderr[-2000:])
    return {"exit": done.returncode, "files": [Path(m).name for m in marked], "tail": done.stdout[-800:]}


# --- b. The sampling loop ---------------------------------------------------------------------------------------------


def sampling_loop(context: Any) -> None:
    device, batch, steps = context.device, (2 if context.tiny else 2048), (2 if context.tiny else 10)
    least = 0.01 if context.tiny else 0.7
    context.attempt("bandwidth", lambda: bandwidth(context))
    pairs = batch * int(np.prod(EVENT))
    context.record("size", {"batch": batch, "event": EVENT, "steps": steps, "unit": "(x, m) pairs per second"})
    for dtype in (torch.float32, torch.float64):
        word = str(dtype).removeprefix("torch.")
        shape = (batch, 2, *EVENT)

        def rate(run: Callable[[], object], count: float) -> dict[str, float]:
            took = seconds_of(run, device, least)
            return {"pairs_per_second": count / took["median"], **took}

        def drawn(shape: tuple[int, ...] = shape, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(shape, dtype=dtype, device=device)

        context.attempt(f"torch.randn {word}", lambda d=drawn: rate(d, pairs))
        for name in ("ROBA", "EM"):
            loops = _loops(name, steps, batch, dtype, device)
            for title, loop in loops.items():
                if name == "EM" and "compiled" in title:
                    continue
                context.attempt(f"{title} {name} {word}", lambda r=loop: rate(r, pairs * steps))
        for title, noise in _noises(batch, dtype, device).items():
            context.attempt(f"noise {title} {word}", lambda r=noise: rate(r, pairs))


def bandwidth(context: Any) -> dict[str, float]:
    """Bytes read and written per second by a copy on the device."""
    a = torch.empty(1000 if context.tiny else 1 << 30, dtype=torch.uint8, device=context.device).random_()
    b = torch.empty_like(a)
    took = seconds_of(lambda: b.copy_(a), context.device, 0.3)
    return {"bytes_per_second": 2 * a.numel() / took["median"], **took}


def _tables(name: str, steps: int) -> tuple[Any, list[np.ndarray]]:
    from weakorder.integrators.catalogue import CATALOGUE
    from weakorder.integrators.compiled import compile_run, noise_factor
    from weakorder.integrators.grids import time_grid
    from weakorder.theory.model import Parameters

    params = Parameters()
    run = compile_run(CATALOGUE[name], time_grid("uniform", steps, params), params)
    flow = run.updates.flow
    return run, [flow.propagator, flow.score_gain, noise_factor(flow.noise_cov)]


def _loops(name: str, steps: int, batch: int, dtype: torch.dtype, device: str) -> dict[str, Callable[[], Tensor]]:
    """The sampler; the same updates with torch.randn and no checks; and those with a linear score inlined."""
    from weakorder.integrators.catalogue import CATALOGUE
    from weakorder.integrators.grids import time_grid
    from weakorder.integrators.noise import philox
    from weakorder.integrators.sampler import draw_prior, sample
    from weakorder.theory.model import Parameters

    params, scheme = Parameters(), CATALOGUE[name]
    taus = time_grid("uniform", steps, params)
    numbers = torch.arange(batch, device=device)
    u = draw_prior(scheme.splitting.diffusion, params, numbers, EVENT, dtype=dtype)
    _, arrays = _tables(name, steps)
    tables = [torch.as_tensor(array, dtype=dtype, device=device) for array in arrays]
    inlined = torch.as_tensor(arrays[0] - arrays[1], dtype=dtype, device=device)  # s = -u
    size = int(np.prod(EVENT))
    intervals = torch.arange(2, 2 + steps, device=device)

    def score(u: Tensor, _: float) -> Tensor:
        return -u

    def plain() -> Tensor:
        v = u
        for P, K, C in zip(*tables, strict=True):
            w, s, xi = (each.flatten(2) for each in (v, score(v, 0.0), torch.randn_like(v)))
            v = (P @ w + K @ s + C @ xi).reshape(u.shape)
        return v

    def update(v: Tensor, s: Tensor, xi_x: Tensor, xi_m: Tensor, P: Tensor, K: Tensor, C: Tensor) -> Tensor:
        x, m, s_x, s_m = v[:, 0], v[:, 1], s[:, 0], s[:, 1]
        new_x = P[0, 0] * x + P[0, 1] * m + K[0, 0] * s_x + K[0, 1] * s_m + C[0, 0] * xi_x + C[0, 1] * xi_m
        new_m = P[1, 0] * x + P[1, 1] * m + K[1, 0] * s_x + K[1, 1] * s_m + C[1, 0] * xi_x + C[1, 1] * xi_m
        return torch.stack((new_x, new_m), dim=1)

    elements = torch.arange(size, device=device).reshape(EVENT)

    def normals(interval: Tensor) -> tuple[Tensor, Tensor]:
        sample_number = numbers[:, None, None, None]
        w = philox((elements, interval, sample_number & 0xFFFFFFFF, sample_number >> 32), (0, 0))
        first, second = (((a << 21) + (b >> 11) + 1).to(torch.float64) * 2.0**-53 for a, b in (w[:2], w[2:]))
        radius, angle = (-2 * first.log()).sqrt(), 2 * np.pi * second
        return (radius * angle.cos()).to(dtype), (radius * angle.sin()).to(dtype)

    def fused(v: Tensor, s: Tensor, interval: Tensor, P: Tensor, K: Tensor, C: Tensor) -> Tensor:
        return update(v, s, *normals(interval), P, K, C)

    def fused_inlined(v: Tensor, interval: Tensor, P: Tensor, C: Tensor) -> Tensor:
        return update(v, torch.zeros_like(v), *normals(interval), P, torch.zeros_like(P), C)

    def inlined_randn(v: Tensor, P: Tensor, C: Tensor) -> Tensor:
        xi = torch.randn_like(v)
        return update(v, torch.zeros_like(v), xi[:, 0], xi[:, 1], P, torch.zeros_like(P), C)

    def steps_of(step: Callable[..., Tensor], *columns: Any, scored: bool) -> Callable[[], Tensor]:
        compiled: list[Any] = []

        def run() -> Tensor:
            if not compiled:
                compiled.append(compiled_for(device, step))
            v = u
            with torch.no_grad():
                for row in zip(*columns, strict=True):
                    v = compiled[0](v, score(v, 0.0), *row) if scored else compiled[0](v, *row)
            return v

        return run

    P, K, C = tables
    return {
        "sampler, black-box score,": lambda: sample(scheme, score, u, taus, params),
        "plain loop, torch.randn,": plain,
        "compiled step, black-box score,": steps_of(fused, intervals, P, K, C, scored=True),
        "compiled step, score inlined,": steps_of(fused_inlined, intervals, inlined, C, scored=False),
        "compiled plain loop, torch.randn, score inlined,": steps_of(inlined_randn, inlined, C, scored=False),
    }


def _noises(batch: int, dtype: torch.dtype, device: str) -> dict[str, Callable[[], Tensor]]:
    """Other ways to the same noise: the package's, and a kernel of its own where there is one."""
    from weakorder.integrators.noise import normal_pairs

    numbers = torch.arange(batch, device=device)
    found: dict[str, Callable[[], Tensor]] = {"package": lambda: normal_pairs(0, numbers, 1, EVENT, dtype)}
    for module in ("fused", "kernels", "triton_noise", "noise_triton", "noise_kernel"):
        with contextlib.suppress(ImportError):
            import importlib

            kernel = importlib.import_module(f"weakorder.integrators.{module}")
            if hasattr(kernel, "normal_pairs"):
                found[module] = lambda k=kernel: k.normal_pairs(0, numbers, 1, EVENT, dtype)
    return found


# --- c. The published network -----------------------------------------------------------------------------------------


def published_network(context: Any) -> None:
    """Network evaluations per second, by precision and mode; the most important first."""
    sys.path.insert(0, str(Path(__file__).parent))
    from cifar10_network import lively
    from weakorder.theory.model import Parameters
    from weakorder.verification.cifar10.machine import products
    from weakorder.verification.cifar10.network import PUBLISHED, NCSNpp
    from weakorder.verification.cifar10.training import COMPACT

    device, batch = context.device, (2 if context.tiny else 256)
    network = lively(NCSNpp(COMPACT if context.tiny else PUBLISHED)).eval().to(device)
    last = NCSNpp(network.config)
    last.load_state_dict(network.state_dict())
    last = last.eval().to(device, memory_format=torch.channels_last)
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
    exact: list[Tensor] = []

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
    context.attempt("bfloat16 CUDA graph, eager kernels", lambda: measure(graphed(last, x_last, t), x_last, "bfloat16"))
    if compiles and (context.left() > 25 or context.tiny):
        context.attempt("bfloat16 compiled, CUDA graphs", lambda: measure(graphs, x_last, "bfloat16"))
    if compiles and context.left() > 40:
        context.attempt("tf32 compiled, channels last", lambda: measure(compiled_for(device, last), x_last, "tf32"))


def graphed(model: Callable[..., Tensor], x: Tensor, t: Tensor) -> Callable[..., Tensor]:
    """A CUDA graph of eager kernels, in the precision that is on."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    from weakorder.verification.cifar10.machine import products

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
    context: Any, model: Any, plain: Any, x: Tensor, t: Tensor, precision: str, params: Any, dtypes: tuple[Any, ...]
) -> dict[str, Any]:
    """A run of the sampler over the time that its network evaluations alone take."""
    from weakorder.integrators.catalogue import CATALOGUE
    from weakorder.integrators.grids import time_grid
    from weakorder.integrators.sampler import draw_prior, sample
    from weakorder.theory.model import PSLD_DIFFUSION
    from weakorder.verification.cifar10.checkpoint import NetworkScore
    from weakorder.verification.cifar10.machine import products

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


# --- d. Precision -----------------------------------------------------------------------------------------------------


def precision(context: Any) -> None:
    """What the products' precision changes of expectations, beside the weak error, on the shipped network."""
    if context.tiny:
        context.attempt("2 samples", lambda: study(context, ("EM",), ("3",), 2, "2"))
        return
    schemes, budgets = ("EM", "SSCS", "ROBA", "RVV"), ("20", "50")
    took: list[float] = []
    for samples in (256, 512):
        if took and 1.5 * took[-1] > context.left():
            context.record(f"{samples} samples", "left out: no time")
            break
        began = time.time()
        context.attempt(f"{samples} samples", lambda n=samples: study(context, schemes, budgets, n, "8"))
        took.append(time.time() - began)


def study(context: Any, schemes: tuple[str, ...], budgets: tuple[str, ...], samples: int, refinement: str) -> Any:
    from weakorder.reports.cli import cli

    words = ["cifar10", "study", "--nfe", *budgets, "--schemes", *schemes, "-n", str(samples)]
    words += ["--refinement", refinement, "--precision", "float32", "tf32", "bfloat16", "--device", context.device]
    words += ["--json", "-o", str(context.work / "study")]
    began, printed = time.time(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main(args=words, standalone_mode=False)
    answer = json.loads(printed.getvalue())
    cells = [
        {
            "scheme": scheme["name"],
            "nfe": cell["nfe"],
            "seconds": cell["seconds"],
            "weak": cell["weak"],
            "precisions": cell["precisions"],
        }
        for scheme in answer["schemes"]
        for cell in scheme["cells"]
    ]
    return {
        "command": "weakorder " + " ".join(words[:-2]),
        "seconds": time.time() - began,
        "rounding": answer["rounding"],
        "settings": answer["settings"],
        "cells": cells,
    }
