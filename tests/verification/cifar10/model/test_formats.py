"""Files in a checkpoint's place: each is named with its cure in one line, and the right file beside it is read.

Every file here is made from one that is read (`right`), by what happens to files: a download that brought a page or a
part, an archive around it, a trainer's configuration beside the weights.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pathlib
import pickle
import subprocess
import sys
import tarfile
import types
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tiny_models import random_network
from weakorder.reports.commands.cli import main
from weakorder.verification.cifar10.model.checkpoint import load_checkpoint

NAME = "net_gamma=0.01_nu=4.01"
STATE = random_network().state_dict()


def saved(content: Any, legacy: bool = False) -> bytes:
    """The bytes of torch.save, in today's format or that before torch 1.6."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


RIGHT = saved({"state_dict": STATE})
LEGACY = saved({"state_dict": STATE}, legacy=True)


def put(folder: Path, content: bytes, suffix: str = ".ckpt") -> Path:
    (folder / f"{NAME}{suffix}").write_bytes(content)
    return folder / f"{NAME}{suffix}"


def is_read(path: Path) -> bool:
    loaded = load_checkpoint(path).network.state_dict()
    return loaded.keys() == STATE.keys() and all(torch.equal(loaded[name], STATE[name]) for name in STATE)


def refusal(path: Path) -> str:
    """The one line in which a file is refused."""
    with pytest.raises(ValueError, match=NAME) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def archive(kind: str) -> bytes:
    """A zip or (compressed) tar with the right file in it."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as made:
            made.writestr("model.ckpt", RIGHT)
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as made:
            entry = tarfile.TarInfo("model.ckpt")
            entry.size = len(RIGHT)
            made.addfile(entry, io.BytesIO(RIGHT))
    return buffer.getvalue()


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: tensor.numpy() for name, tensor in STATE.items()})
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), buffer)
    return buffer.getvalue()


FOREIGN: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "an empty file": (lambda: b"", ("it is empty", "fetch it again")),
    "zeros": (lambda: bytes(5000), ("begins with zeros", "fetch it again")),
    "a web page": (
        lambda: b"\n<!DOCTYPE html><html><head><title>Quota exceeded</title></head></html>",
        ("a web page ('Quota exceeded')", "open its address in a browser"),
    ),
    "a web page without a title": (lambda: b"<html><p>Not found</p></html>", ("a web page ('Not found')",)),
    "a server's XML": (lambda: b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", ("'AccessDenied'",)),
    "a Git LFS pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n",
        ("Git LFS pointer to a file of 12,345 bytes", "git lfs pull"),
    ),
    "a Git LFS pointer from an editor": (
        lambda: b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\r\noid sha256:abc\r\nsize 12\r\n",
        ("Git LFS pointer to a file of 12 bytes", "git lfs pull"),
    ),
    "a DVC pointer": (lambda: b"outs:\n- md5: a304afb9\n  size: 12\n  path: a.ckpt\n", ("DVC pointer", "dvc pull")),
    "the index of several files": (
        lambda: b'{"metadata": {"total_size": 1}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}',
        ("the index of a checkpoint in several files", "save_file"),
    ),
    "a git-annex pointer": (lambda: b"/annex/objects/SHA256E-s12--abc.ckpt\n", ("git-annex pointer", "git annex get")),
    "an error as JSON": (lambda: b'{"error": "denied"}', ('a text that begins \'{"error"', "fetch it again")),
    "a text": (lambda: b"\nAccess denied\n", ("a text that begins 'Access denied'", "fetch it again")),
    "other bytes": (lambda: bytes(range(128, 256)) * 9, ("begins with the bytes 80 81",)),
    "gzip": (lambda: gzip.compress(RIGHT), ("compressed with gzip", f"gzip -dc {NAME}.ckpt > {NAME}_unpacked.ckpt")),
    "bzip2": (lambda: bz2.compress(RIGHT), ("compressed with bzip2", "bzip2 -dc")),
    "xz": (lambda: lzma.compress(RIGHT), ("compressed with xz", "xz -dc")),
    "zip": (lambda: archive("zip"), ("a zip archive of model.ckpt", f"unzip {NAME}.ckpt")),
    "tar": (lambda: archive("w"), ("a tar archive of model.ckpt", f"tar -xf {NAME}.ckpt")),
    "a compressed tar": (lambda: archive("w:gz"), ("a tar archive of model.ckpt", f"tar -xf {NAME}.ckpt")),
    "numpy's arrays": (numpy_archive, ("numpy arrays (npz)", "torch.from_numpy")),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(900), ("HDF5", "give a checkpoint")),
    "a TorchScript program": (script, ("a TorchScript program", "torch.jit.load")),
    "a plain pickle": (lambda: pickle.dumps({"a": 1}), ("a pickle that torch.save did not write", "pickle.load")),
    "half a file": (lambda: RIGHT[: len(RIGHT) // 2], ("cut short", "fetch it again")),
    "a file without its end": (lambda: RIGHT[:-1000], ("cut short", "fetch it again")),
    "half an old file": (lambda: LEGACY[: len(LEGACY) // 2], ("cut short", "fetch it again")),
    "the start of an old file": (lambda: LEGACY[:300], ("cut short", "fetch it again")),
    "half of safetensors": (lambda: save(STATE)[:-100], ("not a whole safetensors file", "fetch it again")),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_is_named_with_its_cure(kind: str, tmp_path: Path) -> None:
    make, expected = FOREIGN[kind]
    path = put(tmp_path, make())
    said = refusal(path)
    assert all(part in said for part in expected), said
    assert is_read(put(tmp_path, RIGHT))


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".zip", ".bin", ""])
@pytest.mark.parametrize("content", [RIGHT, LEGACY, save(STATE)], ids=["torch", "old torch", "safetensors"])
def test_the_first_bytes_decide_what_a_file_is_not_its_suffix(content: bytes, suffix: str, tmp_path: Path) -> None:
    assert is_read(put(tmp_path, content, suffix))


@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz"])
def test_the_command_that_unpacks_a_file_makes_one_that_is_read(tool: str, tmp_path: Path) -> None:
    compress = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}[tool]
    command = refusal(put(tmp_path, compress(RIGHT))).split("(")[-1].split(")")[0]
    try:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        if error.returncode == 127:
            pytest.skip(f"{tool} is not installed")
        raise
    assert is_read(tmp_path / f"{NAME}_unpacked.ckpt")


def test_a_folder_is_told_from_a_file_that_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    assert "it is a folder; give a file in it" in refusal(folder)
    (folder / "last.ckpt").write_bytes(RIGHT)
    assert "such as last.ckpt" in refusal(folder)
    (folder / "__0_0.distcp").write_bytes(b"")
    assert "dcp_to_torch" in refusal(folder)
    assert "there is no such file" in refusal(tmp_path / f"{NAME}.pt")


# --- Objects beside the weights ---


class Settings:
    """A trainer's configuration, of a class that torch does not know."""

    def __init__(self) -> None:
        self.width = 4


