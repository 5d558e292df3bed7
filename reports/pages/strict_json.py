"""JSON that every parser reads: nan and infinity, which JSON lacks, become null."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np


def dumps(value: Any) -> str:
    """`value` as indented JSON text ending in a newline; arrays become lists, non-finite numbers null."""
    return json.dumps(_strict(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
