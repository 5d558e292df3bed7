"""Baselines: the same sampler matches, however it is written, and what a change did is said as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from json_schemas import complaints
from published_step import PARAMS, euler_maruyama, with_fault
from weakorder.integrators.blackbox import as_black_box
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports.commands import cli
from weakorder.theory.model import Parameters
from weakorder.verification.blackbox import baseline as baselines
from weakorder.verification.blackbox.baseline import load, record, save
from weakorder.verification.blackbox.comparison import compare

STEPS = (25, 50, 100, 200)
FEW = (2, 4, 8, 16)  # for what does not come from the order study
BRIEF = (("uniform", 5), ("quadratic", 4))  # for what does not come from whole runs


@pytest.fixture(scope="module")
def recorded() -> dict:
    """Euler-Maruyama's."""
    return record("em", euler_maruyama, PARAMS, steps=STEPS)


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> dict:
    """The same with an order study of few steps, through its file."""
    path = tmp_path_factory.mktemp("baseline") / "em.json"
    save(record("em", euler_maruyama, PARAMS, steps=FEW), path)
    return load(path)


@pytest.fixture(scope="module")
def brief() -> dict:
    """The same with few whole runs, too."""
    return in_brief(euler_maruyama)


def in_brief(sampler, params: Parameters = PARAMS) -> dict:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(baselines, "RUNS", BRIEF)
        return record("em", sampler, params, steps=FEW)


def changes(before: dict, sampler) -> str:
    in_few = len(before["runs"]["of"]) == len(BRIEF)
    now = in_brief(sampler) if in_few else record("em", sampler, PARAMS, steps=before["order"]["steps"])
    return "\n".join(compare(before, now).lines)


def rewritten(u, tau, h, score):
    """The same step with its operations in another order, and its noise from four draws in float32."""
    beta, s = PARAMS.beta(1 - tau), score(u, 1 - tau)
    out = torch.empty_like(u)
    draws = [torch.randn(u[:, 0].shape).to(u.dtype) for _ in range(4)]
    xi = [0.6 * draws[0] + 0.8 * draws[1], (draws[2] - draws[3]) / 2**0.5]
    gain = 2 * np.array([PARAMS.gamma, PARAMS.M * PARAMS.nu])
    drift = PARAMS.gamma * u[:, 0] - PARAMS.M_inv * u[:, 1], u[:, 0] + PARAMS.nu * u[:, 1]
    for i in (0, 1):
        kick = h * beta / 2 * drift[i] + (h * beta / 2 * gain[i]) * s[:, i]
        out[:, i] = (gain[i] / 2 * beta * h) ** 0.5 * xi[i] + (u[:, i] + kick)
    return out


def test_a_baseline_is_as_its_schema_says(short) -> None:
    assert complaints("baseline", short) == []
    for change in ({"format": "weakorder baseline 1"}, {"mood": "good"}, {"short_runs": [{"taus": [0.0, 0.1]}]}):
        assert complaints("baseline", short | change) != []
    (run, *_) = short["short_runs"]
    assert complaints("baseline", short | {"short_runs": [run | {"score_gain_one": run["score_gain_1"]}]}) != []


def test_the_same_sampler_written_otherwise_matches(brief) -> None:
    assert compare(brief, in_brief(rewritten)).same


@pytest.mark.nightly
def test_a_word_and_its_black_box_match() -> None:
    word = record("sscs", CATALOGUE["SSCS"], PARAMS, steps=FEW)
    assert compare(word, record("sscs", as_black_box(CATALOGUE["SSCS"], PARAMS), PARAMS, steps=FEW)).same


def test_a_sampler_matches_its_own_baseline_through_check(short) -> None:
    assert baselines.check(short, euler_maruyama).same
    assert str(baselines.check(short, euler_maruyama)) == "em: as recorded"


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (
            {"score": lambda s: (1 + 1e-8) * s},
            "score gain 1 of m from s_m is 1.00000001 times what it was, at all times",
        ),
        (
            {"g_m": lambda g: 1.01 * g},
            "noise covariance of m and m is 1.0201 times what it was (its standard deviation 1.01",
        ),
        ({"t": lambda t: t - 1e-9}, "score 1 is conditioned at tau + "),
        ({"sign": lambda s: -s}, "propagator of x from x changes by up to"),
        ({"end": lambda u: u.float().double()}, "it now rounds to float32"),
    ],
)
def test_a_change_is_named_in_its_part_with_its_size(brief, faults, expected: str) -> None:
    assert expected in changes(brief, with_fault(**faults))


def test_how_a_change_scales_with_the_step_is_said(brief) -> None:
    def second_order(u, tau, h, score):
        return euler_maruyama(u, tau, h, score) + h**2 * u

    assert "of size h^2.0: the limit h -> 0 stays" in changes(brief, second_order)
    assert "of size h^1.0: the limit h -> 0 changes" in changes(brief, with_fault(score=lambda s: 2 * s))


def test_a_change_at_some_times_is_placed_there(brief) -> None:
    def late(u, tau, h, score):
        return with_fault(xi=(lambda xi: 2 * xi) if tau > 0.8 else (lambda xi: xi))(u, tau, h, score)

    assert "its standard deviation 2 times), at tau = 0.9; of size" in changes(brief, late)


@pytest.mark.nightly
def test_a_baseline_of_more_steps_is_as_its_schema_says(recorded) -> None:
    assert complaints("baseline", recorded) == []


@pytest.mark.nightly
def test_evaluations_orders_constants_and_verdicts_are_compared(recorded, short) -> None:
    found = changes(recorded, CATALOGUE["SSCS"])
    assert "NFE" not in found  # one evaluation a step, as before
    assert "the order stays; the error constant is" in found
    assert "better" in found
    assert "NFE: 75 score evaluations in 25 steps instead of 25" in changes(short, CATALOGUE["NOBAB"])
    broken = changes(recorded, with_fault(score=lambda s: 1.5 * s))
    assert "verify now says FAIL instead of PASS: not consistent: the gain of x from s_x is 1.5 times" in broken


