"""The prepared run on an accelerator (tests/benchmarks/gpu), rehearsed without one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.gpu import parts, precision, run, table
from pretended_gpu import GPU
from tiny_models import CPU, gaussian
from torch import Tensor
from torch.nn import functional
from weakorder.verification.cifar10.model import load_checkpoint
from weakorder.verification.cifar10.study import Store
from weakorder.verification.cifar10.study.reading import Data, read

PROGRAM = Path(run.__file__).parent
NOTE = "import json, sys; json.dump({'found': 7}, open(sys.argv[1], 'w')); "  # what a part has found so far


LINES = {
    "a": NOTE + "raise ValueError('a broken part')",
    "b": NOTE + "import time; time.sleep(60)",
    "c": "pass",
    "d": NOTE,
}


class FewParts(run.Run):
    """A run whose parts are one line of Python each."""

    parts = tuple(parts.Part(letter, f"part {letter}", "", "", 3.0 if letter == "b" else 60.0) for letter in LINES)

    def words(self, part: parts.Part) -> list[str]:
        return [sys.executable, "-c", LINES[part.letter], str(self.work / f"{part.letter}.json")]


@pytest.mark.nightly
def test_a_part_that_raises_or_hangs_is_recorded_with_what_it_found_and_the_next_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = run.parsed([str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--parts", "abcd", "--commit", "x"])
    few = FewParts(options)
    few.all()
    few.log.close()
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert written["commit"] == "x"
    outcomes = {letter: (part["outcome"], part.get("found")) for letter, part in written["parts"].items()}
    assert outcomes == {
        "a": ("failed with exit code 1", 7),
        "b": ("stopped at its limit", 7),
        "c": ("ended", None),
        "d": ("ended", 7),
    }
    assert 3 < written["parts"]["b"]["seconds"] < 30
    assert "a broken part" in (tmp_path / "out" / "log.txt").read_text()
    assert few.processes["b"].poll() is not None, "what hangs was left running"
    assert "stopped at its limit" in "\n".join(table.lines(written))
    assert "d. part d: ended" in capsys.readouterr().out


def test_every_part_is_a_function_of_its_module() -> None:
    assert len({part.letter for part in parts.PARTS}) == len(parts.PARTS) == 6
    for part in parts.PARTS:
        assert callable(getattr(import_module(f"benchmarks.gpu.{part.module}"), part.function))


def test_a_measurement_that_raises_is_recorded_in_its_place(tmp_path: Path) -> None:
    options = SimpleNamespace(out=tmp_path, work=tmp_path, tiny=True, device="cpu")
    context = parts.Context(options, parts.PARTS[0])  # type: ignore[arg-type]
    assert context.attempt("first", lambda: 1 / 0) == {"error": "ZeroDivisionError: division by zero"}
    assert context.attempt("second", lambda: 2) == 2
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["first"] == {"error": "ZeroDivisionError: division by zero"}
    assert written["second"] == 2


def test_an_unknown_part_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run.parsed(["out", "--parts", "az"])
    assert caught.value.code == 2
    assert "there is no part z; the parts are a (correctness), b (the sampling loop)" in capsys.readouterr().err


def test_the_tree_is_the_package_of_that_version_with_its_entry_points(tmp_path: Path) -> None:
    run.importable(tmp_path)
    (found,) = metadata.distributions(path=[str(tmp_path)])
    installed = metadata.distribution("weakorder")  # of which a build may have left a second copy in the tree
    assert found.version == installed.version
    own, others = (
        {(point.group, point.name, point.value) for point in each.entry_points if point.group != "console_scripts"}
        for each in (found, installed)
    )
    assert own == others
    assert any(group == "pytest11" for group, _, _ in own)


# --- Part d -----------------------------------------------------------------------------------------------------------

PACE = 413_000 / 34  # evaluations of the shipped network a second, on an H200 (results/2026-11-27-h200.json)


def evaluations(samples: int) -> int:
    """Of a stage, had none gone before."""
    wanted = precision.design(samples)
    return samples * sum(cell.nfe for cell in (*wanted.references, *wanted.cells.values(), *wanted.rounded.values()))


def outcome_of_part_d(folder: Path, monkeypatch: pytest.MonkeyPatch, pace: float) -> tuple[dict[str, Any], float]:
    """What it records within its limit, and the seconds it takes, if nothing but evaluations at `pace` takes time."""
    (part,) = (part for part in parts.PARTS if part.letter == "d")
    assert part.limit is not None
    clock, sampled = [0.0], [0]

    def study(wanted: Any, *_: Any) -> str:
        clock[0] += (evaluations(wanted.samples) - sampled[0]) / pace
        sampled[0] = evaluations(wanted.samples)
        return "a result"

    options = SimpleNamespace(out=folder, work=folder, tiny=False, device="cpu")
    context = parts.Context(options, part)  # type: ignore[arg-type]
    monkeypatch.setattr(context, "prepared", lambda: None)
    monkeypatch.setattr(context, "left", lambda: part.limit - clock[0])
    monkeypatch.setattr(precision, "study", study)
    monkeypatch.setattr(precision, "waves", lambda *_: None)
    monkeypatch.setattr(precision, "time", SimpleNamespace(time=lambda: clock[0]))
    precision.precision(context)
    context.found.pop("took")
    return context.found, clock[0] / part.limit


def test_512_samples_take_part_d_little_more_than_half_its_limit_at_the_measured_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, share = outcome_of_part_d(tmp_path, monkeypatch, PACE)
    assert found == dict.fromkeys(("128 samples", "256 samples", "512 samples"), "a result")
    assert share < 0.6  # statistics, two seconds a cell on a slow core, and Triton's compiler need the rest


def test_what_a_slow_device_has_no_time_for_is_left_out_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, share = outcome_of_part_d(tmp_path, monkeypatch, PACE / 3)
    assert list(found) == ["128 samples", "256 samples", "512 samples"]
    assert found["256 samples"] == "a result"
    assert found["512 samples"].startswith("left out: ")
    assert share <= 1


def test_part_d_says_of_its_cells_what_the_study_does(tmp_path: Path) -> None:
    model, _ = gaussian()
    exact = model.score(CPU)

    def rounded(u: Tensor, t: float) -> Tensor:  # the exact score, behind a product
        return exact(functional.linear(u.float(), torch.eye(u.shape[-1])).to(u.dtype), t)

    wanted, store = precision.design(4, tiny=True), Store(tmp_path, replace(model, score=lambda _: rounded), batch=2)
    found = precision.study(wanted, store, "cpu")
    results, _ = read(wanted, store, Data(None, None))
    (own,), ((cell,),) = found["cells"], (scheme["cells"] for scheme in results["schemes"])
    for quantity, error in own["weak"].items():
        assert error == {name: cell["weak"][quantity][name] for name in error} | {"slope": None}
    changes = {name: own["precisions"][name]["change"] for name in ("tf32", "bfloat16")}
    assert changes == {name: cell["precisions"][name]["change"] for name in changes}
    assert changes["tf32"]["spectrum"] != changes["bfloat16"]["spectrum"]
    assert found["rounding"] == results["rounding"]


@pytest.mark.nightly
def test_part_d_ends_on_a_pretended_gpu_without_an_error(tmp_path: Path, first_gpu: GPU) -> None:
    options = SimpleNamespace(out=tmp_path, work=tmp_path, tiny=True, device="cuda")
    context = parts.Context(options, next(part for part in parts.PARTS if part.letter == "d"))  # type: ignore[arg-type]
    parts.write(tmp_path / "d.go", repr(time.time() + 600).encode())
    precision.precision(context)
    assert [name for name in context.found if name != "took"] == ["2 samples", "4 samples"]
    for name in ("2 samples", "4 samples"):
        found = context.found[name]
        assert found["cells"][0]["weak"]["spectrum"]["value"] > 0, found
    assert first_gpu.waits > 0


@pytest.mark.nightly
def test_a_rehearsal_on_the_processor_ends_every_part_without_an_error(tmp_path: Path) -> None:
    words = [str(tmp_path / "out"), "--device", "cpu", "--tiny", "--seconds", "1500", "--work", str(tmp_path / "work")]
    done = subprocess.run([sys.executable, str(PROGRAM), *words], capture_output=True, text=True, check=False)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert list(written["parts"]) == [part.letter for part in parts.PARTS]
    for part in written["parts"].values():
        assert (part["outcome"], part["finished"]) == ("ended", True), log
        assert not [name for name, value in part.items() if isinstance(value, dict) and "error" in value], log
    found = written["parts"]["a"]
    assert found["samples"]["worst"] == {"float64": 0, "float32": 0}
    assert found["noise"]["words_equal"]
    assert found["tests"]["exit"] == 0, found["tests"]["tail"]
    trained = written["parts"]["e"]
    assert trained["training"]["images"] > 0
    assert np.isfinite(trained["held_out_loss"]["new"]["value"])
    made = load_checkpoint(tmp_path / "out" / "model.safetensors")
    assert json.loads(made.metadata["held_out_loss"])["images"] == 16
