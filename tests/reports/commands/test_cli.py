"""The command line: its answers are the library's, its errors are one line with exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from selection import nightly_but
from weakorder.integrators.catalogue import CATALOGUE, all_schemes
from weakorder.integrators.grids import time_grid
from weakorder.reports import pages
from weakorder.reports.commands import cli
from weakorder.reports.commands.options import Real, Whole
from weakorder.reports.pages.orders import order_rows
from weakorder.theory.model import Parameters
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD
from weakorder.verification.exact.moments import exact_moments
from weakorder.verification.targets.gaussian import GaussianTarget

USER_FILE = """
from weakorder.theory.model import PSLD_DIFFUSION, M, M_inv, gamma, m, nu, s_m, s_x, x
from weakorder.theory.scheme import Scheme
from weakorder.theory.splitting import PSLD, Part, Splitting

reverse = PSLD_DIFFUSION.reverse()
MINE = Splitting("mine", PSLD_DIFFUSION, reverse, (
    Part("X", (reverse.drift[0], 0), (reverse.diffusion[0], 0)),
    Part("Y", (0, reverse.drift[1]), (0, reverse.diffusion[1])),
))
scheme = Scheme("S X(1/2) Y X(1/2)", MINE, order=1)
too_proud = Scheme("O S B A", PSLD, order=2)
number = 3
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE)
    return path


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def command(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["weakorder", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), out, err)

    return command


def test_help_answers_without_importing_anything_heavy() -> None:
    heavy = ["numpy", "sympy", "scipy", "torch", "matplotlib", "jinja2"]
    script = (
        "import sys\nfrom weakorder.reports.commands import cli\nsys.argv = ['weakorder', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('LOADED', [name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("LOADED []")
    for command in ("moments", "verify", "schemes", "report"):
        assert command in result.stdout


def _commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield from _commands(command) if isinstance(command, click.Group) else [command]


def test_no_option_reads_numbers_by_clicks_own_types() -> None:
    """They read the digits of every alphabet, underscores too, and tell no cure."""
    clicks = (type(click.INT), type(click.FLOAT))
    types = {type(param.type) for command in _commands(cli.cli) for param in command.params}
    assert {Real, Whole} <= types
    assert [kind for kind in types if issubclass(kind, clicks)] == []


def test_help_shows_which_whole_numbers_an_option_takes(run) -> None:
    shown = " ".join(run("verify", "--help").out.split())
    for option in ("--order 1..10 ", "--dim N>=1 ", "--seed N ", "--steps N,... ", "--t-end X "):
        assert option in shown


def test_moments_prints_the_exact_moments_as_json(run) -> None:
    arguments = [
        "--steps",
        "30",
        "--data-mean",
        "0.5",
        "--data-variance",
        "0.25",
        "--grid",
        "quadratic",
        "--start",
        "prior",
        "--lambda-s",
        "1.1",
    ]
    answer = json.loads(run("moments", "ROBA", "--json", *arguments).out)
    params = Parameters()
    target = GaussianTarget.of(0.5, 0.25, PSLD.diffusion, params)
    scheme = Scheme("O S B A", PSLD, lambda_s=1.1)
    expected = exact_moments(scheme, target, time_grid("quadratic", 30, params), "prior")
    assert set(answer) == {"mean", "cov", "exact_mean", "exact_cov", "nfe"}
    np.testing.assert_array_equal(answer["mean"], expected.computed.mean[:, 0])
    np.testing.assert_array_equal(answer["cov"], expected.computed.cov[..., 0])
    np.testing.assert_array_equal(answer["exact_mean"], expected.exact.mean[:, 0])
    np.testing.assert_array_equal(answer["exact_cov"], expected.exact.cov[..., 0])
    assert answer["nfe"] == 30


def test_moments_without_json_shows_the_same_numbers(run) -> None:
    answer = json.loads(run("moments", "O S B A", "--json").out)
    text = run("moments", "O S B A").out
    assert f"{answer['cov'][0][0]:.6e}" in text
    assert f"{answer['exact_cov'][1][1]:.6e}" in text


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--gamma", "0.25"),
        ("--nu", "3"),
        ("--kappa", "0.1"),
        ("--beta-min", "0.1"),
        ("--beta-max", "20"),
        ("--eps", "0.01"),
        ("--flow", "exact"),
        ("--flow", "true"),
        ("--lambda-s", "1.2"),
        ("--steps", "7"),
        ("--data-mean", "2"),
        ("--data-variance", "0.5"),
        ("--grid", "quadratic"),
        ("--start", "prior"),
    ],
)
def test_every_option_of_moments_changes_the_answer(run, option: str, value: str) -> None:
    plain = json.loads(run("moments", "ROBA", "--json", "--data-mean", "1").out)
    assert json.loads(run("moments", "ROBA", "--json", "--data-mean", "1", option, value).out) != plain


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_scheme_can_be_named_and_spelled(run, name: str) -> None:
    scheme = CATALOGUE[name]
    named = run("moments", name, "--json").out
    assert run("moments", scheme.word, "--splitting", scheme.splitting.name, "--json").out == named


