"""What else a sampler calls: compiled code, and randomness that is none of torch's, named by a test of its own.

Asked only where a sampler is refused anyway, to name the cause: its objects are searched, as far as its functions'
names, closures and attributes lead, and it is run once more with the usual sources watched.
"""

from __future__ import annotations

import functools
import gc
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

PLAIN = "give the plain function"
_DRAW = "which cannot be made an input; draw from torch.randn"
# Far more objects than a sampler has; networks are not searched below their modules.
_MOST = 20_000


def compiled(thing: object) -> str | None:
    """How an object was compiled, if it was."""
    own = getattr(thing, "__dict__", None)
    if isinstance(own, dict) and "_torchdynamo_orig_callable" in own:
        return "torch.compile"
    if type(thing).__module__.partition(".")[0] == "numba" and callable(getattr(thing, "py_func", None)):
        return "numba"
    if isinstance(thing, (torch.jit.ScriptFunction, torch.jit.ScriptModule)):
        return "torch.jit"
    return None


def compiled_within(sampler: object) -> str | None:
    """A sentence that says so, if the sampler calls something that is compiled."""
    for thing in reachable(sampler):
        if (how := compiled(thing)) is not None:
            name = getattr(thing, "__name__", None) or getattr(thing, "name", None) or type(thing).__name__
            return f"the sampler calls {name}, which is compiled by {how}; {PLAIN}"
    return None


def other_source(sampler: object, again: Callable[[], object]) -> str | None:
    """A sentence that names what the sampler draws from besides torch; `again` runs it."""
    things = [*reachable(sampler), *gc.get_objects()]
    # by type(): isinstance asks an object for its class, and some of torch's answer with a warning
    kinds = (np.random.Generator, np.random.RandomState, random.Random)
    held = {id(thing): thing for thing in things if issubclass(type(thing), kinds)}
    generators = list(held.values())
    before = [_state(generator) for generator in generators]
    made, called = _watched(sampler, again)
    for generator, state in zip(generators, before, strict=True):
        if state is not None and repr(_state(generator)) != repr(state):
            name = "the random module" if isinstance(generator, random.Random) else "numpy.random"
            return f"the sampler draws from {name} ({type(generator).__name__}), {_DRAW}"
    if made:
        return f"the sampler draws from numpy.random ({made[0]} made inside it), {_DRAW}"
    return f"the sampler draws from {called[0]}, {_DRAW}" if called else None


def _state(generator: Any) -> Any:
    if isinstance(generator, random.SystemRandom):
        return None
    if isinstance(generator, np.random.RandomState):
        return str(generator.get_state(legacy=False)["state"]["key"].tolist()), generator.get_state(legacy=False)
    return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state


def _watched(sampler: object, again: Callable[[], object]) -> tuple[list[str], list[str]]:
    """Constructors of numpy's generators, and sources of the standard library, that the sampler calls when run."""
    made, called = list[str](), list[str]()

    def watching(function: Any) -> Any:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            made.append(function.__name__)
            return function(*args, **kwargs)

        return watched

    constructors = [np.random.default_rng, np.random.Generator, np.random.RandomState]
    places = [np.random.__dict__, *(t.__globals__ for t in reachable(sampler) if isinstance(t, types.FunctionType))]
    replaced = [(d, k, v) for d in places for k, v in list(d.items()) if any(v is each for each in constructors)]

    def profile(frame: types.FrameType, event: str, arg: Any) -> None:
        name = frame.f_code.co_name if event == "call" else getattr(arg, "__name__", "")
        if event == "c_call" and name == "urandom":
            called.append("the operating system (os.urandom, secrets)")
        elif event in ("call", "c_call") and name not in ("getstate", "setstate"):
            own = type(getattr(arg, "__self__", None)).__module__
            module = frame.f_globals.get("__name__") if event == "call" else own
            if module in ("random", "secrets"):
                called.append("the random module" if module == "random" else "secrets")

    previous = sys.getprofile()
    try:
        for dictionary, key, value in replaced:
            dictionary[key] = watching(value)
        sys.setprofile(profile)
        again()
    except Exception:
        pass
    finally:
        sys.setprofile(previous)
        for dictionary, key, value in replaced:
            dictionary[key] = value
    return made, called


def reachable(sampler: object) -> Iterator[object]:
    """The objects that a sampler is made of: its attributes, closures, and what its functions' names stand for."""
    seen, queue = set[int](), [sampler]
    while queue and len(seen) < _MOST:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, (types.ModuleType, torch.Tensor, np.ndarray, str, bytes, int, float)):
            continue
        seen.add(id(thing))
        yield thing
        queue += list(_parts(thing))


def _parts(thing: Any) -> Iterator[object]:
    if isinstance(thing, types.FunctionType):
        if (thing.__module__ or "").partition(".")[0] in ("torch", "numpy", "random"):  # exec leaves it None
            return
        names = _names(thing.__code__)
        yield from (thing.__globals__[name] for name in names if name in thing.__globals__)
        yield from (cell.cell_contents for cell in thing.__closure__ or () if _is_full(cell))
        yield from thing.__defaults__ or ()
        yield from (thing.__kwdefaults__ or {}).values()
    elif isinstance(thing, types.MethodType):
        yield from (thing.__func__, thing.__self__)
    elif isinstance(thing, functools.partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, (list, tuple, set)):
        yield from thing
    elif isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, type):
        if thing.__module__.partition(".")[0] not in ("torch", "numpy", "builtins"):
            yield from vars(thing).values()
    else:
        own = getattr(thing, "__dict__", None)
        yield from own.values() if isinstance(own, dict) else ()  # of a C library's names it is none
        yield type(thing)


def _names(code: types.CodeType) -> set[str]:
    """The names that a function's code and the functions inside it use."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*(_names(each) for each in inner))


def _is_full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
