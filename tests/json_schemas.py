"""What the JSON Schemas in reports/schemas say of a value."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator

NAMES = ("results", "survey", "baseline")


@cache
def schema(name: str) -> Draft202012Validator:
    """The schema `name`, which is one."""
    text = resources.files("weakorder.reports").joinpath("schemas", f"{name}.schema.json").read_text("utf-8")
    value = json.loads(text)
    Draft202012Validator.check_schema(value)
    return Draft202012Validator(value)


def complaints(name: str, value: Any) -> list[str]:
    """Where a value is not as its schema says."""
    return [f"{error.json_path}: {error.message[:300]}" for error in schema(name).iter_errors(value)]


def checked(name: str, dumps: Callable[[Any], str]) -> Callable[[Any], str]:
    """`dumps`, which holds what it writes to the schema."""

    def write(value: Any) -> str:
        text = dumps(value)
        assert complaints(name, json.loads(text)) == []
        return text

    return write