def test_a_run_that_overflows_is_null_in_strict_json_and_warned_of(run) -> None:
    outcome = run("moments", "ROBA", "--json", "--nu", "900", "--steps", "300")
    answer = json.loads(outcome.out)
    assert answer["cov"][0][0] is None
    assert "overflowed" in outcome.err


def test_verify_prints_the_promised_json_and_exits_by_its_verdict(run) -> None:
    outcome = run("verify", "ROBA", "--json")
    answer = json.loads(outcome.out)
    assert outcome.code == 0
    assert answer["verdict"] == "PASS"
    assert set(answer["order"]) == {"expected", "proven", "measured", "ci"}
    assert answer["nfe_per_step"] == 1
    assert {"steps", "error", "slope"} <= set(answer["levels"][0])


@pytest.mark.parametrize(
    ("arguments", "code", "verdict"),
    [
        (["O S B A"], 0, "PASS"),
        (["O S B A", "--order", "2"], 1, "FAIL"),
        (["O S B A(1/2)"], 1, "FAIL"),
        (["ROBA", "--lambda-s", "1.1"], 1, "FAIL"),
        (["U(1/2) S@1/2 E U(1/2)", "--flow", "true", "--order", "2", "--beta-min", "0.1"], 0, "PASS"),
        (["U(1/2) S@1/2 E U(1/2)@0", "--flow", "true", "--order", "2", "--beta-min", "0.1"], 1, "FAIL"),
        (["EM", "--steps", "2,4,8,16", "--data-variance", "0.01", "--t-end", "0.001"], 3, "INCONCLUSIVE"),
        (["S B(1/2) A(1/2) O A(1/2) S@1 B(1/2)", "--splitting", "langevin", "--order", "2"], 0, "PASS"),
    ],
)
def test_the_exit_code_is_the_verdict(run, arguments, code, verdict) -> None:
    outcome = run("verify", *arguments)
    assert (outcome.code, outcome.out.splitlines()[-1].split(":")[0]) == (code, verdict)


def test_a_scheme_and_a_splitting_come_from_a_users_file(run, user_file: Path) -> None:
    assert run("verify", f"{user_file}:scheme").code == 0
    assert run("verify", f"{user_file}:too_proud").code == 1, "it claims order 2 and has 1"
    spelled = run("moments", "S X(1/2) Y X(1/2)", "--splitting", f"{user_file}:MINE", "--json").out
    assert spelled == run("moments", f"{user_file}:scheme", "--json").out


