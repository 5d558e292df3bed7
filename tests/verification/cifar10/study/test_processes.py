"""What torchrun tells a process, and how work is divided among processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed  # noqa: F401 (not first in a thread)
from weakorder.reports.commands import cli
from weakorder.verification.cifar10.study import processes
from weakorder.verification.cifar10.study.processes import Peers, Processes, from_environment, joined

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def environment(monkeypatch: pytest.MonkeyPatch, *values: str | None) -> None:
    for name, value in zip(NAMES, values, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, None, None, None, None)
    alone = from_environment()
    assert alone == Processes()
    assert alone.is_first
    with joined(alone) as peers:
        assert peers.agreed(7) == 7
        peers.wait()


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "3", "4", "1", "2")
    found = from_environment()
    assert found == Processes(3, 4, 1, 2)
    assert not found.is_first


@pytest.mark.parametrize(
    "values",
    [
        ("4", "4", "0", "1"),
        ("-1", "4", "0", "1"),
        ("one", "4", "0", "1"),
        ("0", None, "0", "1"),
        (None, "2", "0", "1"),
        ("0", "2", "1", "1"),
        ("0", "1", "0", "2"),
        ("0", "0", "0", "1"),
    ],
)
def test_variables_that_make_no_sense_are_refused(
    values: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, *values)
    with pytest.raises(ValueError, match="not what torchrun sets"):
        from_environment()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_item_is_one_processs(size: int) -> None:
    items = list(range(5))
    shares = [list(Processes(rank, size, 0, size).share(items)) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --- What they say to each other --------------------------------------------------------------------------------------


ends: dict[int, list[Callable[[], None]]] = {}  # by thread: what a process does when it exits


def end() -> None:
    for leave in ends.pop(threading.get_ident(), []):
        leave()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A free port, that the first process is to keep the store at; nobody waits for long."""
    with socket.create_server(("", 0)) as server:
        number = server.getsockname()[1]
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": str(number)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(processes, "START", 20.0)
    monkeypatch.setattr(processes.atexit, "register", lambda f: ends.setdefault(threading.get_ident(), []).append(f))
    yield number
    end()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that are processes to each other: they share nothing but the store."""
    with ThreadPoolExecutor(2) as threads:
        yield threads


def start(pool: ThreadPoolExecutor, rank: int, size: int, act: Callable[[Peers], Any]) -> Future[Any]:
    def process() -> Any:
        try:
            with joined(Processes(rank, size, rank, size)) as peers:
                return act(peers)
        finally:
            end()

    return pool.submit(process)


def test_all_have_the_first_ones_value_and_the_first_waits_for_all(port: int, pool: ThreadPoolExecutor) -> None:
    came = []

    def late(peers: Peers) -> int:
        value = peers.agreed(2)
        time.sleep(0.5)
        came.append(2)
        peers.wait()
        return value

    other = start(pool, 1, 2, late)
    with joined(Processes(0, 2, 0, 2)) as peers:
        assert peers.agreed(1) == 1
        peers.wait()
        assert came == [2]
    assert other.result() == 1


@pytest.mark.parametrize("wrong", [{0}, {1}, {0, 1}])
def test_an_error_is_one_processs_to_tell_and_ends_the_others(
    wrong: set[int], port: int, pool: ThreadPoolExecutor
) -> None:
    def act(peers: Peers) -> None:
        if peers.processes.rank in wrong:
            raise ValueError("no such file")
        peers.agreed(1)

    began = time.monotonic()
    found = [future.exception() for future in [start(pool, rank, 2, act) for rank in (0, 1)]]
    assert time.monotonic() - began < processes.START, "it hung"
    told = [rank for rank, error in enumerate(found) if isinstance(error, ValueError)]
    ended = [error.code for error in found if isinstance(error, SystemExit)]
    assert len(told) == 1
    assert set(told) <= wrong
    assert ended == [2]


def test_a_first_process_that_waits_for_its_peers_ends_when_it_is_interrupted(
    port: int, pool: ThreadPoolExecutor
) -> None:
    """As a barrier of torch's does not: it waits where no signal reaches Python."""
    free = threading.Event()

    def slow(peers: Peers) -> None:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)
        assert free.wait(60)

    other = start(pool, 1, 2, slow)
    with pytest.raises(KeyboardInterrupt), joined(Processes(0, 2, 0, 2)) as peers:  # noqa: PT012
        began = time.monotonic()
        peers.wait()
    assert time.monotonic() - began < 10
    free.set()
    other.result()


def command(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    environment(monkeypatch, str(rank), "2", str(rank), "2")
    monkeypatch.setattr(sys, "argv", ["weakorder", "cifar10", "study", "--nfe", "1"])
    cli.main()


@pytest.mark.parametrize(
    ("rank", "address", "number", "message"),
    [
        (0, "localhost", "port", "MASTER_PORT=port: not a port, 1 to 65535; start the command with torchrun"),
        (1, "localhost", "99999", "MASTER_PORT=99999: not a port"),
        (1, "localhost", "-1", "MASTER_PORT=-1: not a port"),
        (0, "", "29500", "MASTER_ADDR=: not the name or number of a machine"),
        (0, "no.such.machine.invalid", "29500", "MASTER_ADDR=no.such.machine.invalid: not the name"),
        (1, "a..b", "29500", "MASTER_ADDR=a..b: not the name"),
    ],
)
def test_a_place_of_the_store_that_makes_no_sense_is_one_line(
    rank: int,
    address: str,
    number: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MASTER_ADDR", address)
    monkeypatch.setenv("MASTER_PORT", number)
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, rank)
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"weakorder: error: {message}")


def test_a_store_that_does_not_answer_or_peers_that_do_not_come_are_one_line(
    port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "START", 0.3)
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, 1)
    assert capfd.readouterr().err == (
        f"weakorder: error: process 1 of 2: nobody answers at MASTER_ADDR=localhost, MASTER_PORT={port} (Connection "
        "refused, for 0.3 s); start the first process there, or correct them\n"
    )
    monkeypatch.setattr(processes, "_COURTESY", 0.1)
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, 0)
    line = "weakorder: error: 1 of WORLD_SIZE=2 processes were started within 0.3 s; start them all"
    assert capfd.readouterr().err.startswith(line)


def test_a_port_that_is_taken_is_one_line(
    monkeypatch: pytest.MonkeyPatch, port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("", port)), pytest.raises(SystemExit, match="2"):
        command(monkeypatch, 0)
    assert capfd.readouterr().err == (
        f"weakorder: error: MASTER_PORT={port}: the first process cannot listen there (Address already in use); choose "
        "a free port\n"
    )
