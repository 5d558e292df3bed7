"""Time grids: names, expressions and given times are families that an order can be measured on; the rest is refused."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weakorder.integrators.catalogue import CATALOGUE, POSITION
from weakorder.integrators.grids import FILES, GRIDS, check_name, label, read_times, steps_of, time_grid
from weakorder.reports.commands.cli import main
from weakorder.theory.model import Parameters
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.exact.order import study_order
from weakorder.verification.targets import GaussianTarget
from weakorder.verification.verdicts.verdict import Verdict

PARAMS = Parameters()
SPAN = PARAMS.T - PARAMS.eps
TIMES = (0.0, 0.2, 0.45, 0.7, 0.85, 0.95, SPAN)
TEXT = ", ".join(map(repr, TIMES))

# Expressions, and what they are, written again with Python's own functions.
EXPRESSIONS = {
    "s": lambda s: s,
    "1 - (1 - s)**3": lambda s: 1 - (1 - s) ** 3,
    "(exp(3*s) - 1)/(exp(3) - 1)": lambda s: math.expm1(3 * s) / math.expm1(3),
    "sin(pi*s/2)": lambda s: math.sin(math.pi * s / 2),
    "1 - cos(pi*s/2)": lambda s: 1 - math.cos(math.pi * s / 2),
    "sqrt(s)": math.sqrt,
    "log(1 + s)/log(2)": lambda s: math.log1p(s) / math.log(2),
    "+s**2*-1*-1": lambda s: s * s,
}


@pytest.mark.parametrize("text", EXPRESSIONS)
@given(steps=st.integers(1, 300))
def test_an_expression_is_its_formula_at_i_over_n(text: str, steps: int) -> None:
    taus = time_grid(text, steps, PARAMS)
    expected = [SPAN * EXPRESSIONS[text](i / steps) for i in range(steps + 1)]
    np.testing.assert_allclose(taus, expected, rtol=0, atol=1e-15)
    assert taus[0] == 0
    assert taus[-1] == SPAN


@pytest.mark.parametrize("name", GRIDS)
def test_the_named_grids_are_their_own_formulas(name: str) -> None:
    """The docstring's g, as expressions."""
    text = {"uniform": "s", "quadratic": "1 - (1 - s)**2"}[name]
    np.testing.assert_allclose(time_grid(name, 37, PARAMS), time_grid(text, 37, PARAMS), rtol=0, atol=1e-15)


def test_given_times_are_taken_as_they_are_by_as_many_steps() -> None:
    np.testing.assert_allclose(time_grid(TEXT, len(TIMES) - 1, PARAMS), TIMES, rtol=1e-15)
    assert steps_of(TEXT) == len(TIMES) - 1
    assert steps_of("quadratic") is steps_of("s**2") is None
    assert label(TEXT) == "7 given times"
    assert label("s**2") == "s**2"


@st.composite
def given_times(draw: st.DrawFn) -> list[float]:
    gaps = draw(st.lists(st.integers(1, 1000), min_size=1, max_size=12))
    total = Fraction(sum(gaps))
    return [float(SPAN * float(sum(gaps[:k]) / total)) for k in range(len(gaps) + 1)]


@given(times=given_times(), factor=st.integers(1, 40), steps=st.integers(1, 200))
def test_given_times_are_met_by_their_refinements_and_kept_in_order_by_all(
    times: list[float], factor: int, steps: int
) -> None:
    text = ", ".join(map(repr, times))
    fine = time_grid(text, factor * (len(times) - 1), PARAMS)
    np.testing.assert_allclose(fine[::factor], times, rtol=1e-14)
    assert (np.diff(time_grid(text, steps, PARAMS)) > 0).all()


@pytest.mark.parametrize("grid", ["1 - (1 - s)**3", "(exp(3*s) - 1)/(exp(3) - 1)", TEXT])
@pytest.mark.parametrize("scheme", ["ROBA", "RVV"])
def test_an_order_is_measured_on_the_users_grids(grid: str, scheme: str) -> None:
    study = study_order(CATALOGUE[scheme], PARAMS, grid=grid)
    assert study.verdict is Verdict.PASS, study.reason


