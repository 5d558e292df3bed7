"""Every code block of the README, CONTRIBUTING and docs/ runs, and what a page shows as output is what is printed.

What it means to run a block stands in document_blocks.py. `make test` runs those that are quick, `make nightly` all.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from document_blocks import READ, RUN, Block, blocks_of, commands_of, console_of, exit_code_of, pages, shows
from weakorder.integrators.loading import find_scheme
from weakorder.reports.commands import cli

ROOT = Path(__file__).parent.parent
PAGES = pages(ROOT)


class Page:
    """A page that is being run, in a folder of its own that holds examples/; `printed` is what its last block printed.

    Its commands run in this process, which has imported everything already, where no shell is needed.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.scope: dict[str, Any] = {"__name__": "page"}
        self.printed = ""

    def run(self, blocks: list[Block], nightly: bool) -> None:
        """Run the blocks of a page in their order; those marked nightly, and their output, only if asked."""
        left_out = False
        for block in blocks:
            if block.is_directive or block.mark == "shown":
                continue
            left_out = (block.mark == "nightly" and not nightly) or (block.language == "text" and left_out)
            if not left_out:
                try:
                    self.run_one(block)
                except BaseException as error:
                    error.add_note(f"in the block at line {block.line}")
                    raise

    def run_one(self, block: Block) -> None:
        """What becomes of a block."""
        if block.mark == "parsed":
            self.parse(block)
        elif block.language in READ:
            READERS[block.language](block.text)
        elif block.language == "text":
            assert shows(block.text, self.printed), f"the page shows\n{block.text}\nand printed is\n{self.printed}"
        elif block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        else:
            self.printed = ""
            getattr(self, block.language)(block.text)

    def sh(self, text: str) -> None:
        """Commands, one after the other."""
        commands = list(commands_of(text))
        if not all(map(is_plain, commands)):
            return self.shell(text, 0)
        for command in commands:
            self.weakorder(command)
        return None

    def console(self, text: str) -> None:
        """Commands with their output."""
        for command, output in console_of(text):
            self.printed = ""
            if is_plain(command):
                self.weakorder(command)
            else:
                self.shell(command, exit_code_of(command))
            assert shows(output, self.printed), f"$ {command}\nthe page shows\n{output}\nand printed is\n{self.printed}"

    def python(self, text: str) -> None:
        """Statements, then the tests that they define."""
        known, printed = set(self.scope), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, "page", "exec"), self.scope)
            for name in [name for name in self.scope if name.startswith("test_") and name not in known]:
                self.scope[name]()
        self.printed = printed.getvalue()

    def pycon(self, text: str) -> None:
        """A doctest."""
        test = doctest.DocTestParser().get_doctest(text, self.scope, "page", "page", 0)
        report = io.StringIO()
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, None, report.write, clear_globs=False)
        self.scope.update(test.globs)
        assert result.attempted
        assert not result.failed, report.getvalue()

    def weakorder(self, command: str) -> None:
        """A command of weakorder's, in this process."""
        self.monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
        printed = io.StringIO()
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            pytest.raises(SystemExit) as stop,
        ):
            cli.main()
        self.printed += printed.getvalue()
        assert int(stop.value.code or 0) == exit_code_of(command), f"{command}\n{self.printed}"

    def shell(self, text: str, code: int) -> None:
        """Anything else, in a shell."""
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.printed = result.stdout
        assert result.returncode == code, f"{text}\n{self.printed}"

    def parse(self, block: Block) -> None:
        """Whether what a block names exists, where it cannot be run."""
        assert block.why, "say why it is not run: <!-- parsed: WHY -->"
        if block.language == "python":
            compile(block.text, "page", "exec")
            return
        text = block.text if block.language == "sh" else "\n".join(command for command, _ in console_of(block.text))
        for command in commands_of(text):
            check_exists(shlex.split(command, comments=True), self.monkeypatch)


READERS = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}


def is_plain(command: str) -> bool:
    """Whether a command is weakorder's and needs no shell."""
    bare = re.sub(r"'[^']*'|\"[^\"$`]*\"", "", command.partition(" #")[0])
    return bare.split()[0] == "weakorder" and not set(bare) & set("|&;<>()$`*?{}~\\")


