"""Jobs side by side: the same results in any number of processes, and one failure that ends them all."""

from __future__ import annotations

import multiprocessing
import operator
import os
import subprocess
import sys
import time

import pytest
from weakorder.reports.pages.jobs import Jobs


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_those_of_the_calls_and_progress_sees_each(workers: int) -> None:
    jobs, seen = Jobs(), []
    asked = [jobs.add(operator.pow, base, 2) for base in range(5)]
    here = jobs.add(lambda: os.getpid(), here=True)

    def progress(items):
        assert len(items) == 6
        for item in items:
            seen.append(item)
            yield item

    jobs.run(progress, workers)
    assert [job.result for job in asked] == [0, 1, 4, 9, 16]
    assert here.result == os.getpid()
    assert len(seen) == 6


def test_two_workers_are_two_processes_and_neither_is_this_one() -> None:
    jobs = Jobs()
    asked = [jobs.add(os.getpid), jobs.add(time.sleep, 0.1), jobs.add(os.getpid)]
    jobs.run(workers=2)
    assert os.getpid() not in {asked[0].result, asked[2].result}
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_call_raises_ends_the_others_and_is_raised(workers: int) -> None:
    jobs = Jobs()
    jobs.add(operator.truediv, 1, 0)
    jobs.add(time.sleep, 60)
    jobs.add(time.sleep, 60)
    start = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        jobs.run(workers=workers)
    assert time.monotonic() - start < 50
    assert multiprocessing.active_children() == []


def test_workers_that_end_leave_no_lock_behind(tmp_path) -> None:
    """Claim: a bar of a library makes a lock in each process; where that is killed, Python complains at the end, every
    other time."""
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n"
        "from weakorder.reports.pages.jobs import Workers\n"
        "kept = []\n"
        "def lock(k):\n"
        "    kept.append(multiprocessing.RLock())\n"
        "    return k\n"
        "if __name__ == '__main__':\n"
        "    for _ in range(10):\n"
        "        with Workers(2) as workers:\n"
        "            assert len(list(workers.answers([(k, lock, (k,)) for k in range(4)]))) == 4\n"
    )
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
