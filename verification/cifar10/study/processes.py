"""Several processes at one study, as `torchrun` starts them: each takes every size-th batch, and nothing is exchanged.

    torchrun --nproc-per-node 2 --no-python weakorder cifar10 study ...

What little they have to say goes through a store (torch's TCPStore) that torchrun keeps, or else the first process: the
first one's answer to a question that has to be answered alike (`agreed`), that the others have done their share
(`wait`: the first one then reads the folder and writes the page), and who tells the user of an error. Of those that
meet one, it is the first to claim it in the store; the others end without a word, and whoever waits ends, too. Where
there is no store yet, because its address is bad or nobody answers there, each speaks for itself.

All waiting is in short sleeps, so that a signal ends it. An accelerator is taken by the process's place on its machine.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

FAILED, INTERRUPTED = 2, 130  # exit codes of a process that leaves the word to another
START, READY = 300.0, 3600.0  # seconds that the processes may start apart, and take to read their input
_COURTESY = 5.0  # seconds for another to be told, or to have spoken
_PAUSE = 0.1
_KEPT = "TORCHELASTIC_USE_AGENT_STORE"  # "True" where torchrun keeps the store


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


def from_environment() -> Processes:
    """As torchrun's variables say; one process without them. Raises ValueError on variables that make no sense.

    Called before torch is imported, it keeps torch from telling, in dozens of lines, that another process has ended.
    """
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
    if found.size > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return found


@contextmanager
def joined(processes: Processes) -> Iterator[Peers]:
    """The processes know each other while the context lasts. An error in it is raised in one of them: in the others,
    and in those that wait for a process that failed, it is SystemExit.

    Raises ValueError or OSError if they cannot meet, within `START` seconds.
    """
    peers = Peers(processes, _open_store(processes, START) if processes.size > 1 else None)
    try:
        peers.meet()
        yield peers
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if not peers.claim(patience=0 if interrupted else _COURTESY):
            ends = isinstance(error, SystemExit | KeyboardInterrupt) and hasattr(error, "code")
            code = getattr(error, "code", None) if ends else None
            raise SystemExit(code or (INTERRUPTED if interrupted else FAILED)) from error
        raise
    peers.leave()


def may_speak() -> bool:
    """Whether this process is the one to tell the user of an error that it met before it joined the others."""
    with suppress(ValueError, OSError):
        processes = from_environment()
        if processes.size > 1 and os.environ.get(_KEPT) == "True":
            return Peers(processes, _open_store(processes, _COURTESY)).claim(_COURTESY)
    return True


class Peers:
    """What this process and the others tell each other, through `store`; None where there are no others."""

    def __init__(self, processes: Processes, store: Any) -> None:
        self.processes, self.store = processes, store
        self.questions, self.speaks = 0, False
        if store is not None:
            atexit.register(self.leave)  # after an error has been printed

    def meet(self) -> None:
        """The first process, until all have come. Raises OSError if they do not."""
        self._come("started", START, self.processes.is_first)

    def agreed(self, value: T) -> T:
        """The first process's value, one of JSON's, for all of them; none goes on before all have come here.
        Raises OSError if they do not, within `READY` seconds."""
        if self.store is None:
            return value
        self.questions += 1
        key = f"answer {self.questions}"
        if self.processes.is_first:
            self._ask("set", key, json.dumps(value))
        self._come(f"ready for {key}", READY, waits=True)
        return json.loads(self._ask("get", key))

    def wait(self) -> None:
        """The first process, until the others have come here, however long that takes; they only say so. torchrun ends
        all when one is killed; without it, one that was killed is waited for until this process is interrupted."""
        self._come("done", math.inf, self.processes.is_first)

    def claim(self, patience: float) -> bool:
        """Whether this process tells the user what went wrong. If not, another does: it gets `patience` seconds to have
        done so, since torchrun ends all as soon as one has ended."""
        rank = str(self.processes.rank)
        try:
            if self.store is None or self._ask("compare_set", "speaker", "", rank) == rank.encode():
                self.speaks = True
                return True
            until = time.monotonic() + patience
            while not self._ask("check", ["spoken"]) and time.monotonic() < until:
                time.sleep(_PAUSE)
        except OSError:
            return True  # nobody else can be asked
        return False

    def leave(self) -> None:
        """Say that nothing more will be asked; whoever keeps the store stays a little for those that have not."""
        atexit.unregister(self.leave)
        if self.store is None:
            return
        with suppress(OSError):
            if self.speaks:
                self._ask("set", "spoken", "")
            left = self._ask("add", "left", 1)
            until = time.monotonic() + _COURTESY
            while self.processes.is_first and left < self.processes.size and time.monotonic() < until:
                time.sleep(_PAUSE)
                left = self._ask("add", "left", 0)
        self.store = None

    def _come(self, where: str, seconds: float, waits: bool) -> None:
        """Count this process, and if it `waits`, return when all are counted; SystemExit if one has met an error."""
        if self.store is None:
            return
        came, size, until = self._ask("add", where, 1), self.processes.size, time.monotonic() + seconds
        while waits and came < size:
            if self._ask("check", ["speaker"]):
                raise SystemExit(FAILED)
            if time.monotonic() > until:
                raise OSError(
                    f"{came} of WORLD_SIZE={size} processes were {where} within {seconds:g} s; start them all, with "
                    "the same MASTER_ADDR and MASTER_PORT, and see what the others say"
                )
            time.sleep(_PAUSE)
            came = self._ask("add", where, 0)

    def _ask(self, question: str, *words: Any) -> Any:
        """The store's answer. Raises OSError if it is gone."""
        try:
            return getattr(self.store, question)(*words)
        except RuntimeError as error:
            raise OSError(
                f"process {self.processes.rank} of {self.processes.size} has lost the others (MASTER_ADDR="
                f"{os.environ.get('MASTER_ADDR')}): torchrun or the first process has ended; see what it said, and "
                "start all again"
            ) from error


