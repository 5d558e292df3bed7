"""From a file to the tensors that it holds, without running any of its code; what is no checkpoint is named.

Read are the files of torch.save, today's and those before torch 1.6, and safetensors; the first bytes decide which it
is, not its suffix. torch.load runs with `weights_only`, which builds tensors, plain containers and what is allowed by
name: here also numpy's numbers and arrays, which trainers keep beside the weights. A file with any other class is not
opened. Its pickle is gone through with stand-ins for all classes instead (`_outline`), so that the message can name
the class, the entry that it stands in, and the two lines that keep the weights alone.

What people have in a checkpoint's place (a web page, a pointer of Git LFS, an archive) is known by its first bytes.
"""

from __future__ import annotations

import io
import itertools
import lzma
import pickle
import re
import shlex
import sys
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from .state_dicts import holds_weights

FORMS = "give a checkpoint, a state_dict or a safetensors file"
DAMAGED = "it was changed or damaged, fetch it again"
_FETCH = "fetch it again"
_CUT_SHORT = f"it is cut short or damaged; {_FETCH}"
_UNPACKED = "and give what is in it"
_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle in files of torch.save before 1.6

# Built by weights_only on top of what torch allows. An array of objects is a list of what was allowed by itself.
_NUMPY_DTYPES = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
_NUMPY = [
    np.ndarray,
    np.dtype,
    *_NUMPY_DTYPES,
    *(
        (makes, f"numpy.{core}.multiarray.{name}")  # where numpy 1 and 2 have what makes them
        for core in ("core", "_core")
        for name, makes in (("scalar", np.float64(0).__reduce__()[0]), ("_reconstruct", np.empty(0).__reduce__()[0]))
    ),
]
# What nobody keeps beside weights: a pickle with it was made to do something when it is opened.
_ATTACK = re.compile(
    r"(builtins|__builtin__|os|posix|nt|sys|subprocess|shutil|runpy|importlib|socket|pty|code|ctypes|webbrowser|pickle)\b"
)
_PLAIN = {"set", "frozenset", "dict", "list", "tuple", "bytearray", "bytes", "str", "int", "float", "complex", "bool"}
_PLAIN |= {"slice", "range", "object", "getattr"}  # built-ins that plain objects are made with


def read(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file holds, and its metadata. Raises ValueError, in one line with its cure, on what is no checkpoint."""
    if path.is_dir():
        raise ValueError(_folder(path))
    if not path.is_file():
        raise ValueError(f"there is no such file; {FORMS}")
    with path.open("rb") as opened:
        start = opened.read(4096)
    if start[8:9] == b"{":
        return _safetensors(path)
    if start.startswith(b"PK"):
        _check_zip(path)
    elif not start.startswith(_MAGIC):
        raise ValueError(_foreign(path, start))
    return _torch(path, mmap=start.startswith(b"PK")), {}


def _safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"it is not a whole safetensors file ({error}); {_FETCH}") from error


def _torch(path: Path, mmap: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_NUMPY):
            if path.suffix != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
            with path.open("rb") as file:  # torch would believe the name
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_blocked(path, error)) from error
    except (EOFError, OSError) as error:
        raise ValueError(_CUT_SHORT) from error
    except Exception as error:  # torch raises a dozen kinds on files that are not its own
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{_CUT_SHORT} ({reason})") from error


# --- Files with other classes than tensors and plain containers ---


class _StandIn:
    """An object of any class, which does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, *_: Any) -> None: ...

    def append(self, _: Any) -> None:
        """What a list's subclass is filled with."""

    def extend(self, _: Any) -> None:
        """The same, many at once."""

    def add(self, _: Any) -> None:
        """What a set's subclass is filled with."""


class _Outline(pickle.Unpickler):
    """A pickle's dicts, lists and texts; all that it would call or make is a stand-in named after it.

    named: what it would call or make.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.named: list[str] = []

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """OrderedDict, which state_dicts are; stand-ins for the rest."""
        module_name = module_name.replace("__builtin__", "builtins")
        self.named.append(f"{module_name}.{global_name}")
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type(global_name, (_StandIn,), {"__module__": module_name})

    def persistent_load(self, pid: Any, /) -> Any:
        """The bytes of tensors are not read: their place stands for them."""
        return pid


def _outline(path: Path) -> tuple[Any, list[str]]:
    """What a file of torch.save holds, with stand-ins for tensors and all other objects, and the names of those."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            outline = _Outline(io.BytesIO(archive.read(name)))
            return outline.load(), outline.named
    with path.open("rb") as file:
        for _ in range(3):  # magic number, version, system
            _Outline(file).load()
        outline = _Outline(file)
        return outline.load(), outline.named


