"""What a training run is, apart from its data and its length: the network, its diffusion, and how it is trained."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ....theory.model import Parameters
from .network import Config

# 1.3 million parameters, narrow where the images are large: that level costs the most time and has the fewest weights.
COMPACT = Config(nf=32, ch_mult=(1, 2, 2), num_res_blocks=1, dropout=0.0)


@dataclass(frozen=True)
class TrainingConfig:
    """A run; the defaults are the compact model's.

    batch, warmup (steps), learning_rate, clip (norm of the gradient), ema_decay in [0, 1), seed in [0, 2^63).
    cool_down, last: over the cool_down steps before step `last` the rate falls as a cosine to 0, where the run ends
    (0, 0: it does not). mean_weight: weight of the error in the channels' means. begins: SHA-256 of the file of weights
    that the run begins from ("": random ones). The others are the network's and the diffusion's.
    Raises ValueError naming the field and its rule.
    """

    network: Config = COMPACT
    params: Parameters = field(default_factory=Parameters)
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 500
    clip: float = 1.0
    ema_decay: float = 0.9999
    flips: bool = True
    seed: int = 0
    cool_down: int = 0
    last: int = 0
    mean_weight: float = 0.0
    begins: str = ""

    def __post_init__(self) -> None:
        rules = {
            "batch": (self.batch >= 1, ">= 1"),
            "learning_rate": (0 < self.learning_rate < 1, "in (0, 1)"),
            "warmup": (self.warmup >= 1, ">= 1"),
            "clip": (self.clip > 0, "> 0"),
            "ema_decay": (0 <= self.ema_decay < 1, "in [0, 1)"),
            "seed": (isinstance(self.seed, int) and 0 <= self.seed < 2**63, "an integer in [0, 2^63)"),
            "cool_down": (0 <= self.cool_down <= self.last, f"from 0 to the run's last step, {self.last}"),
            "mean_weight": (0 <= self.mean_weight < math.inf, ">= 0 and finite"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"{name} = {getattr(self, name)!r}: it must be {rule}")

    def rate(self, step: int) -> float:
        """The learning rate of a step (the first is step 0)."""
        rate = self.learning_rate * min(step / self.warmup, 1.0)
        if not self.cool_down or step <= self.last - self.cool_down:
            return rate
        return rate * (1 + math.cos(math.pi * (step - self.last + self.cool_down) / self.cool_down)) / 2

    def described(self) -> dict[str, Any]:
        """As plain numbers, strings and lists; what was not there in older runs only where it is used."""
        described = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in described.items() if value or name not in _LATER}


_LATER = ("cool_down", "last", "mean_weight", "begins")
