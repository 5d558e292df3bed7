"""What ships is what is derived: the file of derivations, entry by entry, and what happens where it is stale or absent.

A sample of the entries is derived afresh in every run, the same one each time, and all of them under --nightly; a stale
one is named. How they are used is in test_flows, test_weak_order and test_step_map, which hold them to their claims.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import sympy as sp
from weakorder.integrators import make_derivations
from weakorder.integrators.catalogue import EXPONENTIAL, POSITION
from weakorder.integrators.make_derivations import SCHEMES, questions, stale
from weakorder.theory import cache, declarations, derivations
from weakorder.theory.model import PSLD_DIFFUSION, STATIONARY, Diffusion, LinearSDE, M, m, t, x
from weakorder.theory.splitting import SPLITTINGS, Part, Splitting
from weakorder.theory.weak_order import prove_order

QUESTIONS = questions()
# Of each kind of question every n-th is in the sample, and every scheme's order in one dimension as it is declared, but
# for what takes longest: a memory of 3, and of 2 all but SAB2 and vp's.
EVERY = {"the": 1, "matrices": 1, "psld": 1, "langevin": 1, "vp": 1, "flows": 9, "step map": 13, "order": 41}
DECLARED = "linear beta, dims 1"
REMEMBERING = ("SDE-DPM-Solver++2M", "RES-2", "RES-2-flow", "DPM-Solver++2M", "DEIS-2")
SLOW = (
    *("order of memory 3", "order of memory 2 on psld", "step map of RBAO, exact", "step map of ABOBA, euler"),
    "flows of the forward SDE of psld",
    *(f"order of {name}," for name in REMEMBERING),
)
HELD = tuple(f"{scheme.name}, exact, {DECLARED}" for scheme in (*EXPONENTIAL.values(), *POSITION.values()))
SAMPLE = [
    name
    for kind, every in EVERY.items()
    for number, name in enumerate(question for question in QUESTIONS if question.startswith(kind))
    if not name.startswith(SLOW) and (number % every == 0 or name.endswith(f"euler, {DECLARED}") or name.endswith(HELD))
]


# --- The file is the derivations --------------------------------------------------------------------------------------


def test_the_sample_holds_every_kind_of_question_and_every_scheme() -> None:
    assert all(name.startswith(tuple(EVERY)) for name in QUESTIONS)
    sample = " ".join(SAMPLE)
    assert [kind for kind in (*EVERY, "lambda_s", "dims 2", "constant beta") if kind not in sample] == []
    schemes = (*SCHEMES, *EXPONENTIAL.values(), *POSITION.values())
    assert {scheme.name for scheme in schemes} - {*REMEMBERING} <= set(sample.replace(",", "").split())


def test_a_sample_of_the_entries_derived_now_is_what_ships() -> None:
    assert stale({name: QUESTIONS[name] for name in SAMPLE}) == []


@pytest.mark.nightly
def test_every_entry_derived_now_is_what_ships() -> None:
    assert stale(QUESTIONS) == []


def test_the_file_answers_every_built_in_question_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    def remember(question):
        asked.add(derivations.digest(question))
        return answer(question)

    def refuse(question, _):
        raise AssertionError(f"{question} does not ship")

    answer = derivations.known
    monkeypatch.setattr(derivations, "known", remember)
    monkeypatch.setattr(cache, "_kept", refuse)
    for ask in QUESTIONS.values():
        ask()
    assert asked == derivations.keys()


def test_the_declarations_that_ship_are_those_in_sympy() -> None:
    first = json.loads(derivations.FILE.read_text().splitlines()[0])
    assert first["version"] == derivations.version(), "run python -m weakorder.integrators.make_derivations"
    assert first["declared"] == json.loads(json.dumps(declarations.describe()))


def test_a_stale_entry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong digit in one answer, and an answer that is missing."""
    names = ["flows of part A of psld", "order of ROBA, euler, linear beta, dims 1", "step map of RVV, euler"]
    (key,) = make_derivations.derive(QUESTIONS[names[1]])
    first, lines = derivations._lines()
    wrong = lines[key].replace("2*", "3*", 1)
    assert wrong != lines[key]
    monkeypatch.setattr(derivations, "_lines", lambda: (first, lines | {key: wrong}))
    assert stale({name: QUESTIONS[name] for name in names}) == [names[1]]
    monkeypatch.setattr(derivations, "_lines", lambda: (first, {k: line for k, line in lines.items() if k != key}))
    assert stale({name: QUESTIONS[name] for name in names}) == [names[1]]


def test_what_is_derived_afresh_is_neither_read_nor_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEAKORDER_CACHE_DIR", str(tmp_path))
    done = []
    with cache.afresh() as answers:
        assert cache.cached(("a test",), lambda: done.append(1) or (1, 2)) == [1, 2]
        assert cache.cached(("a test",), lambda: done.append(2) or (3, 4)) == [1, 2]
    assert list(answers.values()) == [[1, 2]]
    assert list(tmp_path.iterdir()) == []
    assert cache.cached(("a test",), lambda: [5]) == [5]


# --- What the version is of -------------------------------------------------------------------------------------------