def _blocked(path: Path, error: pickle.UnpicklingError) -> str:
    """What to say of a pickle that weights_only refuses."""
    try:
        (content, named), names = _outline(path), _blocked_names(path, error)
    except Exception:  # a broken pickle raises anything
        return _CUT_SHORT
    if not names:
        return _CUT_SHORT
    if attacks := [name for name in named if _ATTACK.match(name) and name.split(".")[-1] not in _PLAIN]:
        return (
            f"it would call {attacks[0]} when it is opened, which could run code; it was not opened; {_FETCH}, from "
            "its authors"
        )
    where, name = next((found for found in _classes(content) if found[1] in names), ("", names[0]))
    place = f" in its entry {where!r}" if where else ""
    more = f" (and {len(names) - 1} other classes)" if len(names) > 1 else ""
    told = f"it holds {name}{place}{more}, which could run code; it was not opened"
    new = path.with_name(f"{path.stem}_weights.pt").name
    if isinstance(content, Mapping):
        keys = [key for key, value in content.items() if holds_weights({key: value})]
        if not keys:
            return f"{told}, and no weights of NCSN++ are seen in it; {FORMS}"
        kept = "{" + ", ".join(f"{key!r}: c[{key!r}]" for key in keys) + "}"
    else:
        kept = "c.state_dict()"
    return (
        f"{told}; if you trust it, keep its weights alone{_where(name)}: c = torch.load({path.name!r}, "
        f"weights_only=False); torch.save({kept}, {new!r})"
    )


def _blocked_names(path: Path, error: pickle.UnpicklingError) -> list[str]:
    """What a pickle names and weights_only does not build: all of it in today's files, the first in those before."""
    if zipfile.is_zipfile(path):
        with torch.serialization.safe_globals(_NUMPY):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return re.findall(r"GLOBAL ([\w.]+\w)", str(error))[:1]


def _where(name: str) -> str:
    """Where a class can be imported."""
    package = name.split(".")[0]
    if package in sys.stdlib_module_names:
        return ""
    return ", in the script that defines it" if package == "__main__" else f", where {package} is installed"


def _classes(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """The classes of stand-ins in plain containers, with the entry of the whole that each stands in."""
    if isinstance(content, _StandIn):
        yield where, f"{type(content).__module__}.{type(content).__qualname__}"
    elif isinstance(content, type) and issubclass(content, _StandIn):
        yield where, f"{content.__module__}.{content.__qualname__}"
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _classes(key, where)
            yield from _classes(value, where or str(key))
    elif isinstance(content, (list, tuple, set, frozenset)):
        for value in content:
            yield from _classes(value, where)


# --- What people have in a checkpoint's place ---


def _check_zip(path: Path) -> None:
    """Raises ValueError on an archive that is damaged, or that torch.save did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(_CUT_SHORT) from error
    if damaged:
        raise ValueError(f"{damaged} in it does not have its checksum; {DAMAGED}")
    inside = {name.split("/", 1)[-1] for name in names}
    new = path.with_name(f"{path.stem}_weights.pt").name
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        raise ValueError(
            "it is a TorchScript program, not weights; keep its weights alone: torch.save(torch.jit.load("
            f"{path.name!r}).state_dict(), {new!r})"
        )
    if "data.pkl" not in inside:
        files = [name for name in names if not name.endswith("/")]
        if files and all(name.endswith(".npy") for name in files):
            raise ValueError(
                f"it holds numpy arrays (npz); make tensors of them: torch.save({{k: torch.from_numpy(v) for k, v in "
                f"numpy.load({path.name!r}).items()}}, {new!r})"
            )
        held = ", ".join(files[:3]) or "nothing"
        raise ValueError(f"it is a zip archive of {held}; unpack it (unzip {shlex.quote(path.name)}), {_UNPACKED}")


def _folder(path: Path) -> str:
    if any(path.glob("*.distcp")):
        names = f"{shlex.quote(path.name)} {shlex.quote(path.name + '.pt')}"
        return (
            "it is a folder of a distributed checkpoint; make one file of it: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {names}"
        )
    found = sorted(p.name for p in path.iterdir() if p.suffix in (".ckpt", ".pt", ".pth", ".bin", ".safetensors"))
    return f"it is a folder; give a file in it{f', such as {found[0]}' if found else ''}"


def _foreign(path: Path, start: bytes) -> str:
    """What to say of a file that is neither torch's nor safetensors."""
    if start and (tarred := _tarred(path)):
        return tarred
    for matches, said in _FOREIGN:
        if matches(start):
            return said(path, start)
    if re.match(rb"\x80[\x02-\x05]", start):
        new = path.with_name(f"{path.stem}_weights.pt").name
        return (
            "it is a pickle that torch.save did not write, which could run code; it was not opened; if you trust it: "
            f"c = pickle.load(open({path.name!r}, 'rb')); torch.save(c, {new!r})"
        )
    if _is_text(start):
        line = next(
            (" ".join(line.split()) for line in start.decode(errors="replace").splitlines() if line.strip()), ""
        )
        return f"it is a text that begins {line[:60]!r}, not a checkpoint; {_FETCH}, or {FORMS}"
    if path.suffix == ".safetensors":
        return f"it is not a whole safetensors file; {_FETCH}"
    return f"it is no checkpoint: it begins with the bytes {start[:4].hex(' ')}; {FORMS}"


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        text = start[: error.start].decode()  # a character that the first bytes cut in two
        if error.start < len(start) - 3:
            return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def _page(_: Path, start: bytes) -> str:
    found = re.search(rb"<title[^>]*>([^<]*)", start, re.IGNORECASE)
    title = " ".join(found[1].decode(errors="replace").split()) if found else ""
    text = " ".join(re.sub(r"<[^>]*>", " ", start.decode(errors="replace")).split())
    said = (title or text)[:60]
    return (
        f"it is a web page{f' ({said!r})' if said else ''}, not a checkpoint; {_FETCH}: open its address in a browser"
    )


def _pointer(_: Path, start: bytes) -> str:
    size = re.search(rb"^size (\d+)", start, re.MULTILINE)
    told = f" of {int(size[1]):,} bytes" if size else ""
    return f"it is a Git LFS pointer to a file{told}, not that file; run `git lfs pull` where it was cloned"


def _archive(what: str, command: str) -> Callable[[Path, bytes], str]:
    """An archive of files."""

    def said(path: Path, _: bytes) -> str:
        return f"it is {what}; unpack it ({command} {shlex.quote(path.name)}), {_UNPACKED}"

    return said


def _compressed(tool: str, *suffixes: str) -> Callable[[Path, bytes], str]:
    """One file, compressed."""

    def said(path: Path, _: bytes) -> str:
        new = path.stem if path.suffix in suffixes else f"{path.stem}_unpacked{path.suffix}"
        command = f"{tool} -dc {shlex.quote(path.name)} > {shlex.quote(new)}"
        return f"it is compressed with {tool}; unpack it ({command}), {_UNPACKED}"

    return said


def _tarred(path: Path) -> str | None:
    """What to say of a tar archive, compressed or not; None if it is none."""
    try:
        with tarfile.open(path) as archive:
            names = list(itertools.islice((member.name for member in archive if member.isfile()), 3))
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error):
        return None
    return _archive(f"a tar archive of {', '.join(names)}", "tar -xf")(path, b"") if names else None


