"""Pages from templates: one way to read them, with every name defined and every value escaped where it is HTML; and how
numbers are set in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from importlib import resources
from types import CodeType
from typing import Any

from jinja2 import BytecodeCache, Environment, FunctionLoader, StrictUndefined, Template
from jinja2.bccache import Bucket
from markupsafe import Markup


class _Kept(BytecodeCache):
    """What was compiled in this process: a template takes longer to compile than to fill in."""

    def __init__(self) -> None:
        self._code: dict[str, CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Into the bucket, if its template was compiled before and is the same."""
        bucket.code = self._code.get(bucket.key + bucket.checksum)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Out of it."""
        if bucket.code is not None:
            self._code[bucket.key + bucket.checksum] = bucket.code


_KEPT = _Kept()


def template(name: str, filters: Mapping[str, Callable[..., Any]]) -> Template:
    """The template `name` of the folder templates/, with `filters` besides jinja's own.

    It may include others. A name that nobody gave raises jinja2.UndefinedError, and values are escaped, except in
    Markdown (NAME.md.j2).
    """
    folder = resources.files("weakorder.reports") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda file: folder.joinpath(file).read_text("utf-8")),
        autoescape=lambda file: file is None or not file.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_KEPT,
    )
    environment.filters |= filters
    return environment.get_template(name)


def number(value: float | None, digits: int = 3) -> str | Markup:
    """A number as a paper sets it: integers as they are, others to `digits` significant digits; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 10**digits:
        exponent = 0 if value == 0 else math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
        return f"{value:.{max(0, digits - 1 - exponent)}f}".replace("-", "−")
    if 10**digits <= abs(value) < 1e5:
        return f"{value:.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return Markup("{}×10<sup>{}</sup>").format(mantissa.replace("-", "−"), str(int(exponent)).replace("-", "−"))


def inline(svg: bytes, prefix: str, description: str) -> str:
    """SVG text to stand in an HTML page: the prologue dropped, identifiers made the page's own. `description` is for
    readers who do not see it; it must hold no markup."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)
