"""How `weakorder cifar10 study` ends: full disks, interrupts, other processes, memory, larger batches."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from study_command import Outcome, cells
from weakorder.verification import files
from weakorder.verification.cifar10.study import design as studies
from weakorder.verification.cifar10.study import sampling
from weakorder.verification.cifar10.study.cells import Cell
from weakorder.verification.cifar10.study.sampling import Batch, Samples, Store

FEW = ("--schemes", "SSCS", "--nfe", "3", "4", "--batch", "2", "--refinement", "0")


def test_a_full_disk_is_one_line_below_the_bar_and_what_was_sampled_is_kept(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(*FEW, "-n", "2").code == 0
    before = cells(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "_replace", full)
        patch.setattr(studies, "keep_batch", lambda *_: None)
        stopped = run(*FEW, "-n", "4")
    assert (stopped.code, stopped.out) == (2, "")
    assert stopped.err.startswith("\r"), "there is no bar to be closed"
    line = stopped.err.split("\n")[-2]
    assert line.startswith("weakorder: error: cannot write ")
    assert line.endswith(".npz': No space left on device; make room there, then repeat the command")
    assert cells(tmp_path) == before
    assert run(*FEW, "-n", "4").code == 0
    assert before.items() < cells(tmp_path).items()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.nightly), signal.SIGTERM])
def test_an_interrupted_study_ends_with_the_signals_code_and_keeps_what_is_complete(
    number: int, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save, came = Store.save, threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *words: Any, **options: Any) -> None:
            came.set()
            super().shutdown(*words, **options)

    def stopped(store: Store, cell: Cell, batch: Batch, samples: Samples) -> None:
        save(store, cell, batch, samples)
        os.kill(os.getpid(), number)
        assert came.wait(60), "the signal, which is the main thread's, stopped nothing"

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "ThreadPoolExecutor", Pool)
        patch.setattr(Store, "save", stopped)
        patch.setattr(studies, "available_threads", lambda: 1)  # of two, both may have a cell to save by then
        outcome = run(*FEW, "-n", "2")
    assert (outcome.code, outcome.out) == (128 + number, "")
    assert outcome.err.split("\n")[-2:] == ["weakorder: interrupted", ""]
    assert len(cells(tmp_path)) == 1
    assert [path.name for path in tmp_path.rglob(".*")] == [], "a file is half written"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert run(*FEW, "-n", "2").code == 0


@pytest.mark.parametrize(
    ("words", "of_the_second", "message"),
    [
        pytest.param(["--nfe", "x"], [], "'x' is not a list of ints", marks=pytest.mark.nightly),
        pytest.param(["--nfe", "1"], [], "budgets [1]", marks=pytest.mark.nightly),
        pytest.param(
            ["--schemes", "SSCS", "--nfe", "3"],
            ["--data", "nowhere.npz"],
            "'nowhere.npz': there is no such file",
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["words that cannot be read", "values that cannot be", "a file that one process does not have"],
)
def test_of_several_processes_one_tells_what_is_wrong_and_none_samples(
    words: list[str], of_the_second: list[str], message: str, tmp_path: Path
) -> None:
    script = tmp_path / "study.py"
    script.write_text(
        "import os, sys\nfrom weakorder.reports.commands.cli import main\n"
        f"sys.argv += {of_the_second!r} if os.environ['RANK'] == '1' else []\nmain()"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    run = subprocess.run(
        [*launcher, "cifar10", "study", *words, "-o", str(tmp_path / "study")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=300,
    )
    (line,) = (line for line in run.stderr.splitlines() if line.startswith("weakorder: "))
    assert message in line
    assert "evaluation/s" not in run.stderr
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.usefixtures("undrawn")
def test_a_study_after_a_trial_says_that_its_batches_are_larger(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "batch_size", lambda config, columns, samples, device: samples // 2)
    words = ("--schemes", "SSCS", "--nfe", "3", "--refinement", "0")
    assert "note" not in run(*words, "-n", "2").err
    assert "note: batches of 4, which is faster; those of 1" in run(*words, "-n", "8").err
    assert "note" not in run(*words, "-n", "8").err


def test_memory_that_is_too_small_is_one_line_with_the_cure(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee documentation")

    monkeypatch.setattr(studies, "sample", full)
    code, _, err = run(*FEW, "-n", "2")
    line = "weakorder: error: batch = 2: memory is too small (CUDA out of memory. Tried to allocate 20.00 MiB. See "
    assert (code, err) == (2, f"{line}documentation); choose a smaller --batch\n")
