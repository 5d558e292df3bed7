"""Several processes at one study, as `torchrun` starts them: each takes every size-th batch, and nothing is exchanged.

    torchrun --nproc-per-node 2 --no-python weakorder cifar10 study ...

The processes meet once, when all have sampled (gloo, which needs no accelerator); then the first one reads the folder
and writes the page. An accelerator is taken by the process's place on its machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

_LONGEST = timedelta(days=30)  # that one process may wait for another


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `size`, and number `local_rank` of `local_size` on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that speaks and writes the page."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Its part of the work."""
        return items[self.rank :: self.size]

    def agreed(self, value: T) -> T:
        """The first process's value, for all of them."""
        if self.size == 1:
            return value
        import torch.distributed as distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            import torch.distributed as distributed

            distributed.barrier()


def from_environment() -> Processes:
    """As torchrun's variables say; one process without them. Raises ValueError on variables that make no sense."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [os.environ.get(name) for name in names]
    if values[0] is None and values[1] is None:
        return Processes()
    try:
        found = Processes(*(int(value or "") for value in values))
    except ValueError:
        found = Processes(-1)
    if not (0 <= found.rank < found.size and 0 <= found.local_rank < found.local_size <= found.size):
        shown = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise ValueError(f"{shown}: not what torchrun sets; start the command with torchrun, or unset them")
    return found


@contextmanager
def joined(processes: Processes) -> Iterator[None]:
    """The processes know each other while the context lasts."""
    if processes.size == 1:
        yield
        return
    import torch.distributed as distributed

    distributed.init_process_group("gloo", timeout=_LONGEST)
    try:
        yield
    finally:
        distributed.destroy_process_group()
