"""Images per second of a CIFAR-10 network, by precision, eager and compiled; and how far each moves the score.

    python tests/benchmarks/cifar10_network.py [--network published|compact] [--batch 256] [--seconds 10] [--eager]

Random weights will do: speed does not depend on them. They are drawn so that the output has size 1 (at initialisation
it is 1e-5, which would hide rounding). Ratios within one run are worth quoting; single times are not. What a precision
does to weak errors the study says:

    weakorder cifar10 study --precision float32 tf32 bfloat16
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from weakorder.verification.cifar10.model.configuration import COMPACT
from weakorder.verification.cifar10.model.machine import is_imitated, keep_freed_memory, products
from weakorder.verification.cifar10.model.network import PUBLISHED, NCSNpp
from weakorder.verification.cifar10.model.precisions import PRECISIONS

NETWORKS = {"published": PUBLISHED, "compact": COMPACT}


def lively(network: NCSNpp) -> NCSNpp:
    """With weights of a trained size where initialisation has almost nothing."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.ndim > 1 and float(weight.detach().abs().max()) < 1e-4:
            fan = weight[0].numel()
            weight.data = torch.randn(weight.shape, generator=generator) / fan**0.5
        assert bool(weight.isfinite().all()), name
    return network


def rate(run: Callable[[], Tensor], batch: int, seconds: float, device: torch.device) -> float:
    """Images per second after a warm-up of three calls."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(3):
        run()
    wait()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run()
        wait()
        calls += 1
    return calls * batch / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="published")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    options = parser.parse_args()
    device = torch.device(options.device)
    keep_freed_memory()
    network = lively(NCSNpp(NETWORKS[options.network])).eval().to(device, memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(options.batch, 6, 32, 32, generator=generator).to(device, memory_format=torch.channels_last)
    t = torch.full((options.batch,), 0.3, device=device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    rows, exact = [], None
    with torch.no_grad():
        for compiled in (False,) if options.eager else (False, True):
            for precision in PRECISIONS:
                if is_imitated(precision, device):
                    continue
                if compiled:
                    torch._dynamo.reset()
                model = torch.compile(network) if compiled else network
                with products(precision, device):
                    output = model(x, t).double()
                    speed = rate(lambda model=model: model(x, t), options.batch, options.seconds, device)
                exact = output if exact is None else exact
                error = float((output - exact).norm() / exact.norm())
                rows.append({"precision": precision, "compiled": compiled, "images_per_second": speed, "change": error})
                times = speed / rows[0]["images_per_second"]
                mode = "compiled" if compiled else "eager"
                print(
                    f"{precision:9} {mode:9} {speed:9.1f} images/s  {times:5.2f} x  output moves by {error:.1e}",
                    flush=True,
                )
    print(json.dumps({"device": name, "torch": torch.__version__, "batch": options.batch, "rows": rows}))


if __name__ == "__main__":
    main()
