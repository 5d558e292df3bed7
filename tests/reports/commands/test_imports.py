"""What each command imports: sympy only where something is derived, torch only where something is sampled, and so on.

The modules that a command waits for are its time to the first line. Each runs in a process of its own, with an empty
cache: what is built in waits for nobody.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from selection import nightly_but

# Every package outside the standard library that a command may import, besides click and lazy_loader.
EXACT = {"numpy"}
NUMBA = {"numba", "llvmlite"}
TORCH = {"torch", "torchgen", "typing_extensions", "tqdm"}
IMPORTS = [
    (["--help"], set()),
    (["verify", "--help"], set()),
    (["schemes"], {"numpy"}),
    (["derive", "ROBA"], {"numpy"}),
    (["derive", "SSCS", "--dims", "2", "--beta-min", "0.1", "--beta-max", "15.9", "--json"], {"numpy"}),
    (["derive", "BAOAB", "--flow", "true"], {"numpy"}),
    (["verify", "ROBA"], EXACT),
    (["verify", "ROBA", "--lambda-s", "1.16", "--flow", "exact"], EXACT),
    (["verify", "ABOBA", "--steps", "25,50,100,200"], EXACT),
    (["moments", "NVV", "--steps", "10"], {"numpy"}),
    (["moments", "O S A B", "--steps", "10"], {"numpy"}),
    (["stability", "RVV", "--steps", "100"], {"numpy", "scipy"} | NUMBA),
    (["budget", "ROBA", "--nfe", "10", "--data-variance", "0.25"], {"numpy"}),
    # what follows derives, or samples
    (["verify", "O(1/2) S B A O(1/2)", "--steps", "25,50,100,200"], EXACT | {"sympy", "mpmath"}),
    (
        ["verify", "ROBA", "--target", "mixture", "--steps", "8,16,32,64"],
        EXACT | {"scipy"} | NUMBA | TORCH,
    ),
]
OFTEN = [
    ["--help"],
    ["derive", "ROBA"],
    ["verify", "ROBA"],
    ["stability", "RVV", "--steps", "100"],
]
NEVER = ("scipy.stats", "scipy.optimize", "matplotlib", "jinja2")

SCRIPT = """
import sys
from weakorder.reports.commands import cli
sys.argv[0] = "weakorder"
try:
    cli.main()
except SystemExit:
    pass
roots = {name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)}
print("LOADED", *sorted(roots - set(sys.stdlib_module_names)))
print("NEVER", *(name for name in %r if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("words", "imports"),
    nightly_but(lambda case: case[0] in OFTEN, IMPORTS),
    ids=[" ".join(words) for words, _ in IMPORTS],
)
def test_a_command_imports_what_it_uses_and_nothing_else(words: list[str], imports: set[str], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT % (NEVER,), *words],
        capture_output=True,
        text=True,
        check=True,
        env={"WEAKORDER_CACHE_DIR": str(tmp_path), "PATH": ""},
    )
    loaded, never = (line.split()[1:] for line in result.stdout.splitlines()[-2:])
    own = {name for name in loaded if name.startswith("_")} | {"weakorder", "click", "lazy_loader"}
    own |= {"charset_normalizer", "yaml"}  # which scipy's numpy.f2py and numba take where another package brought them
    assert set(loaded) - own == imports, result.stderr
    assert never == []
    assert any(tmp_path.iterdir()) == ("sympy" in imports), "the cache is for what is derived"
