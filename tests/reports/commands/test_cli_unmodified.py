"""`weakorder verify` of samplers with a grid of their own."""

import json
import shutil
import warnings

import pytest
from own_grids import second_order
from weakorder.examples import own_grid
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.integrators.unmodified import (
    PREDICTIONS,
    TIMES,
    diffusers_sampler,
    function_sampler,
    k_diffusion_sampler,
)
from weakorder.reports.commands.options import DIFFUSION_NAMES
from weakorder.reports.commands.options import PATHS as NAMED_PATHS
from weakorder.reports.commands.unmodified import LIBRARIES
from weakorder.reports.commands.verify import verify
from weakorder.theory.model import DIFFUSIONS
from weakorder.theory.paths import PATHS
from weakorder.verification.testing import WeakorderWarning, assert_weak_order
from weakorder.verification.unmodified import SURVEYS

FEW = ["--steps", "10,20,40,80"]
LOG = "variance_type=fixed_large_log"


@pytest.fixture
def run(line):
    """The command line in this process: exit code, stdout, stderr."""
    return line


@pytest.fixture
def mine(tmp_path):
    """A file of the user's with the example's samplers, and one with a fault."""
    path = tmp_path / "mine.py"
    shutil.copy(own_grid.__file__, path)
    text = path.read_text()
    broken = tmp_path / "broken.py"
    broken.write_text(text.replace("1 - b - spread", "1 - b"))
    return path, broken


def test_a_sampler_of_ones_own_is_judged_by_its_networks_terms(run, mine):
    path, broken = mine
    options = ["--diffusion", "vp", "--predicts", "eps", *FEW]
    code, out, _ = run("verify", f"{path}:ancestral", *options)
    assert (code, out.splitlines()[-1].split(":")[0]) == (0, "PASS")
    code, out, _ = run("verify", f"{broken}:ancestral", *options)
    assert (code, out.splitlines()[-1].split(":")[0]) == (1, "FAIL")


def test_an_error_that_is_round_off_is_shown_as_its_bound_and_kept_in_json(run, mine):
    """Claim: its digits are another machine's others; an error above it is shown, and no other column is touched."""
    asked = ["verify", f"{mine[0]}:ddim", "--diffusion", "vp", "--predicts", "eps", *FEW]
    _, out, _ = run(*asked)
    header, row = (line.split() for line in out.splitlines()[1:3])
    shown = dict(zip([*header[:2], "W2 error", *header[4:]], row, strict=True))
    assert (shown["mean"], shown["gain"], shown["slope"]) == ("<1e-11", "<1e-11", "-")
    level = json.loads(run(*asked, "--json")[1])["grids"][0]["levels"][0]
    assert 0 <= level["mean"] < 1e-11 < level["w2"] == pytest.approx(float(shown["W2 error"]), rel=1e-3)


TABLE = """
import torch
from weakorder.theory.paths import table_of

alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
path = table_of(alpha_bar)


def sample(model, x, steps):
    times = torch.linspace(999, 39, steps + 1).round().long()
    for t, s in zip(times[:-1], times[1:]):
        eps = model(x, t)
        data = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
        x = alpha_bar[s].sqrt() * data + (1 - alpha_bar[s]).sqrt() * eps
    return (x - (1 - alpha_bar[s]).sqrt() * model(x, s)) / alpha_bar[s].sqrt()
"""


def test_a_sampler_on_a_table_of_its_own_names_it_as_its_path(run, tmp_path):
    """DDIM on DDPM's table, whose levels vp has to a thousandth: told by the mean, which is exact on its own table."""
    path = tmp_path / "table.py"
    path.write_text(TABLE)
    means = []
    for diffusion in (f"{path}:path", "vp"):
        words = ["--diffusion", diffusion, "--predicts", "eps", "--time", "index", "--steps", "12,24,48,96", "--json"]
        code, out, _ = run("verify", f"{path}:sample", *words)
        assert code in (0, 1, 3)
        means.append(max(row["mean"] for grid in json.loads(out)["grids"] for row in grid["levels"]))
    assert means[0] < 1e-12
    assert means[1] > 1e-5
    code, _, err = run("verify", f"{path}:sample", "--diffusion", f"{path}:alpha_bar", "--predicts", "eps")
    assert code == 2
    assert "is no path; with --predicts, choose one of vp," in err


