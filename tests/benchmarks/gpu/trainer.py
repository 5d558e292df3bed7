"""A training run's state on the device, its step, and the table of times that it draws from (training.py)."""

from __future__ import annotations

import copy
import os
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from weakorder.verification.cifar10.model.checkpoint import NUMERICAL_EPS
from weakorder.verification.cifar10.model.training import EARLIEST
from weakorder.verification.targets.gaussian import perturbation_kernel

from .parts import EVENT, Context

WARMUP = 300  # steps
CLIP = 1.0  # norm of a gradient
LOG = 50  # steps per point of the loss curve
MODES = (
    (True, True),
    (True, False),
    (False, True),
    (False, False),
)  # compiled, and in a CUDA graph: the first that works


def mode() -> int:
    """Which of `MODES` is tried: a process starts again with the next when one fails."""
    return int(os.environ.get("WEAKORDER_MODE", "0"))


class Times:
    """Stratified times with the kernel's coefficients: t, a_x, a_m, l_xx, l_mx, l_mm, columns of (n, 6) float32."""

    def __init__(self, params: Any, count: int) -> None:

        places = (np.arange(count) + np.random.default_rng(1).random(count)) / count
        t = EARLIEST + (params.T - EARLIEST) * places
        rows = []
        for chunk in np.array_split(t, max(1, count >> 14)):
            mean, factor = perturbation_kernel(params, chunk, NUMERICAL_EPS)
            rows.append(np.column_stack((chunk, mean, factor[:, 0, 0], factor[:, 1, 0], factor[:, 1, 1])))
        self.rows = np.concatenate(rows).astype(np.float32)


class Trainer:
    """The state of a run on the device, and its step. done, seconds: of this run, once it has any."""

    def __init__(self, context: Context, network: nn.Module, images: Tensor, times: Tensor) -> None:
        options = context.options
        device = torch.device(context.device)
        self.device, self.batch = device, (4 if context.tiny else options.batch)
        self.mean_weight, self.ema_decay = options.mean_weight, options.ema_decay
        self.images, self.times = images, times
        self.network = network.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        pairs = zip(self.network.parameters(), self.average.parameters(), strict=True)
        trained = [(weight, average) for weight, average in pairs if weight.requires_grad]
        self.weights, self.averages = [w for w, _ in trained], [a for _, a in trained]
        cuda = device.type == "cuda"
        self.lr = torch.tensor(0.0, device=device)
        self.decay = torch.tensor(0.0, device=device)
        self.optimizer = torch.optim.Adam(self.weights, lr=self.lr if cuda else 0.0, fused=cuda, capturable=cuda)
        self.sums = torch.zeros(2, device=device)  # of the loss, and of the mean's part, since the last point
        self.step, self.losses = 0, list[float]()
        self.done, self.seconds = 0, 0.0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.compiled = self.loss
        if MODES[mode()][0]:
            self.compiled = torch.compile(self.loss, backend="inductor" if cuda else "aot_eager")

    def loss(self, images: Tensor, flip: Tensor, rows: Tensor, eps: Tensor) -> Tensor:
        """(2,): the loss of `training.squared_errors`, and the mean's part."""
        x_0 = images.float() / 127.5 - 1
        x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
        t, a_x, a_m, l_xx, l_mx, l_mm = (rows[:, k, None, None, None] for k in range(6))
        eps_x, eps_m = eps[:, :3], eps[:, 3:]
        u = torch.cat((a_x * x_0 + l_xx * eps_x, a_m * x_0 + l_mx * eps_x + l_mm * eps_m), dim=1)
        predicted = self.network(u.contiguous(memory_format=torch.channels_last), t.flatten())
        error = eps - predicted.float()
        white = error.mean((2, 3)).square().mean() * (error.shape[2] * error.shape[3])
        return torch.stack((error.square().mean(), white))

    def once(self) -> None:
        """A step with the learning rate and decay that are set."""
        n, device = self.batch, self.device
        images = self.images[torch.randint(len(self.images), (n,), device=device)]
        flip = torch.rand(n, device=device) < 0.5
        places = (torch.arange(n, device=device) + torch.rand(n, device=device)) * (len(self.times) / n)
        rows = self.times[places.long().clamp_(max=len(self.times) - 1)]
        eps = torch.randn(n, 6, *EVENT[1:], device=device)
        with torch.autocast(device.type, torch.bfloat16):
            parts = self.compiled(images, flip, rows, eps)
        (parts[0] + self.mean_weight * parts[1]).backward()
        nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self.graph is None)
        with torch.no_grad():
            change = torch._foreach_sub(self.weights, self.averages)
            torch._foreach_mul_(change, 1 - self.decay)
            torch._foreach_add_(self.averages, change)
            self.sums += parts.detach()

    def warm_up(self, context: Context) -> dict[str, float]:
        """Compile, with a learning rate of 0; then record a CUDA graph of a step."""
        began = time.time()
        before = self.saved()
        self.set(0.0, 0.0)
        self.once()
        self.sync()
        compiled = time.time() - began
        context.record("stage", "to be recorded as a graph")
        if self.device.type == "cuda" and MODES[mode()][1]:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.once()
            torch.cuda.current_stream().wait_stream(stream)
            self.sync()
            graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                self.once()
            self.graph = graph
            self.graph.replay()
            self.sync()
        self.restore(before)
        return {"compile_seconds": compiled, "seconds": time.time() - began, "graph": self.graph is not None}

    def set(self, lr: float, decay: float) -> None:
        """The next step's learning rate and decay of the average, where a graph reads them."""
        self.lr.fill_(lr)
        self.decay.fill_(decay)
        if self.device.type != "cuda":
            for group in self.optimizer.param_groups:
                group["lr"] = lr

    def advance(self, lr: float) -> None:
        """One step."""
        self.set(lr, min(self.ema_decay, (1 + self.step) / (10 + self.step)))
        if self.graph is not None:
            self.graph.replay()
        else:
            self.once()
        self.step += 1

    def sync(self) -> None:
        """Until the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def saved(self) -> dict[str, Any]:
        """Copies on the CPU: weights, averages, Adam's moments and number of steps."""
        moments = [self.optimizer.state.get(weight, {}) for weight in self.weights]
        return {
            "network": {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()},
            "average": {k: v.detach().cpu().clone() for k, v in self.average.state_dict().items()},
            "moments": [{k: v.detach().cpu().clone() for k, v in each.items()} for each in moments],
            "step": self.step,
        }

    @torch.no_grad()
    def restore(self, content: dict[str, Any]) -> None:
        """In place: a graph keeps addresses."""
        for module, name in ((self.network, "network"), (self.average, "average")):
            for key, value in module.state_dict().items():
                value.copy_(content[name][key])
        for weight, each in zip(self.weights, content["moments"], strict=True):
            for key, value in self.optimizer.state[weight].items():
                value.copy_(each[key]) if key in each else value.zero_()
        self.sums.zero_()
        self.step = content["step"]
