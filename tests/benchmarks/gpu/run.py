"""One prepared run on an accelerator, from correctness to training, each part with a time limit of its own.

    python tests/benchmarks/gpu OUT [--data IMAGES] [--test IMAGES] [--seconds 540] [--parts abfcde] [--tiny]

Nothing has to be installed but what the package depends on (a wheel on PYTHONPATH will do): the tree is made importable
as `weakorder` for the parts. Each part is a process (parts.py). It records what it finds as it goes; one that fails,
hangs or is late is ended, what it had found is kept, and the next part runs. OUT holds log.txt, gpu.json (written whole
after every part), and of training network.pt, moments.pt, model.safetensors and samples.png.

Parts that compile start doing so at once, beside part a, whose figures are no times; they wait for their turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .parts import PARTS, Part, run_part, write
from .table import lines

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PATIENCE = 150.0  # seconds after the start until which a part's turn waits for those that still compile


def importable(folder: Path) -> dict[str, str]:
    """The environment in which the tree is `weakorder`, uninstalled: links in `folder`, and the package's metadata."""
    package = folder / "weakorder"
    package.mkdir(parents=True, exist_ok=True)
    for name in ("theory", "integrators", "verification", "reports", "examples"):
        link = package / name
        if not link.exists():
            link.symlink_to(ROOT / name)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(exist_ok=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["entry-points"].items()
    words = [f"[{group}]\n" + "".join(f"{at} = {to}\n" for at, to in points.items()) for group, points in groups]
    (information / "entry_points.txt").write_text("".join(words))
    if importlib.util.find_spec("platformdirs") is None:
        body = (
            "import os, tempfile\n\n\ndef user_cache_dir(name):\n    return os.path.join(tempfile.gettempdir(), name)\n"
        )
        (folder / "platformdirs.py").write_text(body)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    settings = {
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "WEAKORDER_CACHE_DIR": str(folder / "cache"),
    }
    return os.environ | settings


class Run:
    """The processes of a run, its log and its results."""

    parts = PARTS

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.began = options, time.time()
        self.out, self.work = Path(options.out), Path(options.work)
        self.out.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self.environment = importable(self.work / "site")
        self.log = (self.out / "log.txt").open("ab", buffering=0)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.results: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": options.commit or self.commit(),
            "command": options.words,
            "parts": {},
        }

    def commit(self) -> str | None:
        """Of the tree, if git is there."""
        try:
            words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
            return subprocess.run(words, capture_output=True, text=True, timeout=10).stdout.strip() or None
        except (OSError, subprocess.SubprocessError):
            return None

    def say(self, text: str) -> None:
        """A line of the log, and to the terminal."""
        line = f"{time.time() - self.began:7.1f} s  {text}\n"
        self.log.write(line.encode())
        print(line, end="", flush=True)

    def start(self, part: Part) -> None:
        """Its process, in a session of its own, so that what it starts ends with it."""
        self.processes[part.letter] = subprocess.Popen(
            self.words(part), env=self.environment, cwd=ROOT, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def words(self, part: Part) -> list[str]:
        """The command that a part is."""
        return [sys.executable, str(HERE), *self.options.words, "--work", str(self.work), "--be", part.letter]

    def stop(self, letter: str) -> None:
        """End a part's process, and those that it started."""
        process = self.processes[letter]
        for number, wait in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            try:
                os.killpg(process.pid, number)
                process.wait(wait)
            except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
                continue

    def turn(self, part: Part, end: float) -> None:
        """Let a part work until it ends, or its time is up."""
        began = time.time()
        if part.letter not in self.processes:
            self.start(part)
        process = self.processes[part.letter]
        end = min(end, began + part.limit) if part.limit else end
        write(self.work / f"{part.letter}.go", repr(end).encode())
        outcome = "ended"
        while process.poll() is None:
            if time.time() > end + (3 if part.limit is not None else 20):  # training ends by itself
                outcome = "stopped at its limit"
                break
            time.sleep(0.05)
        self.stop(part.letter)
        if outcome == "ended" and process.returncode:
            outcome = f"failed with exit code {process.returncode}"
        try:
            found = json.loads((self.work / f"{part.letter}.json").read_text())
        except (OSError, ValueError):
            found = {}
        seconds = time.time() - began
        self.results["parts"][part.letter] = {"title": part.title, "outcome": outcome, "seconds": seconds} | found
        self.save()
        self.say(f"{part.letter}. {part.title}: {outcome} after {seconds:.1f} s")

    def save(self) -> None:
        """gpu.json, whole."""
        self.results["seconds"] = time.time() - self.began
        write(self.out / "gpu.json", (json.dumps(self.results, indent=1, default=str) + "\n").encode())

    def all(self) -> None:
        """The parts that were asked for, in order."""
        parts = [part for part in self.parts if part.letter in self.options.parts]
        end = self.began + self.options.seconds
        try:
            for part in parts:
                if part.early:
                    self.start(part)
            for place, part in enumerate(parts):
                if place == 0 and part.early:
                    self.say(f"{part.letter} begins")
                elif part.early or place > 0:
                    self.wait_for_compilers(parts)
                self.turn(part, end)
        finally:
            for letter in self.processes:
                self.stop(letter)
            self.save()
            self.say("done")

    def wait_for_compilers(self, parts: list[Part]) -> None:
        """Until nothing compiles beside the next part, or patience ends."""
        began = time.time()

        def busy() -> list[str]:
            letters = [part.letter for part in parts if part.early]
            running = [at for at in letters if at in self.processes and self.processes[at].poll() is None]
            return [at for at in running if not (self.work / f"{at}.prepared").exists()]

        while busy() and time.time() - self.began < PATIENCE:
            time.sleep(0.05)
        if time.time() - began > 0.2:
            self.say(f"waited {time.time() - began:.1f} s for what compiles; still busy: {busy() or 'none'}")


def parsed(words: list[str]) -> argparse.Namespace:
    """The command's words; `words` of what it gives are themselves, for the parts' processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder for results")
    parser.add_argument("--data", help="training images, as `weakorder cifar10 train` reads them, or such a zip as .xz")
    parser.add_argument("--test", help="held-out images, likewise; without them the last 2,000 of --data")
    parser.add_argument("--seconds", type=float, default=540.0, help="of the whole run")
    parser.add_argument("--parts", default="".join(part.letter for part in PARTS))
    parser.add_argument("--train-seconds", type=float, help="at most; default what is left")
    parser.add_argument("--resume", help="folder with network.pt and moments.pt of an earlier run")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--mean-weight", type=float, default=0.03)
    parser.add_argument("--ema-decay", type=float, default=0.999)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: little of everything")
    parser.add_argument("--commit", help="of the tree, where git does not know")
    parser.add_argument("--work", help="scratch folder")
    parser.add_argument("--be", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.words = words
    if unknown := set(options.parts) - {part.letter for part in PARTS}:
        known = ", ".join(f"{part.letter} ({part.title})" for part in PARTS)
        parser.error(f"--parts {options.parts}: there is no part {min(unknown)}; the parts are {known}")
    if options.work is None:
        options.work = tempfile.mkdtemp(prefix="weakorder-gpu-")
    options.out = str(Path(options.out).resolve())
    for name in ("data", "test", "resume"):
        if getattr(options, name):
            setattr(options, name, str(Path(getattr(options, name)).resolve()))
    return options


def main(words: list[str] | None = None) -> None:
    """The run, or (--be) one part of it."""
    options = parsed(sys.argv[1:] if words is None else words)
    if options.be:
        run_part(options)
        return
    run = Run(options)
    run.all()
    print("\n".join(lines(run.results)), flush=True)
