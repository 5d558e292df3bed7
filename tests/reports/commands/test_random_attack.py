"""The command line under random words: what is bad input is one line and exit code 2, and nothing is lost.

Arguments are drawn from what people type, what they mistype, and what nobody would: commands, words of the language in
a wrong order, files that are none, numbers at the ends of what a float holds, other alphabets, nothing. An answer may
be any of the four exit codes; an error is exit code 2, one line on stderr that is no bug's, nothing on stdout, and the
file that an option names is as it was before.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from selection import examples
from weakorder.reports.commands.cli import main

KEPT = "kept as it is"
FILES = {
    "box.py": "import torch\n\n\ndef step(u, tau, h, score):\n    return u + h * score(u, 1 - tau)\n",
    "raises.py": "raise KeyError('x')\n",
    "syntax.py": "def step(:\n",
    "none.py": "step = None\nnumber = 3\nclass_ = int\n",
    "old.json": KEPT,
    "empty.txt": "",
}
NUMBERS = [
    *("1", "0", "-1", "2.5", "1e-3", "1e308", "1e400", "-0.0", "nan", "inf", "-inf", "1e-320", "9" * 30, "0x10"),
    *("1_0", "\u0661", "\uff11", "", " ", "one", "1,2", "--", "1e", "+1", "1/2", "\x00", "\u202e1", "\U0001f600"),
]
LISTS = ["2,4,8,16", "2 4 8 16", "16,8,4,2", "2,2,2,2", "1,2,4", "0,1,2,4", ",,", "2;4;8;16", "2,4,8,1e3", "a,b"]
GRIDS = ["uniform", "quadratic", "s**2", "s**-1", "1/s", "s/0", "0,0.5,0.999", "0,nan,1", "I*s", "(" * 400, "s" * 501]
SUBJECTS = [
    *(
        "ROBA",
        "roba",
        "ROBBA",
        "EM",
        "O S B A",
        "S F",
        "S F(1/3) F(2/3)",
        "B S A",
        "O O O",
        "S",
        "S S",
        "S@1",
        "A(1/0)",
    ),
    *("O S B(-1) A", "O S@2 B A", "", " ", "S" * 300, "(", "S B(", "\u00d6 S B A", "box.py:step"),
    *("box.py:nothing",),
    *("box.py", "box.py:", ":step", "raises.py:step", "syntax.py:step", "none.py:step", "none.py:number", "no.py:x"),
    *("none.py:class_", "empty.txt:x", ".", "/", "old.json", "a:b:c", "\x00.py:x", "--help", "-1"),
]
OF_NUMBERS = ("gamma", "nu", "kappa", "beta-min", "beta-max", "eps", "t-end", "lambda-s", "time-limit", "seed", "dim")
OPTIONS = {
    **{f"--{name}": NUMBERS for name in (*OF_NUMBERS, "accuracy", "order")},
    **{f"--{name}": [*NUMBERS, *LISTS] for name in ("data-mean", "data-variance", "event")},
    "--steps": [*LISTS, *NUMBERS],
    "--grid": [*GRIDS, *NUMBERS, "empty.txt", "old.json", "no.npy"],
    "--splitting": ["psld", "psld-flow", "langevin", "nope", "", "none.py:number", "box.py:step"],
    "--flow": ["euler", "exact", "midpoint", "true", "Euler", ""],
    "--device": ["cpu", "cuda:99", "warp", ""],
    "--target": ["gaussian", "banan", "student", ""],
    "--method": ["noise-free", "exactly"],
    "--zigzag": ["1"],
}
COMMANDS = [
    ["verify"],
    ["moments"],
    ["derive"],
    ["stability"],
    ["budget"],
    ["baseline", "record"],
    ["baseline", "check"],
    ["identify"],
    ["vrfy"],
]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    words = [*draw(st.sampled_from(COMMANDS))]
    words += draw(
        st.lists(st.sampled_from(SUBJECTS), min_size=0, max_size=2).filter(lambda found: len(found) != 2)
    ) or ["ROBA"]
    if words[0] == "baseline":
        words += ["-o", "old.json"] if words[1] == "record" else ["old.json"]
    for option in draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=3, unique=True)):
        words += [option, draw(st.sampled_from(OPTIONS[option]))]
    if draw(st.booleans()):
        words.append("--json")
    # what is right is answered at few steps
    short = {
        "verify": ["--steps", "2,4,8,16"],
        "moments": ["--steps", "2"],
        "budget": ["--steps", "2"],
        "baseline": ["--steps", "2,4,8,16"],
    }
    if "--steps" not in words and words[:2] != ["baseline", "check"]:
        words += short.get(words[0], [])
    return words


def run(words: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    arguments = mock.patch.object(sys, "argv", ["weakorder", *words])
    with arguments, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@examples(8)
@given(command_lines())
def test_random_words_are_answered_or_refused_in_one_line_and_nothing_is_lost(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, text in FILES.items():
            Path(name).write_text(text)
        code, out, err = run(words)
        assert code in (0, 1, 2, 3), (code, err)
        assert "Traceback" not in err
        assert "please report this" not in err
        if code == 2:
            assert out == ""
            assert err.startswith("weakorder: error: "), err
            assert err.count("\n") == 1, err
            assert Path("old.json").read_text() == KEPT
        elif "--json" in words and out and "--help" not in words:
            json.loads(out)
        assert {path.name for path in Path().iterdir() if path.suffix != ""} >= set(FILES)


def test_the_claims_can_fail() -> None:
    """The broken variant: a command that prints, loses the file and raises what nobody thought of."""
    from weakorder.reports.commands import cli

    def bug(**_: object) -> None:
        raise KeyError("a bug")

    with mock.patch.object(cli.verify, "callback", bug):
        code, _, err = run(["verify", "ROBA"])
    assert code == 2
    assert "please report this" in err
