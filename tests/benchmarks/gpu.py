"""One prepared run on an accelerator, from correctness to training, each part with a time limit of its own.

    python tests/benchmarks/gpu.py OUT [--data IMAGES] [--test IMAGES] [--seconds 540] [--parts abcde] [--tiny]

Nothing has to be installed but what the package depends on: the tree is made importable as `weakorder` for the parts.
Each part is a process (gpu_measure, gpu_train). It records what it finds as it goes; one that fails, hangs or is late
is ended, what it had found is kept, and the next part runs. OUT holds log.txt, gpu.json (written whole after every
part), and of training network.pt, moments.pt, model.safetensors and samples.png.

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
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """`module`.`function` in a process of its own, at most `limit` seconds; None: what is left. early: it starts with
    the first part, and waits for its turn when it has compiled."""

    letter: str
    title: str
    module: str
    function: str
    limit: float | None
    early: bool = False


PARTS = (
    Part("a", "correctness", "gpu_measure", "correctness", 75),
    Part("b", "the sampling loop", "gpu_measure", "sampling_loop", 60),
    Part("c", "the published network", "gpu_measure", "published_network", 100, early=True),
    Part("d", "precision", "gpu_measure", "precision", 60),
    Part("e", "training", "gpu_train", "training", None, early=True),
)
PATIENCE = 45  # seconds that a part's turn waits for those that still compile


# --- In the process of a part -----------------------------------------------------------------------------------------


class Context:
    """What a part knows, and where it records what it finds."""

    def __init__(self, options: argparse.Namespace, part: Part) -> None:
        self.options, self.part = options, part
        self.out, self.work = Path(options.out), Path(options.work)
        self.tiny, self.device = options.tiny, options.device
        self.found: dict[str, Any] = {}
        self.end = time.time() + 1e6

    def record(self, name: str, value: Any) -> None:
        """Keep an entry of the part's results; the file is whole at any time."""
        self.found[name] = value
        write(self.work / f"{self.part.letter}.json", json.dumps(self.found, default=str).encode())
        print(f"[{self.part.letter}] {name}: {json.dumps(value, default=str)[:600]}", flush=True)

    def attempt(self, name: str, measure: Callable[[], Any]) -> Any:
        """Record what `measure()` returns, or its error; the part goes on."""
        began = time.time()
        try:
            value = measure()
        except Exception as error:
            traceback.print_exc()
            value = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
        self.record(name, value)
        self.found.setdefault("took", {})[name] = round(time.time() - began, 2)
        return value

    def prepared(self) -> None:
        """Compiled: wait for this part's turn."""
        (self.work / f"{self.part.letter}.prepared").touch()
        go = self.work / f"{self.part.letter}.go"
        while not go.exists():
            time.sleep(0.02)
        while not (text := go.read_text()):
            time.sleep(0.01)
        self.end = float(text)

    def left(self) -> float:
        """Seconds to the end of this part's turn."""
        return self.end - time.time()


def write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


def run_part(options: argparse.Namespace) -> None:
    """Be the process of a part."""
    sys.path.insert(0, str(HERE))
    part = next(part for part in PARTS if part.letter == options.be)
    context = Context(options, part)
    module = importlib.import_module(part.module)
    if not part.early:
        context.prepared()
    getattr(module, part.function)(context)
    context.record("finished", True)


# --- The run ----------------------------------------------------------------------------------------------------------


def importable(folder: Path) -> dict[str, str]:
    """The environment in which the tree is `weakorder`, uninstalled: links in `folder`, and the package's metadata."""
    package = folder / "weakorder"
    package.mkdir(parents=True, exist_ok=True)
    for name in ("theory", "integrators", "verification", "reports", "examples"):
        link = package / name
        if not link.exists():
            link.symlink_to(ROOT / name)
    information = folder / "weakorder-0.1.0.dist-info"
    information.mkdir(exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: weakorder\nVersion: 0.1.0\n")
    (information / "entry_points.txt").write_text("[pytest11]\nweakorder = weakorder.reports.pytest_plugin\n")
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
            "command": sys.argv,
            "parts": {},
        }

    def commit(self) -> str | None:
        try:
            words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
            return subprocess.run(words, capture_output=True, text=True, timeout=10).stdout.strip() or None
        except (OSError, subprocess.SubprocessError):
            return None

    def say(self, text: str) -> None:
        line = f"{time.time() - self.began:7.1f} s  {text}\n"
        self.log.write(line.encode())
        print(line, end="", flush=True)

    def start(self, part: Part) -> None:
        words = [sys.executable, str(HERE / "gpu.py"), *sys.argv[1:], "--work", str(self.work), "--be", part.letter]
        self.processes[part.letter] = subprocess.Popen(
            words, env=self.environment, cwd=ROOT, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def stop(self, letter: str) -> None:
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
        self.results["seconds"] = time.time() - self.began
        write(self.out / "gpu.json", (json.dumps(self.results, indent=1, default=str) + "\n").encode())

    def all(self) -> None:
        parts = [part for part in PARTS if part.letter in self.options.parts]
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

        while busy() and time.time() - self.began < 75 + PATIENCE:
            time.sleep(0.05)
        if time.time() - began > 0.2:
            self.say(f"waited {time.time() - began:.1f} s for what compiles; still busy: {busy() or 'none'}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder for results")
    parser.add_argument("--data", help="training images, as `weakorder cifar10 train` reads them, or such a zip as .xz")
    parser.add_argument("--test", help="held-out images, likewise; without them the last 2,000 of --data")
    parser.add_argument("--seconds", type=float, default=540.0, help="of the whole run")
    parser.add_argument("--parts", default="abcde")
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
    options = parser.parse_args()
    if options.work is None:
        import tempfile

        options.work = tempfile.mkdtemp(prefix="weakorder-gpu-")
    options.out = str(Path(options.out).resolve())
    for name in ("data", "test", "resume"):
        if getattr(options, name):
            setattr(options, name, str(Path(getattr(options, name)).resolve()))
    return options


def main() -> None:
    options = parsed()
    if options.be:
        run_part(options)
        return
    run = Run(options)
    run.all()
    sys.path.insert(0, str(HERE))
    import gpu_table

    print("\n".join(gpu_table.lines(run.results)), flush=True)


if __name__ == "__main__":
    main()