def check_exists(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises unless this is a command: weakorder's with its options, targets of the Makefile, extras of the package."""
    if words[0] == "make":
        targets = {word for word in words[1:] if "=" not in word}
        assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        found = [re.fullmatch(r"(?:weakorder|\.)(?:\[(.+)\])?", word) for word in words[2:]]
        assert {extra for match in found if match and match[1] for extra in match[1].split(",")} <= extras.keys()
    elif "weakorder" in words:
        with monkeypatch.context() as patch:
            patch.setattr(click.Command, "invoke", lambda *_: None)
            cli.cli.main(words[words.index("weakorder") + 1 :], prog_name="weakorder", standalone_mode=False)
    else:
        raise AssertionError(f"{shlex.join(words)}: nobody knows whether it exists; run it")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page in its folder. What it imports from there is forgotten after it."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("weakorder.reports.commands.waiting.FIRST", 1e6)  # a busy machine says how long it will take
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    yield Page(tmp_path, monkeypatch)
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_runs(path: Path, page: Page, request: pytest.FixtureRequest) -> None:
    page.run(blocks_of(path.read_text()), request.config.getoption("--nightly"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_says_what_becomes_of_it(path: Path) -> None:
    """Its language is known; a text is the output of what stands before it, or says why not."""
    before = None
    for block in blocks_of(path.read_text()):
        where = f"{path.relative_to(ROOT)}, line {block.line}"
        assert not block.language.startswith("{code-block}"), f"{where}: a plain fence is run"
        if block.is_directive:
            continue
        assert block.language in (*RUN, *READ, "text"), f"{where}: {block.language!r} is no language that is run"
        assert bool(block.why) == (block.mark in ("parsed", "shown")), f"{where}: say why"
        if block.mark == "shown":
            assert block.language == "text", f"{where}: what can run is not only shown"
        elif block.language == "text":
            runs = before is not None and before.language in RUN and before.mark != "parsed" and not before.file
            assert runs, f"{where}: nothing printed this; <!-- shown: WHY -->"
            assert block.follows, f"{where}: it is not directly behind what printed it; <!-- shown: WHY -->"
        before = block


WORDS = sorted({word for path in PAGES for word in re.findall(r'weakorder \w+ "([^"]+)"', path.read_text())})


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_a_command_is_canonical(word: str) -> None:
    if "X" not in word and "$" not in word:
        assert find_scheme(word).word == word


PAGE = """
```python
# mine.py
ORDER = 1
```

```python
from mine import ORDER
print("order", ORDER, "in 3.2 s")
```

```text
order 1 in 5 s
```

```console
$ weakorder verify "O S B A(1/2)" # exit code 1
...
FAIL: not consistent: the weights of A ...
```

<!-- nightly -->
```sh
echo slow | tr a-z A-Z > slow.txt
```
"""


def test_a_page_that_says_the_truth_runs_and_leaves_what_is_slow_to_the_night(page: Page) -> None:
    page.run(blocks_of(PAGE), nightly=False)
    assert not (page.folder / "slow.txt").exists()
    page.run(blocks_of(PAGE), nightly=True)
    assert (page.folder / "slow.txt").read_text() == "SLOW\n"


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("order 1 in 5 s", "order 2 in 5 s"),
        ("order 1 in 5 s", "order 1 in 5 s\nand more"),
        ("import ORDER", "import OTHER"),
        ("# exit code 1", ""),
        ("FAIL: not", "FAIL: now"),
        ("...\nFAIL", "FAIL"),
        ("| tr a-z", "| false | tr a-z"),
    ],
)
def test_a_page_that_does_not_fails(true: str, false: str, page: Page) -> None:
    assert true in PAGE
    with pytest.raises((AssertionError, ImportError)):
        page.run(blocks_of(PAGE.replace(true, false, 1)), nightly=True)


@pytest.mark.parametrize(
    ("command", "exists"),
    [
        ("weakorder verify ROBA --order 2", True),
        ("torchrun --nproc-per-node 4 --no-python weakorder cifar10 study --nfe 20 50", True),
        ("weakorder verify ROBA --ordr 2", False),
        ("weakorder verfy ROBA", False),
        ("make test", True),
        ("make tests", False),
        ("pip install 'weakorder[fid]'", True),
        ("pip install 'weakorder[fidd]'", False),
        ("pip install '.[fidd]'", False),
        ("cowsay moo", False),
    ],
)
def test_a_command_that_cannot_be_run_must_exist(command: str, exists: bool, page: Page) -> None:
    (block,) = blocks_of(f"<!-- parsed: why not -->\n```sh\n{command}\n```\n")
    with contextlib.nullcontext() if exists else pytest.raises((AssertionError, click.UsageError)):
        page.run_one(block)
