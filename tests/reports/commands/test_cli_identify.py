"""`weakorder identify`: which word a sampler is, on the command line."""

import inspect
import json
import re

import pytest
from weakorder.examples import own_grid


def test_a_sampler_is_identified_or_the_nearest_words_are_named(line):
    mine = own_grid.__file__
    code, out, err = line("identify", f"{mine}:ddim", "--diffusion", "vp", "--predicts", "eps", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert (code, err, "vp-DDIM" in [word["scheme"] for word in answer["is"]], answer["nearest"]) == (0, "", True, [])
    code, out, _ = line("identify", f"{mine}:ddim", "--diffusion", "flow", "--predicts", "eps")
    assert code == 1
    assert out.startswith(f"{mine}:ddim is none of the words that are known; the nearest:\n")
    assert "    the weight of the last answer is" in out


def test_what_is_off_is_said_of_a_sampler_that_is_a_word_without_it(line, tmp_path):
    text, old = inspect.getsource(own_grid), "x = alpha_later * data"
    assert text.count(old) == 1
    (tmp_path / "mine.py").write_text(text.replace(old, "x = alpha_later * data.clamp(-1, 1)"))
    words = ("identify", f"{tmp_path}/mine.py:ddim", "--diffusion", "vp", "--predicts", "eps")
    code, out, err = line(*words)
    assert (code, "vp-DDIM" in out) == (0, True)
    assert re.fullmatch(r"warning: mine.py:\d+ clamps states or noise, which is nonlinear, and is off here\n", err)
    _, out, _ = line(*words, "--json")
    assert json.loads(out)["warnings"] == [err.removeprefix("warning: ").strip()]
    _, _, err = line("identify", "diffusers:DDIMScheduler")
    assert err == "warning: clip_sample is nonlinear and is off here; DDIMScheduler has it on\n"
    _, _, err = line("identify", "diffusers:DPMSolverMultistepScheduler", "--grid", "karras")
    assert err == ""  # a word is looked for on one grid, asked for or not


@pytest.mark.nightly
def test_words_are_identified_on_the_command_line(line):
    code, out, _ = line("identify", "S F", "--beta-max", "12")
    assert (code, out) == (0, "S F is EM = S F on psld-whole, euler sub-flows, to 1e-16\n")
    code, out, _ = line("identify", "vp-DDIM")
    assert (code, out) == (0, "vp-DDIM is vp-DDIM = S F on vp-flow, exact sub-flows, eps held, to 1e-16\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["BAOAB"], "diffusion 'stationary' has no words in the catalogue to compare with; choose psld or vp"),
        (["vp-DDIM", "--diffusion", "vp"], "--diffusion vp is for black boxes; vp-DDIM moves under 'vp'"),
        ([f"{own_grid.__file__}:ddim", "--diffusion", "vp"], "with a grid of its own needs --predicts"),
        (
            [f"{own_grid.__file__}:ddim", "--diffusion", "edm"],
            "'edm' is a path, for a sample(model, x, steps) with a grid of its own",
        ),
        (
            ["ROBA", "--set", "a=1"],
            "--set, --time and --grid are for samplers with a grid of their own; 'ROBA' is none",
        ),
        (
            ["diffusers:DDIMScheduler", "--beta-max", "3"],
            "the parameters of a model are not for diffusers:DDIMScheduler",
        ),
        (["diffusers:Nothing"], "Nothing"),
        (["nothing.py:step"], "nothing.py"),
    ],
)
def test_what_cannot_be_identified_is_said_in_one_line(line, words, said):
    code, out, err = line("identify", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
