"""Names to values; what else is refused is tested where the command line asks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from weakorder.integrators.loading import load_object


def test_a_file_is_read_as_it_stands_however_soon_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim: neither the age nor the length of a file says that it is what it was; Python's own cache goes by both."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    for value in ("0.02", "0.03"):
        file.write_text(f"EPSILON = {value}\n")
        os.utime(file, (1e9, 1e9))
        assert load_object(f"{file}:EPSILON") == float(value)
