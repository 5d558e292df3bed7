"""The workflow for GitHub Actions that the documentation offers: it is one, and its commands do what the page says."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from weakorder.reports.commands import cli

ROOT = Path(__file__).parent.parent
WORKFLOW = yaml.safe_load((ROOT / "docs" / "how-to" / "weak-order.yml").read_text())
(JOB,) = WORKFLOW["jobs"].values()
RUNS = {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}


def test_the_workflow_is_one() -> None:
    """YAML reads the key `on` as true."""
    assert set(WORKFLOW[True]) == {"push", "pull_request"}
    assert JOB["runs-on"] == "ubuntu-latest"
    assert all(isinstance(value, str) for value in WORKFLOW["env"].values())
    for step in JOB["steps"]:
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            name, _, version = step["uses"].partition("@v")
            assert name.startswith("actions/")
            assert version.isdigit()
    assert [name for name in WORKFLOW["env"] if not any(f'"${name}"' in run for run in RUNS.values())] == []


def _words(run: str) -> list[str]:
    """The command's words, with the workflow's variables put in."""
    for name, value in WORKFLOW["env"].items():
        run = run.replace(f'"${name}"', shlex.quote(value))
    return shlex.split(run.partition(">")[0])


def test_its_commands_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Command, "invoke", lambda *_: None)
    for name, run in RUNS.items():
        if name == "Install":
            assert run == 'python -m pip install "$WEAKORDER"'
            continue
        command, *words = _words(run)
        assert command == "weakorder"
        cli.cli.main(words, prog_name="weakorder", standalone_mode=False)
        with pytest.raises(click.UsageError):
            cli.cli.main([*words, "--no-such-option"], prog_name="weakorder", standalone_mode=False)


def _shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """As a runner of GitHub's runs it."""
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=os.environ | WORKFLOW["env"] | here,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.nightly
def test_its_steps_pass_and_fail_as_the_page_says(tmp_path: Path) -> None:
    sampler = tmp_path / "sampler.py"
    shutil.copy(ROOT / "examples" / "splitting.py", sampler)
    comment = (ROOT / "docs" / "how-to" / "weak-order.yml").read_text().partition("# weakorder baseline")[2]
    record = _shell(tmp_path, "weakorder baseline" + comment.partition("\n")[0])
    assert record.returncode == 0, record.stderr
    steps: dict[str, Any] = {name: run for name, run in RUNS.items() if name != "Install"}
    assert {name: _shell(tmp_path, run).returncode for name, run in steps.items()} == dict.fromkeys(steps, 0)
    assert (tmp_path / "verdict.json").read_text().startswith("{")
    sampler.write_text(sampler.read_text().replace("2 * self.sde.nu * m", "2.2 * self.sde.nu * m"))
    assert {name: _shell(tmp_path, run).returncode for name, run in steps.items()} == dict.fromkeys(steps, 1)
