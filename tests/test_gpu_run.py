"""The prepared run on an accelerator (tests/benchmarks/gpu), rehearsed without one."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.gpu import parts, run, table
from weakorder.verification.cifar10.model import load_checkpoint

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
