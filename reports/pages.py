"""Pages from templates: one way to read them, with every name defined and every value escaped where it is HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template


def template(name: str, filters: Mapping[str, Callable[..., Any]]) -> Template:
    """The template `name` of the folder templates/, with `filters` besides jinja's own.

    It may include others. A name that nobody gave raises jinja2.UndefinedError, and values are escaped, except in
    Markdown (NAME.md.j2).
    """
    folder = resources.files(__package__ or __name__).joinpath("templates")
    environment = Environment(
        loader=FunctionLoader(lambda file: folder.joinpath(file).read_text("utf-8")),
        autoescape=lambda file: file is None or not file.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)