@pytest.mark.nightly
def test_a_multistep_change_shows_where_more_than_one_step_is_taken() -> None:
    class TwoStep:
        """Euler-Maruyama with its score extrapolated from the last two evaluations, for steps of any ratio."""

        def __init__(self, ratio=lambda h, last: h / last) -> None:
            self.ratio = ratio

        def reset(self) -> None:
            self.last: torch.Tensor | None = None
            self.h = 0.0

        def __call__(self, u, tau, h, score):
            s = score(u, 1 - tau)
            ahead = s if self.last is None else s + self.ratio(h, self.h) / 2 * (s - self.last)
            self.last, self.h = s, h
            return euler_maruyama(u, tau, h, lambda v, t: ahead)

    before = record("two", TwoStep(), PARAMS, steps=FEW)
    found = compare(before, record("two", TwoStep(lambda h, last: 1.0), PARAMS, steps=FEW)).lines
    assert before["kind"] == "multistep"
    assert any("in runs of three unequal steps" in line for line in found)
    assert not any("at all times" in line for line in found)


def test_a_baseline_file_is_small_and_has_a_line_for_every_list(tmp_path: Path, short) -> None:
    save(short, tmp_path / "b.json")
    text = (tmp_path / "b.json").read_text()
    assert len(text) < 16384
    assert max(map(len, text.splitlines())) < 200
    assert json.loads(text) == short
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_a_baseline_does_not_depend_on_the_last_digits(brief) -> None:
    """What another machine would change, a few units of 1e-16, does not change the file but for its 13th digits."""
    again = in_brief(rewritten)
    for old, new in zip(brief["short_runs"], again["short_runs"], strict=True):
        for part in ("propagator", "score_gain_1", "noise_covariance"):
            np.testing.assert_allclose(new[part], old[part], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no baseline: JSONDecodeError"),
        ("{}", "no baseline of format"),
        ("[1]", "no baseline of format"),
        ('{"format": "weakorder baseline 0"}', "record it anew"),
        ('{"format": "weakorder baseline 2"}', "is no baseline: KeyError"),
        ('{"format": "weakorder baseline 2", "short_runs": [{"taus": [0, 1]}]}', "not this version's"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path / "bad.json")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="No such file"):
        load(tmp_path / "none.json")


def test_a_baseline_holds_its_parameters(brief) -> None:
    assert Parameters(**brief["parameters"]) == PARAMS
    other = in_brief(CATALOGUE["EM"], Parameters())
    assert not compare(brief, other).same


def _run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["weakorder", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), *capsys.readouterr()


def _box(folder: Path, name: str = "EM") -> str:
    """A file with a scheme of the catalogue."""
    (folder / "box.py").write_text(
        f"from weakorder.integrators.catalogue import CATALOGUE\nscheme = CATALOGUE[{name!r}]\n"
    )
    return f"{folder / 'box.py'}:scheme"


@pytest.mark.nightly
def test_the_command_line_says_the_verdict_with_what_it_records(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ("baseline", "record", _box(tmp_path), "-o", str(tmp_path / "b.json"), "--steps", "50,100,200,400")
    code, out, err = _run(monkeypatch, capsys, *words)
    assert (code, out.startswith(f"wrote {tmp_path / 'b.json'}: PASS, measured order 1.0"), err) == (0, True, "")


def test_the_command_line_records_and_checks(monkeypatch, capsys, tmp_path: Path) -> None:
    """Exit codes 0 as recorded, 1 changed, 2 bad input; a record of what fails is written with a warning."""
    file, box, few = tmp_path / "b.json", _box(tmp_path), ("--steps", "2,4,8,16")
    monkeypatch.setattr(baselines, "RUNS", BRIEF)
    code, out, err = _run(monkeypatch, capsys, "baseline", "record", box, "-o", str(file), *few)
    assert (code, out.startswith(f"wrote {file}: INCONCLUSIVE"), err) == (0, True, "")
    code, out, _ = _run(monkeypatch, capsys, "baseline", "check", box, str(file))
    assert (code, out) == (0, f"{box}: as recorded\n")
    _box(tmp_path, "SSCS")
    code, out, _ = _run(monkeypatch, capsys, "baseline", "check", box, str(file), "--json")
    assert (code, json.loads(out)["same"]) == (1, False)
    code, out, err = _run(monkeypatch, capsys, "baseline", "check", box, str(tmp_path / "none.json"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    code, out, err = _run(monkeypatch, capsys, "baseline", "record", box, "-o", str(tmp_path / "no" / "b.json"))
    assert (code, out) == (2, "")
    assert "make it first" in err
    code, _, err = _run(monkeypatch, capsys, "baseline", "record", "O S B A(1/2)", "-o", str(file), *few)
    assert code == 0
    assert "warning: verify says FAIL: not consistent" in err


@pytest.mark.nightly
def test_another_number_of_scores_is_compared_by_what_they_add_up_to(brief) -> None:
    """Claim: score k of one is not score k of the other; their sum has a limit, and it stays."""

    def half(u, tau, h, score):
        return euler_maruyama(u, tau, h, lambda v, t: (score(v, t) + score(v + h * v, t)) / 2)

    said = changes(brief, half)
    assert "NFE: " in said
    assert "is conditioned at" not in said
    assert "the limit h -> 0 changes" not in said
    assert "score gain in all of m from s_m is 1.01 times" in changes(
        brief, lambda u, tau, h, score: half(u, tau, h, lambda v, t: 1.01 * score(v, t))
    )
