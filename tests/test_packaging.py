"""What is installed: a wheel holds every module and data file, a user's folders stay theirs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("theory", "integrators", "verification", "reports")


def _run(*command: str, **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built from a copy so that nothing is left behind in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\n")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    _run(*command, str(source))
    return next(folder.glob("*.whl"))


def test_a_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("weakorder/")}
    wanted = {
        f"weakorder/{path.relative_to(ROOT)}"
        for folder in (*FOLDERS, "examples")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == wanted


def test_the_wheel_runs_beside_a_users_own_folders_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    for folder in (*FOLDERS, "examples", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise RuntimeError('the user\\'s own')\n")
    script = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from weakorder.reports.commands import cli\nfrom weakorder.reports.pages import report\n"
        "from weakorder.verification.exact import spectrum\n"
        f"assert cli.__file__.startswith({str(installed)!r}), cli.__file__\n"
        "sys.argv = ['weakorder', 'moments', 'ROBA', '--json']\ncli.main()"
    )
    assert '"exact_cov"' in _run(sys.executable, "-c", script, cwd=tmp_path)


def test_theory_imports_no_torch() -> None:
    script = (
        "import sys, weakorder.theory.splitting, weakorder.theory.scheme, weakorder.theory.kernel\n"
        "assert 'torch' not in sys.modules"
    )
    _run(sys.executable, "-c", script)


def test_nothing_that_is_committed_reads_the_workplace() -> None:
    """A user's clone has no sibling folders: no file names one."""
    names = _run("git", "ls-files", cwd=ROOT).split()
    texts = [ROOT / name for name in names if Path(name).suffix in {".py", ".md", ".toml", ".txt", ".j2", ""}]
    needle = "../" + "shared"
    assert [str(path) for path in texts if path.is_file() and needle in path.read_text()] == []
