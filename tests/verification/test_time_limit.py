"""A time limit stops whatever runs; the levels done by then are judged, and the answer says so.

The alarm is mostly raised by the sampler itself, at a run of its own choosing: what is tested does not depend on how
fast the machine is.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from weakorder.reports.commands import waiting
from weakorder.reports.commands.cli import main
from weakorder.reports.commands.waiting import Waiting
from weakorder.verification.testing import assert_weak_order
from weakorder.verification.time_limit import TimeUp, completed, duration, forecast, time_limit

# An alarm within Hypothesis's callback of the garbage collector is lost there, with a warning; the next one is not.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*gc_callback:pytest.PytestUnraisableExceptionWarning"
)

SAMPLER = """
import signal
import time
import torch

FACTOR = 1.0
ALARM = {alarm}  # whether the alarm interrupts a step of length h

def step(u, tau, h, score):
    if ALARM(h):
        try:
            {interrupted}
        except Exception:
            return u  # what a careless sampler does with all it catches
    x, m = u.unbind(1)
    s_x, s_m = score(u, 1 - tau).unbind(1)
    drift = torch.stack([4 * (0.01 * x - 4 * m + 0.02 * s_x), 4 * (x + 4.01 * m + 2.005 * s_m)], dim=1)
    scale = torch.tensor([0.08, 8.02], dtype=u.dtype).sqrt().reshape(2, *(1,) * (u.ndim - 2))
    return u + h * drift + FACTOR * h**0.5 * scale * torch.randn_like(u)
"""
LEVELS = "25,50,100,200,400"
NOW = "signal.raise_signal(signal.SIGALRM)"
ALWAYS = "lambda h: True"


def at(level: int) -> str:
    """The alarm in the steps of this level, whose length no other part of a study uses."""
    return f"lambda h: abs(h - 0.9 / {level}) < 1e-9"


def source(alarm: str, interrupted: str = NOW, factor: float = 1.0) -> str:
    text = SAMPLER.replace("{alarm}", alarm).replace("{interrupted}", interrupted)
    return text.replace("FACTOR = 1.0", f"FACTOR = {factor}")


def write(folder: Path, alarm: str, interrupted: str = NOW, factor: float = 1.0) -> str:
    (folder / "slow.py").write_text(source(alarm, interrupted, factor))
    return f"{folder / 'slow.py'}:step"


def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["weakorder", "verify", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture(autouse=True)
def _no_alarm_is_left() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


# --- The answer ---


def test_levels_that_suffice_are_judged_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--steps", LEVELS, "--time-limit", "1000")
    code, out, _ = verify(monkeypatch, capsys, write(tmp_path, at(400)), *words)
    assert (code, "PASS" in out) == (0, True), out
    assert "the time limit of 1000 s was reached after 4 of 5 numbers of steps, at 200; the others would take" in out
    code, out, _ = verify(monkeypatch, capsys, write(tmp_path, at(800)), *words)
    assert (code, "time limit" in out) == (0, False), out


def test_fewer_levels_conclude_nothing_and_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--steps", LEVELS, "--time-limit", "1000", "--json")
    code, out, _ = verify(monkeypatch, capsys, write(tmp_path, at(100)), *words)
    answer = json.loads(out)
    assert (code, answer["verdict"]) == (3, "INCONCLUSIVE")
    assert [level["steps"] for level in answer["levels"]] == [25, 50]
    assert "after 2 of 5 numbers of steps, at 50; " in answer["reason"]
    assert answer["reason"].endswith("4 are needed for an order")
    assert "more steps" not in answer["reason"], "time is what it lacks"


def test_a_wrong_sampler_still_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its steps show needs no level; the right sampler beside it, above, passes."""
    words = ("--steps", LEVELS, "--time-limit", "1000")
    code, out, _ = verify(monkeypatch, capsys, write(tmp_path, at(400), factor=1.02), *words)
    assert (code, "FAIL" in out) == (1, True), out