def test_a_sampler_of_ones_own_is_put_on_a_mixture(run, mine):
    path, broken = mine
    options = ["--diffusion", "vp", "--predicts", "eps", "--target", "mixture", *FEW]
    code, out, err = run("verify", f"{path}:ddim", *options)
    assert (code, err, out.splitlines()[-1].split(":")[0]) == (0, "", "PASS")
    assert "weak errors on a mixture" in out
    code, out, _ = run("verify", f"{broken}:ancestral", *options, "--json")
    answer = json.loads(out)
    assert (code, answer["verdict"], answer["target"]) == (1, "FAIL", "mixture")
    assert set(answer["grids"][0]["levels"][0]["weak_errors"]) == {"x", "x^2", "x^3", "x^4", "cos 2x", "mode x > 0"}


def test_a_librarys_sampler_is_judged_on_each_of_its_grids(run):
    code, out, _ = run("verify", "diffusers:FlowMatchEulerDiscreteScheduler", *FEW, "--json")
    answer = json.loads(out)
    assert (code, answer["verdict"]) == (0, "PASS")
    assert [grid["grid"] for grid in answer["grids"]] == ["default", "karras"]
    alone = "looked at on the karras grid alone; without --grid karras it is on default, too"
    assert alone not in answer["warnings"]
    code, out, _ = run("verify", "diffusers:FlowMatchEulerDiscreteScheduler", *FEW, "--json", "--grid", "karras")
    answer = json.loads(out)
    assert ([grid["grid"] for grid in answer["grids"]], alone in answer["warnings"]) == (["karras"], True)


def test_settings_reach_the_library(run):
    code, out, err = run("verify", "k-diffusion:sample_euler", "--set", "s_churn=40", *FEW, "--json")
    assert code in (0, 1, 3), err
    levels = json.loads(out)["grids"][0]["levels"]
    plain = json.loads(run("verify", "k-diffusion:sample_euler", *FEW, "--json")[1])["grids"][0]["levels"]
    assert levels[0]["w2"] != plain[0]["w2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ROBA", "--set", "a=1"], "--set and --time are for diffusers:NAME and k-diffusion:NAME"),
        (["diffusers:DDIM"], "none of the schedulers that are known; choose DDIMScheduler"),
        (["diffusers:DDIMScheduler", "--set", "eta"], "--set 'eta' is not NAME=VALUE; write it like --set"),
        (["diffusers:DDIMScheduler", "--t-end", "0.1"], "--t-end is not for diffusers:DDIMScheduler"),
        (["diffusers:DDIMScheduler", "--predicts", "eps"], "are for FILE.py:sample; diffusers:DDIMScheduler states"),
        (["diffusers:DDIMScheduler", "--event", "3,4,4"], "takes data of any shape, drop it"),
        (["diffusers:DDIMScheduler", "--target", "banana"], "it is put on data on a line, gaussian or mixture"),
        (["diffusers:DDIMScheduler", "--target", "mixture", "--dim", "2"], "--dim is not for diffusers:DDIMScheduler"),
        (["k-diffusion:sample_dpmpp_3m_sde", "--target", "mixture", *FEW], "its next state is told by its last 3"),
        (["diffusers:DDIMScheduler", "--device", "cpu"], "--device is not for diffusers:DDIMScheduler"),
        (["diffusers:DDIMScheduler", "--steps", "10,20"], "an order needs 4 or more increasing numbers of steps"),
        (["k-diffusion:sample_dpm_adaptive"], "it has no N to refine"),
        (["MINE:ddim", "--predicts", "eps"], "needs --diffusion and --predicts"),
        (["MINE:BETA_MIN", "--predicts", "eps", "--diffusion", "vp"], "it must be sample(model, x, steps)"),
        (["MINE:ddim", "--predicts", "eps", "--diffusion", "vp", "--set", "a=1"], "--set and --grid are for samplers"),
        (["MINE:ddim", "--predicts", "eps", "--diffusion", "edm", *FEW], ""),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, mine, words, said):
    words = [word.replace("MINE", str(mine[0])) for word in words]
    code, out, err = run("verify", *words)
    if not said:  # a path that the sampler is not on is a verdict, and no error
        assert code in (1, 3)
        return
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_result_that_is_not_finite_is_a_verdict_with_its_table(run):
    code, out, _ = run("verify", "diffusers:DDPMScheduler", "--set", "variance_type=fixed_large_log", *FEW)
    assert code == 1
    assert "is not finite" in out.splitlines()[-1]