def test_a_grid_that_stays_coarse_somewhere_does_not_pass() -> None:
    """The broken variant: refined on one side only, a run does not converge."""
    half = ", ".join(map(repr, [0.0, *np.linspace(0.6, 0.9, 400)[:-1].tolist(), 0.9]))
    coarse = [time_grid(half, steps, PARAMS, 0.1)[1] for steps in (100, 200, 400)]
    assert coarse[-1] > 0.5, "the given times themselves"
    study = study_order(CATALOGUE["ROBA"], PARAMS, steps=(50, 100, 200, 400), grid=half)
    assert study.verdict is not Verdict.PASS


REFUSED = {
    "": "is unknown; choose uniform, quadratic, an expression",
    "foo": "is unknown; choose uniform, quadratic, an expression",
    "0 0.5": "is unknown; choose uniform",
    "2*s": "runs from 0 to 2; it must be 0 at s = 0 and 1 at s = 1",
    "1 - s": "runs from 1 to 0",
    "sin(2*pi*s) + s": "does not increase from s = 0.27",
    "s**200": "does not increase from s = 0 on",
    "log(s)": "is not a finite number at s = 0",
    "9**9**9**9**9*s": "is not a finite number",
    "9" * 400 + "*s": "is unknown",
    "s" * 600: "is 600 letters long",
    "s^2": r"holds 's \^ 2'; an expression has s, numbers",
    "t": "is unknown",
    "s + t": "holds 't'",
    "True": "holds 'True'",
    "s*1j": "holds '1j'",
    "'a'": "holds \"'a'\"",
    "s.real": "holds 's.real'",
    "s[0]": r"holds 's\[0\]'",
    "[s for s in s]": "holds",
    "(lambda: s)()": "holds",
    "__import__('os').system('true')": "holds",
    "exp(s, s)": "holds",
    "exp(x=s)": "holds",
    "abs(s)": "holds 'abs",
    "s is 1": "holds",
    "I*s": "is complex",
    "0": "runs from 0 to 0",
    "0,": "1 times make no step",
    "0, 0.5, nan": "tau_2 is not a finite number",
    "1, 0.5, 0.001": "decrease from 1 to 0.001, as t does; give tau = T - t",
    "0.1, 0.5, 0.999": "begin at 0.1; give tau = T - t, which begins at 0",
    "0, 0.5, 0.5, 0.999": "tau_2 = 0.5 after tau_1 = 0.5: a grid must increase",
    "0, 0.5, 0.99": r"end at 0.99, and the run at T - eps = 0.999; give times up to there, or eps = 0.01",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_grid_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[text]) as caught:
        time_grid(text, 10, PARAMS)
    assert "\n" not in str(caught.value)


def write(path: Path, times: tuple[float, ...]) -> Path:
    if path.suffix == ".npy":
        np.save(path, np.array(times))
    elif path.suffix == ".json":
        path.write_text(json.dumps(times))
    else:
        path.write_text("# tau\n" + "\n".join(map(repr, times[:3])) + "  # more\n" + ", ".join(map(repr, times[3:])))
    return path


@pytest.mark.parametrize("suffix", [*FILES, ".csv"])
def test_a_file_of_times_is_a_grid_of_every_format(suffix: str, tmp_path: Path) -> None:
    assert read_times(write(tmp_path / f"taus{suffix}", TIMES)) == TEXT