@pytest.mark.nightly
def test_a_baseline_that_is_not_whole_is_neither_written_nor_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claim: exit code 3 and one line; an older file stays as it is."""
    box, file = write(tmp_path, "lambda h: False"), str(tmp_path / "b.json")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["weakorder", "baseline", *words, "--time-limit", "1000"])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    code, out, _ = run("record", box, "-o", file, "--steps", "10,20,40,80")
    assert (code, out.startswith("wrote")) == (0, True)
    before = Path(file).read_text()
    write(tmp_path, at(40))
    for words, otherwise in (
        (("record", box, "-o", file, "--steps", "10,20,40,80"), "nothing was written"),
        (("check", box, file), "nothing was compared"),
    ):
        code, out, err = run(*words)
        assert (code, out, err.count("\n")) == (3, "", 1), err
        assert "the time limit of 1000 s was reached after 2 of 4 numbers of steps" in err
        assert err.endswith(f"{otherwise}\n")
    assert Path(file).read_text() == before


def test_before_the_first_level_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--steps", LEVELS, "--time-limit", "1000")
    code, out, _ = verify(monkeypatch, capsys, write(tmp_path, ALWAYS), *words)
    assert code == 3
    assert "the time limit of 1000 s was reached before the first number of steps was done; allow more" in out
    code, out, _ = verify(monkeypatch, capsys, write(tmp_path, ALWAYS), *words, "--json")
    assert (json.loads(out)["verdict"], json.loads(out)["levels"]) == ("INCONCLUSIVE", [])


@pytest.mark.parametrize("interrupted", ["time.sleep(600)", "exec('while True: pass')"])
def test_time_itself_ends_a_sampler_that_says_nothing(
    interrupted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    code, out, _ = verify(monkeypatch, capsys, write(tmp_path, ALWAYS, interrupted), "--time-limit", "0.5")
    assert (code, "0.5 s was reached" in out) == (3, True)
    assert time.monotonic() - begun < 300


@pytest.mark.nightly
def test_a_sampler_that_catches_everything_is_stopped_by_the_next_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(tmp_path, ALWAYS, "time.sleep(600)")
    path = tmp_path / "slow.py"
    path.write_text(
        path.read_text().replace(
            "except Exception:\n            return u", "except BaseException:\n            time.sleep(600)"
        )
    )
    code, out, _ = verify(monkeypatch, capsys, spec, "--time-limit", "0.5")
    assert (code, "0.5 s was reached" in out) == (3, True)


@pytest.mark.parametrize("target", [(), ("--target", "mixture")])
def test_schemes_have_the_limit_too(
    target: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = verify(monkeypatch, capsys, "ROBA", *target, "--time-limit", "1e-4")
    assert (code, "0.0001 s was reached" in out) == (3, True)
    code, out, _ = verify(monkeypatch, capsys, "ROBA", "--time-limit", "1000")
    assert (code, "time limit" in out) == (0, False)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9", "soon", ""])
def test_a_limit_that_is_none_is_refused_in_one_line(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = verify(monkeypatch, capsys, "ROBA", "--time-limit", seconds)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "give seconds above 0, up to 1e+08, or none" in err or "is not a number" in err


def test_the_assertion_has_the_limit_too() -> None:
    levels = (25, 50, 100, 200, 400)
    for alarm, message in (
        (at(100), r"INCONCLUSIVE, the time limit of 1000 s .* 2 of 5 .*"),
        (ALWAYS, r"INCONCLUSIVE, .* before the first number of steps"),
    ):
        names: dict[str, Any] = {}
        exec(source(alarm), names)
        with pytest.raises(AssertionError, match=message):
            assert_weak_order(names["step"], steps=levels, time_limit=1000)
    exec(source(at(400)), names)
    assert_weak_order(names["step"], steps=levels, time_limit=1000)


# --- The alarm ---


def test_an_alarm_that_was_set_before_goes_on_afterwards() -> None:
    rung: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with time_limit(500):
            assert signal.getitimer(signal.ITIMER_REAL)[0] <= 500
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
        signal.raise_signal(signal.SIGALRM)
        assert rung == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_without_an_alarm_the_limit_is_looked_at_between_levels() -> None:
    done: list[dict[int, int]] = []

    def work() -> None:
        with time_limit(1e-9) as limit, pytest.raises(TimeUp):
            completed(lambda n: n, (1, 2))
        with time_limit(1000) as limit:
            done.append(completed(lambda n: setattr(limit, "begun", -math.inf) or n, (1, 2, 3)))
            assert limit.was_reached

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [{1: 1}]


def test_without_a_limit_all_is_done() -> None:
    with time_limit(None) as limit:
        assert completed(lambda n: n * n, (1, 2, 3)) == {1: 1, 2: 4, 3: 9}
    assert not limit.was_reached
    assert completed(lambda n: n, (5,)) == {5: 5}


# --- How long it takes ---


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_time_left_follows_the_power_of_the_levels_done(power: float) -> None:
    levels = (25, 50, 100, 200, 400)
    seconds = [3 * (n / 25) ** power for n in levels]
    assert forecast(levels, seconds[:3]) == pytest.approx(seconds[3:])
    assert forecast(levels, seconds) == []


def test_the_time_left_is_bounded_where_durations_are_odd_and_unknown_without_any() -> None:
    assert forecast((10, 20, 40), [5.0, 1.0]) == [2.0]
    assert forecast((10, 20, 40), [1e-3, 10.0]) == [40.0]
    assert forecast((10, 20, 40), [0.0, 1.0]) == [2.0]
    assert [math.isnan(value) for value in forecast((10, 20), [])] == [True, True]
    assert [duration(s) for s in (3.2, 99, 600, 7200, math.nan)] == [
        "3 s",
        "99 s",
        "10 min",
        "2.0 h",
        "an unknown time",
    ]


def test_a_log_is_told_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "FIRST", 0.05)
    told: list[str] = []
    with Waiting("verify", 600) as progress:
        while "single steps are taken apart" not in "".join(told):
            told.append(capsys.readouterr().err)
            time.sleep(0.01)
        for level in progress((10, 20, 40)):
            if level == 40:
                while "40 steps (3 of 3 runs), about" not in "".join(told):
                    told.append(capsys.readouterr().err)
                    time.sleep(0.01)
    assert "it stops after 10 min" in "".join(told)
    assert "\r" not in "".join(told)


def test_a_quick_study_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = verify(monkeypatch, capsys, "ROBA")
    assert err == ""


def test_a_terminal_has_one_line_that_is_cleared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "ON_TERMINAL", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    told = ""
    with Waiting("verify"):
        while "verify" not in told:
            told += capsys.readouterr().err
            time.sleep(0.01)
    told += capsys.readouterr().err
    assert "--time-limit SECONDS stops earlier" in told
    assert "\n" not in told
    assert told.endswith("\r\x1b[K")