def _begins(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda start: start.startswith(magics)


def _is_page(start: bytes) -> bool:
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--"))


_FOREIGN: tuple[tuple[Callable[[bytes], bool], Callable[[Path, bytes], str]], ...] = (
    (lambda start: not start, lambda *_: f"it is empty; the download or the disk failed: {_FETCH}"),
    (lambda start: not start.strip(b"\0"), lambda *_: f"it begins with zeros, as unfinished downloads do; {_FETCH}"),
    (_is_page, _page),
    (lambda start: start.removeprefix(b"\xef\xbb\xbf").startswith(b"version https://git-lfs"), _pointer),
    (
        lambda start: start.startswith(b"outs:") and b"md5:" in start,
        lambda path, _: (
            f"it is a DVC pointer, not the file; run `dvc pull {shlex.quote(path.name)}` where it was cloned"
        ),
    ),
    (
        lambda start: start.lstrip().startswith(b"{") and b'"weight_map"' in start,
        lambda *_: (
            "it is the index of a checkpoint in several files; save one with all weights: save_file(state_dict, FILE)"
        ),
    ),
    (
        lambda start: b"/annex/objects/" in start and len(start) < 1000,
        lambda path, _: (
            f"it is a git-annex pointer, not the file; run `git annex get {shlex.quote(path.name)}` where it was cloned"
        ),
    ),
    (_begins(b"\x1f\x8b"), _compressed("gzip", ".gz")),
    (_begins(b"BZh"), _compressed("bzip2", ".bz2")),
    (_begins(b"\xfd7zXZ"), _compressed("xz", ".xz")),
    (_begins(b"\x28\xb5\x2f\xfd"), _compressed("zstd", ".zst")),
    (_begins(b"7z\xbc\xaf"), _archive("a 7z archive", "7z x")),
    (_begins(b"Rar!"), _archive("a RAR archive", "unrar x")),
    (_begins(b"\x93NUMPY"), lambda *_: f"it is one numpy array (npy), not the weights of a network; {FORMS}"),
    (_begins(b"\x89HDF"), lambda *_: f"it is HDF5, as of Keras, not of PyTorch; {FORMS}"),
)
