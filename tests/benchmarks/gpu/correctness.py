"""Part a of a prepared run: the device's words, normals and samples are the CPU's (tests/benchmarks/gpu)."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.compiled import compile_run
from weakorder.integrators.grids import time_grid
from weakorder.integrators.kernels.fallback import philox
from weakorder.integrators.noise import normal_pairs
from weakorder.integrators.sampler import draw_prior, sample
from weakorder.theory.model import Parameters

from .parts import EVENT, Context

ROOT = Path(__file__).resolve().parents[3]


def machine(device: str) -> dict[str, Any]:
    """What the figures are of."""
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


def correctness(context: Context) -> None:
    """Part a."""
    context.record("machine", machine(context.device))
    context.attempt("noise", lambda: noise_agrees(context))
    context.attempt("derivations", derive)
    context.attempt("samples", lambda: samples_agree(context))
    context.attempt("tests", lambda: device_tests(context))


def derive() -> dict[str, float]:
    """What sympy derives once for each machine."""
    began = time.time()
    for scheme in CATALOGUE.values():
        compile_run(scheme, time_grid("quadratic", 3, Parameters()), Parameters())
    return {"seconds": time.time() - began, "schemes": len(CATALOGUE)}


def noise_agrees(context: Context) -> dict[str, Any]:
    """The generator's words must be the CPU's; the normals differ by the last bits of log, cos and sin."""
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


def samples_agree(context: Context) -> dict[str, Any]:
    """Every catalogue scheme, with a score that is not linear: largest difference over the largest sample."""
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


def device_tests(context: Context) -> dict[str, Any]:
    """The pytest files that run on a device where there is one."""
    words = [sys.executable, "-m", "pytest", "-q", "-x" if context.tiny else "-q", "-p", "no:cacheprovider", "-n", "0"]
    words += ["-W", "default", "-m", "device", "--tb=line", *map(str, sorted((ROOT / "tests").glob("**/test_*.py")))]
    marked = [word for word in words if word.endswith(".py") and "mark.device" in Path(word).read_text()]
    words = [word for word in words if not word.endswith(".py")] + marked
    words += ["-k", "cuda or cpu and EM"] if context.tiny else ["-k", "cuda"]
    left = max(10.0, context.left() - 3)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=left, cwd=ROOT)
    except subprocess.TimeoutExpired as error:
        return {"outcome": "timeout", "tail": str(error.stdout or "")[-1500:]}
    print(done.stdout[-4000:], done.stderr[-2000:])
    return {"exit": done.returncode, "files": [Path(m).name for m in marked], "tail": done.stdout[-800:]}