class Attack:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("hacked",)


CONFIGURATIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "argparse": (lambda: Namespace(width=4), "argparse.Namespace"),
    "a namespace": (lambda: types.SimpleNamespace(width=4), "types.SimpleNamespace"),
    "a class of the trainer": (Settings, "Settings"),
    "a path": (lambda: pathlib.PurePosixPath("/data"), "PurePosixPath"),
    "deep inside": (lambda: {"a": [1, (Settings(),)]}, "Settings"),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["today", "old"])
@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_blocked_class_is_named_with_the_two_lines_that_keep_the_weights(
    kind: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, name = CONFIGURATIONS[kind]
    said = refusal(put(tmp_path, saved({"step": 3, "hyper_parameters": make(), "model": STATE}, legacy)))
    assert name in said
    assert "in its entry 'hyper_parameters'" in said
    code = "c = " + said.split("c = ", 1)[1]
    assert "{'model': c['model']}" in code
    assert code.count("; ") == 1
    monkeypatch.chdir(tmp_path)
    exec(code, {"torch": torch})  # the two lines, as a user runs them
    assert is_read(tmp_path / f"{NAME}_weights.pt")


def test_a_whole_network_that_was_pickled_is_named_with_the_line_that_takes_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(put(tmp_path, saved(random_network())))
    assert "NCSNpp" in said
    monkeypatch.chdir(tmp_path)
    exec("c = " + said.split("c = ", 1)[1], {"torch": torch})
    assert is_read(tmp_path / f"{NAME}_weights.pt")


@pytest.mark.parametrize("legacy", [False, True], ids=["today", "old"])
def test_a_pickle_that_would_run_a_command_is_not_opened_nor_said_to_be(
    legacy: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(put(tmp_path, saved({"state_dict": STATE, "callbacks": Attack()}, legacy)))
    assert "would call builtins.print" in said
    assert "weights_only=False" not in said, "nobody is told to open it"
    beside = {"state_dict": STATE, "args": Namespace(), "callbacks": Attack()}
    assert "weights_only=False" not in refusal(put(tmp_path, saved(beside, legacy))), "also beside what is harmless"
    assert "hacked" not in capsys.readouterr().out


NUMPY = {
    "a number": np.float64(0.3),
    "an integer": np.int64(3),
    "a text": np.str_("a"),
    "an array": np.arange(3.0),
    "a generator's state": np.random.RandomState(0).get_state(),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["today", "old"])
@pytest.mark.parametrize("kind", NUMPY)
def test_numpys_numbers_beside_the_weights_do_not_matter(kind: str, legacy: bool, tmp_path: Path) -> None:
    assert is_read(put(tmp_path, saved({"state_dict": STATE, "best": NUMPY[kind]}, legacy)))


def test_weights_as_numpy_arrays_are_read_and_objects_in_them_are_not(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in STATE.items()}
    assert is_read(put(tmp_path, saved({"state_dict": arrays})))
    objects = arrays | {next(iter(arrays)): np.array([Settings()], dtype=object)}
    assert "Settings" in refusal(put(tmp_path, saved({"state_dict": objects})))


# --- On the command line ---


@pytest.mark.parametrize("kind", ["an empty file", "a web page", "a Git LFS pointer", "gzip", "half a file"])
def test_the_command_line_says_it_in_one_line_with_exit_code_2(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = FOREIGN[kind]
    path = put(tmp_path, make())
    monkeypatch.setattr(sys, "argv", ["weakorder", "cifar10", "study", "--checkpoint", str(path), "-o", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert all(part in captured.err for part in expected)
