"""The worked examples are the catalogue's schemes, have the order that they claim, and verify as they are."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from selection import nightly_but
from weakorder.integrators.blackbox import BlackBoxError
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.reports.commands import cli
from weakorder.theory.model import PSLD_DIFFUSION, Parameters
from weakorder.verification.blackbox.mutation import EXAMPLES, MODELS, bases
from weakorder.verification.blackbox.probing import ProbedStep, probed_trajectory
from weakorder.verification.blackbox.study import study_black_box
from weakorder.verification.exact.moments import AffineMap, step_maps
from weakorder.verification.exact.order import gaussian_targets
from weakorder.verification.verdicts.algebra import Array
from weakorder.verification.verdicts.verdict import Verdict

WORDS = {"sscs": "SSCS", "oba": "ROBA", "naive_oba": "NOBA", "robab": "ROBAB", "verlet": "RVV"}
STEPS = ((0.0, 0.02), (0.3, 0.1), (0.89, 0.01))
# Products of some ten 2x2 matrices with entries of size 1 to 100 lose a few digits of sixteen, far fewer than four.
TOLERANCE = 1e-12


def _distance(one: AffineMap, other: AffineMap) -> float:
    """The largest difference of two maps, relative to the largest entry of each part."""
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for a, b in zip(one, other, strict=True))


def _word_map(name: str, params: Parameters, taus: Array) -> AffineMap:
    maps = step_maps(CATALOGUE[name], gaussian_targets(PSLD_DIFFUSION, params), taus)
    return AffineMap(*(entry[..., 0, :] for entry in maps))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("example", "word"), WORDS.items())
def test_a_splitting_written_by_hand_is_the_catalogues_word(example: str, word: str, model: str) -> None:
    params = MODELS[model].params
    probed = ProbedStep(bases()[example].load(model), gaussian_targets(PSLD_DIFFUSION, params))
    for tau, h in STEPS:
        assert _distance(probed(tau, h), _word_map(word, params, np.array([tau, tau + h]))) < TOLERANCE


def test_the_comparison_sees_another_scheme_and_a_part_in_1e11() -> None:
    params = Parameters()
    taus = np.array([0.3, 0.32])
    roba = _word_map("ROBA", params, taus)
    assert _distance(_word_map("NOBA", params, taus), roba) > TOLERANCE
    assert _distance(roba._replace(matrix=roba.matrix * (1 + 1e-11)), roba) > TOLERANCE


def test_the_published_style_is_euler_maruyama() -> None:
    params = Parameters()
    probed = ProbedStep(bases()["step"].load("constant"), gaussian_targets(PSLD_DIFFUSION, params))
    for tau, h in STEPS:
        # the score goes through L^T and back through L^-T, whose condition number is about 100
        assert _distance(probed(tau, h), _word_map("EM", params, np.array([tau, tau + h]))) < 100 * TOLERANCE


def test_the_published_loop_is_its_steps_with_the_last_noise_dropped() -> None:
    params = Parameters()
    target = gaussian_targets(PSLD_DIFFUSION, params)
    taus = np.array([0.0, 0.1, 0.15, 0.25])
    whole, nfe, _ = probed_trajectory(bases()["sample"].load("constant"), target, taus)
    first, second, third = (_word_map("EM", params, taus[i : i + 2]) for i in range(3))
    mean_only = third._replace(noise_cov=0 * third.noise_cov)
    assert nfe == 3
    assert _distance(whole, first.then(second).then(mean_only)) < 100 * TOLERANCE
    assert _distance(whole, first.then(second).then(third)) > 1e-3


@pytest.mark.parametrize("event", [(3,), (3, 4, 4)])
def test_the_adapter_keeps_the_layout_of_images(event: tuple[int, ...]) -> None:
    """Channels go together and come apart again: every element has the map that it has alone."""
    target, base = gaussian_targets(PSLD_DIFFUSION, Parameters()), bases()["step"]
    alone = ProbedStep(base.load("constant"), target)(0.3, 0.1)
    assert _distance(ProbedStep(base.load("constant"), target, event)(0.3, 0.1), alone) < TOLERANCE
    mixed = base.text.replace("u.reshape(len(u), -1, 1, 1)", "u.transpose(1, 2).reshape(len(u), -1, 1, 1)")
    with pytest.raises(BlackBoxError):
        ProbedStep(base.load("constant", mixed), target, event)(0.3, 0.1)


@pytest.mark.parametrize(
    ("name", "model"), nightly_but(lambda case: case == ("sab2", "linear"), itertools.product(("ab2", "sab2"), MODELS))
)
def test_a_multistep_example_is_of_order_2(name: str, model: str) -> None:
    params, grid = MODELS[model]
    sampler = bases()[name].load(model)
    study = study_black_box(name, sampler, params, 2, (30, 60, 120, 240), t_end=0.3, grid=grid)
    assert study.verdict is not Verdict.FAIL
    slopes = study.slopes()
    assert 1.75 < slopes[-1] < 2.75  # from above: the start by Euler dies out
    assert slopes[-1] < slopes[-2] + 0.1


def test_a_multistep_example_without_its_memory_is_not() -> None:
    base = bases()["ab2"]
    euler = base.load("constant", base.text.replace("        self.last = drift, h\n", ""))
    assert study_black_box("Euler", euler, Parameters(), 2, (30, 60, 120, 240), t_end=0.3).verdict is Verdict.FAIL


def _verify(monkeypatch, capsys, *arguments: str) -> dict[str, object]:
    monkeypatch.setattr(sys, "argv", ["weakorder", "verify", *arguments, "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr().out
    assert stop.value.code == 0, out
    return json.loads(out)


SHORT = ("--t-end", "0.3", "--steps", "20,40,80,160")


@pytest.mark.parametrize(
    "arguments",
    [
        ("splitting.py:sscs", *SHORT),
        pytest.param(("published_em.py:step", *SHORT), marks=pytest.mark.nightly),
        pytest.param(("published_em.py:sample", *SHORT), marks=pytest.mark.nightly),
        pytest.param(("multistep.py:ab2", "--order", "2", *SHORT), marks=pytest.mark.nightly),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_example_verifies_from_the_command_line(arguments, monkeypatch, capsys) -> None:
    answer = _verify(monkeypatch, capsys, str(EXAMPLES / arguments[0]), *arguments[1:])
    assert answer["verdict"] == "PASS"
    assert answer["nfe_per_step"] == 1


COMMANDS = re.findall(
    r"^ *weakorder verify (examples/\S+.*)$",
    "\n".join(path.read_text() for path in sorted(EXAMPLES.iterdir()) if path.suffix in {".py", ".md"}),
    re.MULTILINE,
)


@pytest.mark.nightly
@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_in_the_examples_passes(command: str, monkeypatch, capsys) -> None:
    file, *options = command.split()
    assert _verify(monkeypatch, capsys, str(EXAMPLES.parent / file), *options)["verdict"] == "PASS"


def test_the_commands_are_found_and_name_what_is_there() -> None:
    assert len(COMMANDS) >= 8
    for command in COMMANDS:
        file, name = command.split()[0].split(":")
        path = EXAMPLES.parent / file
        assert re.search(rf"\b{name}\b", path.read_text()), command
        assert isinstance(path, Path)
