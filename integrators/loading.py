"""Names to values: what a user means by `ROBA`, by `"O S B A"` and by `sampler.py:scheme`."""

from __future__ import annotations

import contextlib
import difflib
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from ..theory.model import DIFFUSIONS, Diffusion
from ..theory.scheme import Scheme, parse
from ..theory.splitting import SPLITTINGS, Splitting
from .catalogue import CATALOGUE, CONJUGATE_WORDS, EXPONENTIAL, LANGEVIN_CONTROLS, POSITION, conjugate_scheme

if TYPE_CHECKING:  # torch takes seconds to import, and only black boxes need it
    from .blackbox import Sampler

_NAMED = {**CATALOGUE, **EXPONENTIAL, **POSITION, **{scheme.name: scheme for scheme in LANGEVIN_CONTROLS}}
_NAMES = (*_NAMED, *CONJUGATE_WORDS)
_MISSING = object()
_Value = TypeVar("_Value", Splitting, Diffusion)
_FILE_OBJECT = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")


class _AsItStands(importlib.machinery.SourceFileLoader):
    """Compiles the file each time: Python's cache takes a change within a second, to the same length, for none."""

    def path_stats(self, path: str) -> NoReturn:
        raise OSError(f"{path} is compiled as it stands")  # which its base takes for no cache


def load_object(spec: str) -> object:
    """The object OBJ of `FILE.py:OBJ`; the file is run once, as a module of its own.

    Raises ValueError, in one line, if the file is missing or fails, or holds no such object.
    """
    match = _FILE_OBJECT.fullmatch(spec)
    if not match:
        raise ValueError(f"{spec!r} is not of the form FILE.py:OBJ")
    path, name = Path(match["file"]), match["name"]
    if not path.is_file():
        raise ValueError(f"{spec}: there is no file {str(path)!r}; give the path of a Python file")
    loader = _AsItStands(f"weakorder_user_{path.stem}", str(path))
    module_spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    if module_spec is None:
        raise ValueError(f"{spec}: {str(path)!r} cannot be read as a Python file")
    module = importlib.util.module_from_spec(module_spec)
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)  # the file's own neighbours, as when it is run; they may be imported later, too
    sys.modules[module_spec.name] = module  # dataclasses look their module up
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the file prints is not our answer
            loader.exec_module(module)
            found = getattr(module, name, _MISSING)
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{spec}: running {str(path)!r} raised {type(error).__name__}: {reason}") from error
    if found is _MISSING:
        hint = _hint(name, vars(module)) or "; name an object that it defines"
        raise ValueError(f"{spec}: {str(path)!r} has no {name!r}{hint}")
    return found


def find_splitting(text: str) -> Splitting:
    """A built-in splitting by name, or a user's by `FILE.py:OBJ`. Raises ValueError."""
    return _found(text, "splitting", SPLITTINGS, Splitting)


def find_diffusion(text: str) -> Diffusion:
    """A built-in diffusion by name, or a user's by `FILE.py:OBJ`. Raises ValueError."""
    return _found(text, "diffusion", DIFFUSIONS, Diffusion)


def _found(text: str, what: str, known: Mapping[str, _Value], kind: type[_Value]) -> _Value:
    """What is known by that name, or a value of that kind in a user's file."""
    if text in known:
        return known[text]
    if not _FILE_OBJECT.fullmatch(text):
        raise ValueError(f"{what} {text!r} is unknown; choose {', '.join(known)} or give FILE.py:OBJ")
    found = load_object(text)
    if not isinstance(found, kind):
        raise ValueError(f"{text} is of type {type(found).__name__}; it must be a {kind.__module__}.{kind.__name__}")
    return found


def find_sampler(text: str, splitting: Splitting | None = None) -> Scheme | Sampler:
    """As `find_scheme`, but `FILE.py:OBJ` may also be a black box (see blackbox), or a class that makes one.

    Raises ValueError.
    """
    if splitting is None and _FILE_OBJECT.fullmatch(text):
        found = load_object(text)
        if isinstance(found, type) and not issubclass(found, Scheme):
            found = _instance(text, found)
        if callable(found):
            return cast("Sampler", found)
    return find_scheme(text, splitting)


def _instance(text: str, kind: type) -> object:
    try:
        return kind()
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{text} is a class, and {kind.__name__}() raised {type(error).__name__}: {reason}; name an object, or a "
            "class that takes no arguments"
        ) from error


def find_scheme(text: str, splitting: Splitting | None = None) -> Scheme:
    """A scheme by its name in the catalogue or among the Langevin controls, by its word, or by `FILE.py:OBJ`.

    `splitting` is for words alone; without it a word belongs to the splitting whose parts it names. Raises ValueError.
    """
    is_file = _FILE_OBJECT.fullmatch(text)
    if splitting is not None and (is_file or text in _NAMES):
        raise ValueError(f"{text!r} has a splitting of its own; a splitting can only be chosen for a word")
    text = text.strip()
    if text in _NAMES:
        return _NAMED[text] if text in _NAMED else conjugate_scheme(text)
    if is_file:
        found = load_object(text)
        if not isinstance(found, Scheme):
            raise ValueError(
                f"{text} is of type {type(found).__name__}; it must be a weakorder.theory.scheme.Scheme, or a sampler "
                "where black boxes are taken"
            )
        return found
    try:
        return parse(text, splitting)
    except ValueError as error:
        if len(text) > 1 and text.isalnum():  # meant as a name, not as a word
            hint = _hint(text.upper(), _NAMES) or f"; the catalogue has {', '.join(CATALOGUE)}"
            raise ValueError(f"{text!r} is neither a scheme of the catalogue nor a word{hint}") from error
        raise


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