def test_a_file_in_float32_still_ends_where_the_run_does(tmp_path: Path) -> None:
    np.save(tmp_path / "taus.npy", np.array(TIMES, dtype=np.float32))
    assert time_grid(read_times(tmp_path / "taus.npy"), 6, PARAMS)[-1] == SPAN


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "0 times make no step"),
        ("a.txt", b"zero one", r"holds no times \(.*\); write them as"),
        ("a.txt", b"\xff\xfe\x00", "holds no times"),
        ("a.txt", b"1 0.5 0.001", "decrease from 1"),
        ("a.json", b'{"a": 1}', "holds no times"),
        ("a.json", b"[[0, 1], [2, 3]]", r"an array of shape \(2, 2\)"),
        ("a.json", b"[0, [1]]", "holds no times"),
        ("a.json", b"[0, NaN]", "is not a finite number"),
        ("a.json", b"", "holds no times"),
        ("a.json", b"[" * 100000, "holds no times"),
        ("a.npy", b"", "holds no times"),
        ("a.npy", b"no array", "holds no times"),
    ],
)
def test_a_file_without_times_is_named_with_what_to_write(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_times(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


# --- On the command line ---


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["weakorder", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_every_command_with_a_grid_takes_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path / "taus.txt", TIMES))
    code, out, _ = said(monkeypatch, capsys, "moments", "ROBA", "--grid", path)
    assert (code, "6 steps (7 given times)" in out) == (0, True)
    code, out, _ = said(monkeypatch, capsys, "moments", "ROBA", "--grid", "s**2", "--steps", "9")
    assert (code, "9 steps (s**2)" in out) == (0, True)
    code, out, _ = said(monkeypatch, capsys, "stability", "ROBA", "--grid", path, "--steps", "40")
    assert (code, "40 steps (7 given times)" in out) == (0, True)
    code, out, _ = said(monkeypatch, capsys, "verify", "ROBA", "--grid", path)
    assert (code, "on the grid 7 given times" in out) == (0, True)
    code, out, _ = said(
        monkeypatch, capsys, "verify", "ROBA", "--grid", path, "--target", "mixture", "--steps", "4,8,16,32"
    )
    assert code in (0, 3)


@pytest.mark.parametrize("grid", ["foo", "2*s", "nowhere.txt", "", "."])
@pytest.mark.parametrize(
    "words", [("moments", "ROBA"), ("verify", "ROBA"), ("stability", "ROBA"), ("cifar10", "study")]
)
def test_a_bad_grid_is_one_line_with_exit_code_2(
    words: tuple[str, ...],
    grid: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = said(monkeypatch, capsys, *words, "--grid", grid)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "report this" not in err


def test_a_name_is_checked_without_a_run() -> None:
    check_name("uniform")
    check_name("s**2")
    with pytest.raises(ValueError, match="unknown"):
        check_name("foo")


@pytest.mark.parametrize("name", ["uniform", "quadratic", "1 - (1 - s)**3"])
@pytest.mark.parametrize("steps", [1, 2, 9, 100])
def test_a_graded_grid_cuts_the_first_step_in_halves_towards_its_beginning(name: str, steps: int) -> None:
    cuts = math.ceil(math.log2(steps))
    plain, graded = time_grid(name, steps - cuts, PARAMS), time_grid(f"graded {name}", steps, PARAMS)
    assert len(graded) == steps + 1
    np.testing.assert_array_equal(graded[cuts + 1 :], plain[1:])
    lengths = np.diff(graded)[: cuts + 1]
    np.testing.assert_allclose(lengths[1:], lengths[0] * 2.0 ** np.arange(cuts), rtol=1e-12)
    assert label(f"graded {name}") == f"graded {name}"


def test_a_graded_grid_is_refused_where_its_grid_is() -> None:
    with pytest.raises(ValueError, match="nothing"):
        time_grid("graded nothing", 10, PARAMS)


# --- On a path --------------------------------------------------------------------------------------------------------

VP = POSITION["vp-DDIM"].splitting.diffusion
LINEAR = VP.parameters()
# Times of paths, written again from the ratio r of noise to data.
TIME_OF_RATIO = {
    "edm": lambda r: r,
    "flow": lambda r: r / (1 + r),
    "ve": lambda r: np.log(r / 0.01) / np.log(5000.0),
}


def _times_on(path: str, name: str, steps: int, params: Parameters) -> np.ndarray:
    tau = time_grid(name, steps, params, 0.05)
    t = params.T - tau
    return TIME_OF_RATIO[path](np.sqrt(np.expm1(params.theta(t, t))))


@pytest.mark.parametrize("params", [LINEAR, Parameters(beta_min=15.0, beta_max=1.0)], ids=["rising", "falling"])
@pytest.mark.parametrize("path", TIME_OF_RATIO)
def test_steps_on_a_path_are_spaced_in_its_own_time(path: str, params: Parameters) -> None:
    times = _times_on(path, f"uniform on {path}", 40, params)
    np.testing.assert_allclose(np.diff(times), (times[-1] - times[0]) / 40, rtol=1e-8)
    squared = _times_on(path, f"s**2 on {path}", 40, params)
    np.testing.assert_allclose(squared, times[0] + (times[-1] - times[0]) * (np.arange(41) / 40) ** 2, rtol=1e-9)
    tau = time_grid(f"uniform on {path}", 40, params, 0.05)
    assert (tau[0], tau[-1]) == (0, params.T - 0.05)


def test_grids_in_sigma_are_the_published_ones() -> None:
    """Karras et al. 2022, equation 5, with rho = 7; and equal steps of log sigma."""
    sigma = _times_on("edm", "karras on edm", 30, LINEAR)
    by_hand = (sigma[0] ** (1 / 7) + np.arange(31) / 30 * (sigma[-1] ** (1 / 7) - sigma[0] ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigma, by_hand, rtol=1e-9)
    logs = np.log(_times_on("edm", "exponential on edm", 30, LINEAR))
    np.testing.assert_allclose(np.diff(logs), (logs[-1] - logs[0]) / 30, rtol=1e-8)
    assert np.ptp(np.diff(np.log(sigma))) > 0.1


def test_ddim_on_rectified_flows_grid_is_eulers_method_on_rectified_flow() -> None:
    """By hand: dx/dt = E[eps - x_0 | x], from near pure noise down, for data N(0, 4); in the units of vp x is divided
    by (alpha^2 + sigma^2)^(1/2). On another path's grid it is another run."""

    def euler(times: np.ndarray) -> float:
        scale = 1.0
        for t, to in itertools.pairwise(times):
            total = 4 * (1 - t) ** 2 + t**2
            scale *= 1 + (to - t) * (t - 4 * (1 - t)) / total
        return scale

    times = _times_on("flow", "uniform on flow", 20, LINEAR)
    start, end = (4 * (1 - t) ** 2 + t**2 for t in (times[0], times[-1]))
    by_hand = start * euler(times) ** 2 / ((1 - times[-1]) ** 2 + times[-1] ** 2)
    target = GaussianTarget.of(0.0, 4.0, VP, LINEAR)

    def variance(grid: str) -> float:
        taus = time_grid(grid, 20, LINEAR, 0.05)
        return float(exact_moments(POSITION["vp-DDIM"], target, taus).computed.cov[0, 0, 0])

    assert variance("uniform on flow") == pytest.approx(by_hand, rel=1e-9)
    assert abs(variance("uniform on cosine") / by_hand - 1) > 1e-3
    assert abs(by_hand / (end / ((1 - times[-1]) ** 2 + times[-1] ** 2)) - 1) > 1e-3  # it is no exact run


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("uniform on edn", "'edn': the paths are vp, sub-vp, ve, edm, cosine, flow"),
        ("0, 0.5, 0.999 on edm", "they are the diffusion's own"),
        ("s**2 - 1 on flow", "it must be 0 at s = 0"),
        ("karass on edm", "grid 'karass' is unknown"),
    ],
)
def test_grids_on_paths_that_are_none_are_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        check_name(name)


def test_a_path_that_has_not_as_little_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="on the path 've' log"):
        time_grid("uniform on ve", 10, LINEAR, 1e-5)
