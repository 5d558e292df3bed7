"""A source distribution and a wheel, as they are published: what they hold, and that they work where nothing else is.

Nightly: the environment is new, with what weakorder needs and without this tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
pytestmark = pytest.mark.nightly


def _run(*command: str | Path, **options) -> str:
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def _tracked() -> list[str]:
    names = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\n")
    return [name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both, built from a copy: the wheel from the source distribution."""
    source = tmp_path_factory.mktemp("source")
    for name in _tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    _run(sys.executable, "-m", "build", "--no-isolation", source)
    return source / "dist"


@pytest.fixture(scope="module")
def environment(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A new environment with the wheel. What it depends on is there by its place alone, so that this tree, which is
    installed beside it, is not."""
    folder = tmp_path_factory.mktemp("new") / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    (wheel,) = distributions.glob("*.whl")
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PATH": f"{folder / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"}


def test_the_source_distribution_holds_every_file_of_the_tree(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    assert path.name == f"weakorder-{VERSION}.tar.gz"
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in _tracked() if not name.startswith(".")}
    assert wanted - held == set()
    assert not any(
        "_build" in name or "__pycache__" in name or name.startswith(("docs/reference/api/", "docs/gallery/schemes/"))
        for name in held
    )


def test_what_is_installed_is_the_wheels(environment: dict[str, str], tmp_path: Path) -> None:
    script = "import weakorder.theory as room; print(room.__file__)"
    found = _run("python", "-c", script, env=environment, cwd=tmp_path)
    assert str(ROOT) not in found
    assert "site-packages" in found


def test_the_wheel_says_its_version_and_verifies(environment: dict[str, str], tmp_path: Path) -> None:
    assert _run("weakorder", "--version", env=environment, cwd=tmp_path) == f"weakorder {VERSION}\n"
    assert "PASS" in _run("weakorder", "verify", "ROBA", env=environment, cwd=tmp_path)