def test_the_commands_choices_are_those_of_the_library():
    options = {option.name: option for option in verify.params}
    assert tuple(PATHS) == NAMED_PATHS
    assert set(DIFFUSION_NAMES) == {name for name, each in DIFFUSIONS.items() if each.forward.has_noise}
    assert all(name in options["diffusion"].help for name in (*NAMED_PATHS, *DIFFUSION_NAMES))
    assert set(options["predicts"].type.choices) == set(PREDICTIONS)
    assert tuple(options["time"].type.choices) == TIMES
    assert set(LIBRARIES) == set(SURVEYS)


# --- In a test of the user's ------------------------------------------------------------------------------------------


def test_three_lines_assert_it_in_a_test():
    sampler = function_sampler("mine", own_grid.ddim, PATHS["vp"], "eps")
    assert_weak_order(sampler, 1, steps=(10, 20, 40, 80))  # without a warning, which would be an error here
    with pytest.raises(AssertionError, match=r"weak order 2 of mine: FAIL, the order is 1\.0"):
        assert_weak_order(sampler, 2, steps=(10, 20, 40, 80))
    with pytest.raises(AssertionError, match="weak order 2 of diffusers:EDMEulerScheduler: FAIL"):
        assert_weak_order(diffusers_sampler("EDMEulerScheduler"), 2, steps=(10, 20, 40, 80))


def test_a_test_asserts_it_on_a_mixture():
    sampler = function_sampler("mine", own_grid.ddim, PATHS["vp"], "eps")
    assert_weak_order(sampler, 1, steps=(5, 10, 20, 40), target="mixture")
    with pytest.raises(AssertionError, match=r"weak order 2 of mine: FAIL, the order is (1\.0|0\.9).*expected 2"):
        assert_weak_order(sampler, 2, steps=(5, 10, 20, 40), target="mixture")


@pytest.mark.nightly
def test_a_test_fails_on_a_mixture_where_gaussian_data_flatter():
    midpoint, steps = second_order(0.5), (10, 20, 40, 80)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeakorderWarning)
        assert_weak_order(midpoint, 3, steps=steps)
    with pytest.warns(WeakorderWarning, match="Gaussian data flatter on its default grid: they show order 3"):
        assert_weak_order(midpoint, 2, steps=steps, target="mixture")
    with pytest.raises(AssertionError, match=r"weak order 3 of EDM 0\.5: FAIL, the order is 1\.9.*expected 3"):
        assert_weak_order(midpoint, 3, steps=steps, target="mixture")


def test_what_no_lattice_holds_fails_a_test_with_the_reason_alone():
    with pytest.raises(AssertionError, match=r"weak order 2 of .*3m_sde: its next state is told by its last 3"):
        assert_weak_order(k_diffusion_sampler("sample_dpmpp_3m_sde"), 2, steps=(5, 10, 20, 40), target="mixture")


@pytest.mark.parametrize(
    ("sampler", "target", "said"),
    [
        (CATALOGUE["ROBA"], "mixture", "target 'mixture' is for samplers with a grid of their own, and ROBA is a step"),
        (second_order(0.5), "banana", "target 'banana' is none; choose gaussian or mixture"),
    ],
    ids=["a scheme", "another target"],
)
def test_a_target_that_is_none_of_the_samplers_is_an_error_of_the_test_itself(sampler, target, said):
    with pytest.raises(ValueError, match=said):
        assert_weak_order(sampler, target=target)
