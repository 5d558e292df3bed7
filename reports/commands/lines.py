"""From values to lines of text, tables and JSON, and to the code that a command exits with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ...integrators.blackbox import Sampler
    from ...theory.scheme import Scheme

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
BAD_INPUT = 2
INTERRUPTED = 130


def title(sampler: Scheme | Sampler, x: str) -> str:
    """What the user called x, in a line's beginning."""
    from ...theory.scheme import Scheme

    return _scheme_title(sampler) if isinstance(sampler, Scheme) else f"{x} (black box)"


def _scheme_title(scheme: Scheme) -> str:
    name = "" if scheme.name == scheme.word else f"{scheme.name} = "
    scale = "" if scheme.lambda_s == 1 else f", lambda_s {scheme.lambda_s:g}"
    return f"{name}{scheme.word} on {scheme.splitting.name} ({scheme.sub_flows}{scale})"


def warn(scheme: Scheme) -> None:
    """Its warnings, on stderr."""
    for warning in scheme.warnings:
        click.echo(f"warning: {warning}", err=True)


def progress(items: Any, delay: float = 2) -> Any:
    """The items, with a bar on a terminal's stderr if they take longer than `delay` seconds; at once for 0."""
    from tqdm import tqdm

    return tqdm(items, unit="run", delay=delay, disable=None, leave=False)


def print_json(value: Any) -> None:
    """The one JSON value on stdout."""
    from ..pages import dumps

    click.echo(dumps(value), nl=False)


def cell(value: Any) -> str:
    """A value as a table shows it; "-" for None and nan."""
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as they need; numbers stand right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    numeric = [all(re.fullmatch(r"-|-?[\d.]+(e[+-]\d+)?|nan", row[c]) for row in rows) for c in range(len(header))]
    for row in [header, *rows]:
        cells = (text.rjust(w) if right else text.ljust(w) for text, w, right in zip(row, widths, numeric, strict=True))
        click.echo("  ".join(cells).rstrip())