def _open_store(processes: Processes, seconds: float) -> Any:
    """The store, whose place torchrun's variables tell. Raises ValueError on a bad place, OSError if nobody answers
    there within `seconds`, or the first process cannot listen there."""
    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    address, text = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= port < 1 << 16:
        raise ValueError(f"MASTER_PORT={text}: not a port, 1 to 65535; start the command with torchrun, or set it")
    try:
        if not address.strip():
            raise OSError("empty")
        socket.getaddrinfo(address, port)
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"MASTER_ADDR={address}: not the name or number of a machine that is known here; start the command with "
            "torchrun, or set it to where the first process runs"
        ) from error
    keeps = processes.is_first and os.environ.get(_KEPT) != "True"
    # torch would retry in many lines, and cannot be interrupted: it is called once there is an answer.
    if keeps:
        _check_free(port)
    else:
        _check_answer(processes, address, port, seconds)
    try:
        host = "localhost" if keeps else address
        timeout = timedelta(seconds=60)
        store = TCPStore(host, port, None, keeps, timeout, wait_for_workers=False)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise OSError(
            f"MASTER_ADDR={address}, MASTER_PORT={port}: no store of torch's there ({reason}); choose another port"
        ) from error
    return PrefixStore(f"weakorder {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _check_free(port: int) -> None:
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise OSError(
            f"MASTER_PORT={port}: the first process cannot listen there ({os.strerror(error.errno or 0)}); choose a "
            "free port"
        ) from error


def _check_answer(processes: Processes, address: str, port: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((address, port), timeout=min(5.0, seconds)).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise OSError(
                    f"process {processes.rank} of {processes.size}: nobody answers at MASTER_ADDR={address}, "
                    f"MASTER_PORT={port} ({error.strerror or error}, for {seconds:g} s); start the first process "
                    "there, or correct them"
                ) from error
        time.sleep(_PAUSE)