def test_comments_docstrings_and_layout_are_no_other_version() -> None:
    source = (Path(derivations.__file__).parent / "declarations.py").read_text()
    bare = derivations._bare(source)
    assert derivations._bare("# a comment\n" + source.replace("    ", "        ")) == bare
    assert derivations._bare(source.replace("Everything acts per coordinate", "Something else")) == bare
    changed = source.replace("-gamma * x / 2", "-gamma * x / 3")
    assert changed != source
    assert derivations._bare(changed) != bare


def _run(script: str, folder: Path) -> str:
    environment = {"WEAKORDER_CACHE_DIR": str(folder), "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    ).stdout


ANSWERS = """
from weakorder.theory.splitting import SPLITTINGS
from weakorder.integrators.catalogue import CATALOGUE
from weakorder.theory.weak_order import prove_order
import json, sys
values = {"gamma": 0.3, "nu": 2.0, "kappa": 0.04}
flow = SPLITTINGS["psld"]["O"].exact(0.5, values)
print(json.dumps([[entry.tolist() for entry in flow], prove_order(CATALOGUE["RSE"]).coefficients]))
print("sympy" in sys.modules)
"""


@pytest.mark.nightly
def test_without_the_file_everything_is_derived_to_the_same(tmp_path: Path) -> None:
    absent = "from pathlib import Path\nfrom weakorder.theory import derivations\nderivations.FILE = Path('absent')\n"
    shipped, no_sympy = _run(ANSWERS, tmp_path).splitlines()
    assert list(tmp_path.iterdir()) == []
    derived, sympy = _run(absent + ANSWERS, tmp_path).splitlines()
    assert (no_sympy, sympy) == ("False", "True")
    assert derived == shipped
    assert list(tmp_path.iterdir()) != []


def test_a_changed_declaration_is_never_answered_from_the_file(tmp_path: Path) -> None:
    """The forward SDE with twice the damping, edited in the source: declared, and derived, as it then is."""
    script = (
        "import weakorder.theory.derivations as d\n"
        "d._bare = lambda source, bare=d._bare: bare(source) + 'edited'\n"
        "import weakorder.theory.declarations as declarations\n"
        "cut = declarations.SPLITTINGS['psld']\n"
        "from weakorder.theory.symbols import x, m, gamma, nu\n"
        "cut.parts['O'] = cut.parts['O']._replace(drift=(-gamma * x, -nu * m / 2))\n"
        "cut.parts['A'] = cut.parts['A']._replace(\n"
        "    drift=(cut.parts['A'].drift[0] + gamma * x / 2, cut.parts['A'].drift[1]))\n"
        "from weakorder.theory.splitting import PSLD\n"
        "print(PSLD['O'].declaration if False else PSLD['O'].sde.declaration[0], PSLD['O'].exact.terms[0][0])\n"
    )
    assert _run(script, tmp_path).strip() == "-gamma*x [['1', 0, '-gamma']]"


# --- Values made from text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPLITTINGS)
def test_a_built_in_splitting_is_its_declaration(name: str) -> None:
    """Claim: made from text, it has the expressions of the sympy declaration, and equals what they declare."""
    splitting, cut = SPLITTINGS[name], declarations.SPLITTINGS[name]
    assert (splitting.whole.drift, splitting.whole.diffusion) == cut.whole
    assert {part.name: (part.drift, part.diffusion) for part in splitting.parts} == cut.parts
    made = tuple(Part(letter, *dynamics) for letter, dynamics in cut.parts.items())
    again = Splitting(name, splitting.diffusion, LinearSDE(*cut.whole), made)
    assert again == splitting
    assert hash(again) == hash(splitting)
    changed = Part(made[0].name, tuple(2 * entry for entry in made[0].drift), made[0].diffusion)
    assert (changed, *splitting.parts[1:]) != splitting.parts


def test_a_built_in_diffusion_is_its_declaration() -> None:
    assert PSLD_DIFFUSION.score_arguments == (x, m, t)
    assert PSLD_DIFFUSION.prior_variance == (1, M)
    for diffusion in (PSLD_DIFFUSION, STATIONARY):
        noising = declarations.DIFFUSIONS[diffusion.name]
        assert (diffusion.forward.drift, diffusion.forward.diffusion) == noising.forward
        assert diffusion.data_variance == noising.data_variance
        again = Diffusion(
            diffusion.name,
            LinearSDE(*noising.forward),
            noising.data_variance,
            noising.prior_variance,
            noising.score_arguments,
        )
        assert again == diffusion
        assert hash(again) == hash(diffusion)
    assert STATIONARY.score_arguments == (x,)
    assert PSLD_DIFFUSION != STATIONARY


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_a_scheme_survives_pickling_also_once_it_was_used(scheme) -> None:
    """Between processes it travels as its text."""
    assert prove_order(scheme).order == scheme.order
    scheme.splitting.whole.numbers({"gamma": 0.3, "nu": 2.0, "kappa": 0.04})
    again = pickle.loads(pickle.dumps(scheme))
    assert again == scheme
    assert again.splitting.whole.drift == scheme.splitting.whole.drift


def test_a_users_part_survives_pickling() -> None:
    part = Part("X", (-sp.Float(0.1) * x / 3, sp.S.Zero))
    again = pickle.loads(pickle.dumps(part))
    assert again == part
    assert again.drift == part.drift
