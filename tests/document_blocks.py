"""The code blocks of a Markdown page, and what it means to run them (CONTRIBUTING.md says it to people).

    sh        each command runs, and has the exit code that its comment names ("exit code 3"), by default 0
    console   the same of lines that begin with "$ "; what follows a command is its output
    python    runs, in one namespace for the page, and then every test_* that it defines; a block whose first line is
              "# NAME.py" becomes that file instead
    pycon     is a doctest
    text      directly behind one of these, is what it printed
    yaml, toml, json    are read

A comment on the line before a block says what else becomes of it: <!-- nightly --> runs under --nightly alone,
<!-- parsed: WHY --> is not run: its commands and options must exist; <!-- shown: WHY --> is text that nobody printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"(?:<!-- (?P<mark>nightly|parsed|shown)(?:: (?P<why>[^>]+?))? -->\n+)?"
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
RUN = ("sh", "console", "python", "pycon")
READ = ("yaml", "toml", "json")


@dataclass(frozen=True)
class Block:
    """A fenced block. language: the first word behind the fence; mark: nightly, parsed, shown or ""; follows: whether
    nothing but blank lines stands between it and the block before; line: where it begins, from 1."""

    language: str
    text: str
    mark: str
    why: str
    follows: bool
    line: int

    @property
    def is_directive(self) -> bool:
        """Whether it is Sphinx's to read."""
        return self.language.startswith("{")

    @property
    def file(self) -> str:
        """The file that it becomes; "" if it runs."""
        found = re.match(r"# ([\w./-]+\.py)\n", self.text)
        return found[1] if self.language == "python" and found else ""


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    found, end = [], None
    for match in _FENCE.finditer(text):
        body = "\n".join(line.removeprefix(match["indent"]) for line in match["text"].split("\n"))
        info = match["info"].split()
        found.append(
            Block(
                language=info[0] if info else "",
                text=body,
                mark=match["mark"] or "",
                why=match["why"] or "",
                follows=end is not None and not text[end : match.start()].strip(),
                line=text.count("\n", 0, match.start("fence")) + 1,
            )
        )
        end = match.end()
    return found


def commands_of(text: str) -> Iterator[str]:
    """The commands of a shell block, a line each; a line that ends in a backslash goes on."""
    for line in text.replace("\\\n", " ").split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def console_of(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that stands behind it."""
    parts = re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)
    if parts[0].strip():
        raise ValueError(f"a console block begins with a command, '$ ...', not with {parts[0].splitlines()[0]!r}")
    pairs = (part.partition("\n") for part in parts[1:])
    return [(command, output) for command, _, output in pairs]


def exit_code_of(command: str) -> int:
    """The code that a command's comment names first."""
    found = re.search(r" #.*?exit code (\d+)", command)
    return int(found[1]) if found else 0


_TIME = re.compile(r"\b\d+(\.\d+)? ?(ms|s|seconds|minutes|min)\b")


def shows(expected: str, actual: str) -> bool:
    """Whether a page's output is the actual one. On the page a line "..." stands for any lines, "..." in a line for
    anything on it; times taken are not compared, nor blanks at the ends of lines."""
    pattern = ""
    for line in _tidy(expected).split("\n"):
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(piece) for piece in line.split("...")) + r"\n"
    return re.fullmatch(pattern, _tidy(actual) + "\n") is not None


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in _TIME.sub("TIME", text).strip("\n").split("\n"))


def pages(root: Path) -> list[Path]:
    """The pages that people read: the README, CONTRIBUTING and all below docs/, but for what is built."""
    kept = (path for path in sorted((root / "docs").rglob("*.md")) if "_build" not in path.parts)
    return [root / "README.md", root / "CONTRIBUTING.md", *kept]