@pytest.mark.parametrize("is_measured", nightly_but(lambda is_measured: not is_measured, (False, True)))
def test_the_schemes_command_lists_the_catalogue(is_measured: bool, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told, unless all orders are measured, by the numbers of the first scheme for those of the others."""

    @cache
    def made(schemes: tuple[Scheme, ...], values: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
        if is_measured:
            return order_rows(list(schemes), dict(values))
        (row,) = order_rows([schemes[0]], dict(values))
        return [row | {"name": scheme.name, "word": scheme.word} for scheme in schemes]

    monkeypatch.setattr(pages, "order_rows", lambda schemes, values: made(tuple(schemes), tuple(values.items())))
    rows = json.loads(run("schemes", "--json").out)
    assert [row["name"] for row in rows] == list(all_schemes())
    text = run("schemes").out
    assert all(row["word"] in text for row in rows)


BAD = [
    (["moments", "O S Q A"], "token 3, 'Q': unknown part 'Q'"),
    (["moments", "o S B A"], "did you mean 'O'?"),
    (["moments", "ROBBA"], "neither a scheme of the catalogue nor a word; did you mean 'ROBA'?"),
    (["moments", ""], "empty word"),
    (["verify", "B S A"], "no S stands before it"),
    (["moments", "ROBA", "--gamma", "-1"], "gamma = -1 is negative"),
    (["moments", "ROBA", "--gamma", "4.01"], "choose gamma and nu apart"),
    (["moments", "ROBA", "--nu", "nan"], "nu = nan is not finite"),
    (["moments", "ROBA", "--eps", "1"], "eps = 1 is outside [1e-12, 1)"),
    (["moments", "ROBA", "--beta-min", "0"], "beta_min = 0 is not positive"),
    (["moments", "ROBA", "--steps", "0"], "steps = 0: a run has at least 1 step"),
    (["moments", "ROBA", "--steps", "many"], "value for '--steps': 'many' is not an integer; write it like 2"),
    (["moments", "ROBA", "--steps", "\u0661\u0662"], "is not an integer; write it like 2"),
    (["moments", "ROBA", "--steps", "1_0"], "'1_0' is not an integer"),
    (["moments", "ROBA", "--steps", "2.0"], "'2.0' is not an integer"),
    (["moments", "ROBA", "--steps", ""], "'' is not an integer"),
    (["moments", "ROBA", "--data-variance", "-1"], "data variance = -1: a variance is finite and >= 0"),
    (["moments", "ROBA", "--data-mean", "inf"], "data mean = inf: a mean is finite"),
    (["moments", "ROBA", "--lambda-s", "0"], "lambda_s = 0 must be a number in (0, 1e+06]; 1 is the plain scheme"),
    (["moments", "RSE", "--lambda-s", "1.1"], "draws none; leave it at 1"),
    (["stability", "ROBA", "--lambda-s", "1e300"], "lambda_s = 1e+300 must be a number in (0, 1e+06]"),
    (["moments", "ROBA", "--gamma", ""], "'' is not a number; write it like 2, 0.5 or 1e-3"),
    (["moments", "ROBA", "--nu", "1_0"], "'1_0' is not a number"),
    (["moments", "ROBA", "--eps", "\u0661"], "is not a number; write it like"),
    (["verify", "ROBA", "--target", "banana", "--accuracy", "1e-300"], "accuracy = 1e-300 is not between 1e-09 and 1"),
    (
        ["verify", "ROBA", "--target", "banana", "--evaluations", "nan"],
        "evaluations = nan: a budget is positive; leave",
    ),
    (["verify", "ROBA", "--target", "banana", "--evaluations", "0"], "evaluations = 0: a budget is positive"),
    (["verify", "ROBA", "--target", "banana", "--seconds", "-1"], "seconds = -1: a budget is positive; leave it out"),
    (
        ["moments", "ROBA", "--grid", "cubic"],
        "grid 'cubic' is unknown; choose uniform, quadratic, an expression in s = i/N",
    ),
    (["moments", "ROBA", "--splitting", "psld"], "has a splitting of its own"),
    (["moments", "O S B A", "--splitting", "nope"], "splitting 'nope' is unknown; choose psld"),
    (["moments", "nofile.py:x"], "there is no file 'nofile.py'"),
    (["verify", "ROBA", "--steps", "10,20"], "4 or more increasing numbers of steps"),
    (["verify", "ROBA", "--steps", "10,x"], "'10,x' is not a list of ints"),
    (["verify", "ROBA", "--t-end", "2"], "t_end = 2 is outside [1e-12, 1)"),
    (["verify", "ROBA", "--order", "0"], "value for '--order': 0 is out of range; it must be from 1 to 10"),
    (["verify", "ROBA", "--order", "11"], "11 is out of range; it must be from 1 to 10"),
    (["verify", "ROBA", "--order", "\u0661"], "is not an integer"),
    (["verify", "ROBA", "--target", "mixture", "--dim", "0"], "0 is out of range; it must be >= 1"),
    (["verify", "ROBA", "--target", "mixture", "--dim", "9" * 5000], "is not an integer"),
    (["moments", "ROBA", "--device", "warp"], "device 'warp' cannot be used here: "),
    (["moments", "ROBA", "--device", "warp"], "; choose another, such as cpu"),
    (["moments", "ROBA", "--device", "meta:0"], "device 'meta:0' cannot be used here: it holds no numbers; choose"),
    (["frobnicate"], "No such command 'frobnicate'; see weakorder --help"),
    (["moments"], "Missing argument 'X'; see weakorder moments --help"),
    (["moments", "ROBA", "again"], "extra argument (again); see weakorder moments --help"),
    (["moments", "ROBA", "--zigzag"], "; see weakorder moments --help"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(run, arguments, message, as_json) -> None:
    outcome = run(*arguments, *(["--json"] if as_json and len(arguments) > 1 else []))
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("weakorder: error: ")
    assert message in outcome.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "has no 'nothing'; name an object that it defines"),
        ("schem", "did you mean 'scheme'?"),
        ("number", "is of type int; it must be a weakorder.theory.scheme.Scheme"),
        ("MINE", "is of type Splitting; it must be"),
    ],
)
def test_a_users_file_without_the_object_is_one_line(run, user_file: Path, name: str, message: str) -> None:
    outcome = run("moments", f"{user_file}:{name}")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err


def test_a_class_that_takes_arguments_is_one_line_that_asks_for_an_object(run, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text("class Box:\n    def __init__(self, width): ...\n")
    outcome = run("moments", f"{tmp_path / 'box.py'}:Box")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "is a class, and Box() raised TypeError" in outcome.err
    assert "; name an object, or a class that takes no arguments" in outcome.err


@pytest.mark.parametrize("text", ["raise RuntimeError('two\\nlines')", "import nothing_like_this", "def ("])
def test_a_users_file_that_fails_is_one_line_naming_its_error(run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    outcome = run("moments", f"{path}:scheme")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "raised" in outcome.err
    assert "Error" in outcome.err


def test_the_version_says_what_computes_the_noise_if_asked(run) -> None:
    short, long = run("--version"), run("--version", "-v")
    assert (short.code, long.code) == (0, 0)
    version, processor, gpu = long.out.splitlines()
    assert version == short.out.strip() == f"weakorder {metadata.version('weakorder')}"
    assert processor == f"CPU: numba {metadata.version('numba')}"
    assert gpu.startswith("GPU: ")


def test_no_command_is_bad_input(run) -> None:
    outcome = run("-v")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "weakorder: error: Missing command; see weakorder --help\n"
