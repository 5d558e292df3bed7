"""Which of a file's tensors are one network, and the configuration that their shapes show.

Weights are found by their names, all_modules.<index>.<name>, wherever they stand: at the top, in an entry (`model`,
`state_dict`), or after a prefix (`score_fn.`). What wrappers put into names goes: `module.` of DistributedDataParallel,
`_orig_mod.` of torch.compile, those of FSDP. Names of one entry with one prefix are one set. A set is a moving average
if its entry or prefix says so (`ema`, `average`, `shadow`). Lists of tensors without names, as torch_ema and score_sde
keep the average (`shadow_params`), are in the order of the network's parameters: of all, or of the trained ones alone;
the weights beside them tell it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .network import Config, NCSNpp

LIGHTNING = {"ema": "ema_score_fn.", "raw": "score_fn."}  # the published prefixes
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PARAMETER = re.compile(r"((?:.+?\.)?)(all_modules\.\d+\..+)", re.DOTALL)
_AVERAGE = re.compile(r"(?<![a-z])(ema|averaged?|swa|shadow)(?![a-z])")
_TRAINED = re.compile(r"(?<![a-z])online(?![a-z])")  # of ema_pytorch, which keeps it beside the average
_SET_ASIDE = "collected_params"  # of torch_ema and score_sde: weights that the average stood in for
_COUNT = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_DEPTH = 4
ATTENTION = 16  # the largest side that has attention in every published network: CIFAR-10, CelebA-64, AFHQv2
_LARGE = 1 << 20  # a side that can be halved as often as networks do
_NAMED = "save it with names: ema.copy_to(net.parameters()); torch.save(net.state_dict(), FILE)"


@dataclass(frozen=True)
class WeightSet:
    """Weights of one entry and prefix: where they stand, whether they are an average, and by name, or a bare list."""

    place: str
    is_average: bool
    entries: Mapping[str, Any] | Sequence[Any]


def one_network(content: Any, weights: str, config: Config | None = None) -> dict[str, Tensor]:
    """The tensors of one network, by the names that they have in `NCSNpp`. weights: ema or raw, of a file with both;
    config: tells the order of a list. Raises ValueError on a file without, with others, or with several."""
    sets = list(_sets(content))
    if not sets:
        raise ValueError(_nothing(content))
    wanted = [found for found in sets if found.is_average == (weights == "ema")]
    if not wanted and weights == "ema" and (unread := _unread_average(content)):
        raise ValueError(f"its average {unread!r} is in a form that is not read; {_NAMED}; or take weights 'raw'")
    if not wanted:
        other = "raw" if weights == "ema" else "ema"
        labelled = weights == "raw" or any(LIGHTNING["raw"] in found.place for found in sets)
        if labelled:
            places = " or ".join(sorted({found.place for found in sets}))
            raise ValueError(f"it has no {LIGHTNING[weights]}* weights, only {places}*; take weights {other!r}")
        wanted = sets  # the only weights that there are
    if len(wanted := _different(wanted)) > 1:
        places = ", ".join(repr(found.place) for found in wanted)
        raise ValueError(f"it holds {len(wanted)} networks, {places}; save one of them alone")
    (chosen,) = wanted
    if isinstance(chosen.entries, Mapping):
        return {name: _tensor(name, value) for name, value in chosen.entries.items()}
    return _in_order(chosen, [found for found in sets if not found.is_average], config)


def _different(sets: Sequence[WeightSet]) -> list[WeightSet]:
    """Those that are not one before them again, as what an average was made of is kept beside it."""
    found = list[WeightSet]()
    for each in sets:
        if not any(_are_equal(each.entries, other.entries) for other in found):
            found.append(each)
    return found


def _are_equal(first: Any, second: Any) -> bool:
    if not (isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys()):
        return False
    return all(
        isinstance(value, Tensor) and isinstance(second[name], Tensor) and torch.equal(value, second[name])
        for name, value in first.items()
    )


def holds_weights(content: Any) -> bool:
    """Whether there are weights of a network in it."""
    return next(_sets(content, strict=False), None) is not None


def _sets(
    content: Any, place: str = "", averaged: bool = False, depth: int = 0, strict: bool = True
) -> Iterator[WeightSet]:
    """The sets of weights in a file's content; strict: raises ValueError on tensors among them that are no weights."""
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    groups: dict[str, dict[str, Any]] = {}
    others: dict[str, Any] = {}
    for key, value in content.items():
        plain = _WRAPPERS.sub("", str(key))
        if match := _PARAMETER.fullmatch(plain):
            group = groups.setdefault(match[1], {})
            if match[2] in group and strict:
                raise ValueError(f"{plain!r} is in it twice, under names of different wrappers; save it once")
            group[match[2]] = value
        else:
            others[plain] = value
    for prefix, entries in groups.items():
        extra = [key for key, value in others.items() if key.startswith(prefix) and isinstance(value, Tensor)]
        if strict and (extra := [key for key in extra if key != _COUNT]):
            raise ValueError(
                f"its entry {extra[0][:60]!r} is no parameter of NCSN++ (all_modules.<index>.<name>); give the weights "
                "of one"
            )
        where = place + prefix
        is_average = averaged or _COUNT in others or bool(_AVERAGE.search(where.lower()))
        yield WeightSet(where, is_average and not _TRAINED.search(prefix.lower()), entries)
    for key, value in others.items():
        where = f"{place}{key}."
        if isinstance(value, Mapping):
            yield from _sets(value, where, averaged, depth + 1, strict)
        elif _is_list_of_tensors(value) and key != _SET_ASIDE and (averaged or _AVERAGE.search(where.lower())):
            yield WeightSet(where, True, value)


def _is_list_of_tensors(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(entry, Tensor) for entry in value)


def _unread_average(content: Any, place: str = "", depth: int = 0) -> str | None:
    """An entry whose name is an average's, with tensors below it, where no set of weights was found."""
    if isinstance(content, Tensor) and content.ndim and _AVERAGE.search(place.lower()):
        return place
    if isinstance(content, (list, tuple)):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return None
    found = (
        _unread_average(value, f"{place}.{key}" if place else str(key), depth + 1)
        for key, value in content.items()
        if key != _SET_ASIDE
    )
    return next(filter(None, found), None)


def _nothing(content: Any) -> str:
    """What to say of a file without weights."""
    if _is_list_of_tensors(content):
        return f"it is a list of tensors without names; {_NAMED}"
    if not isinstance(content, Mapping) or not content:
        return "it holds no state_dict; give a checkpoint, a state_dict or a safetensors file"
    key = str(next(iter(content)))[:60]
    return (
        f"its entry {key!r} is no parameter of NCSN++ (all_modules.<index>.<name>), nor is one found in its other "
        "entries; give the weights of one"
    )


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = torch.from_numpy(value)
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
        raise ValueError(f"its entry {name[:60]!r} is no plain tensor with numbers; give the weights of NCSN++")
    return value


def _in_order(chosen: WeightSet, beside: Sequence[WeightSet], config: Config | None) -> dict[str, Tensor]:
    """A list's tensors by name: in the order of all parameters, or of the trained ones, as their shapes tell.

    The order is that of the weights beside the list, or of the network; where both fit, and differ, neither is taken.
    """
    place = chosen.place[:-1]
    values = [_tensor(f"{chosen.place}{i}", value) for i, value in enumerate(chosen.entries)]
    named = [found.entries for found in beside if isinstance(found.entries, Mapping)]
    raw = {name: _tensor(name, value) for name, value in named[0].items()} if len(named) == 1 else {}
    if config is None and not raw:
        raise ValueError(f"its {place!r} is a list without names, and no weights beside it tell them; {_NAMED}")
    own = layout(infer_config(shapes_of(raw), _LARGE) if config is None else config)  # of any side
    shapes = own | shapes_of(raw)
    fixed = [name for name, shape in own.items() if name.endswith(".W") and len(shape) == 1]  # not trained
    given = [tuple(value.shape) for value in values]
    orders: set[tuple[str, ...]] = set()
    for names in filter(None, (list(raw), list(own))):
        trained = [name for name in names if name not in fixed] if raw else names
        orders |= {tuple(order) for order in (names, trained) if [shapes[name] for name in order] == given}
    if len(orders) == 1:
        found = raw | dict(zip(orders.pop(), values, strict=True))
        return {name: found[name] for name in own if name in found}
    if orders:
        raise ValueError(
            f"its {place!r} is a list without names that fits the network in {len(orders)} orders; {_NAMED}"
        )
    raise ValueError(
        f"its {place!r} is a list of {len(values)} tensors that does not fit the network's {len(own)} parameters; "
        f"{_NAMED}"
    )


# --- The configuration ---


def layout(config: Config) -> dict[str, tuple[int, ...]]:
    """Every key of the network's state_dict and its shape, in order; nothing is allocated."""
    return dict(_layout(config))


@lru_cache(maxsize=16)  # a file is held against it twice or more
def _layout(config: Config) -> tuple[tuple[str, tuple[int, ...]], ...]:
    with torch.device("meta"):
        return tuple((name, tuple(tensor.shape)) for name, tensor in NCSNpp(config).state_dict().items())


def attention_side(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The side of the images that puts a network's first attention at 16, where every published network has it.

    The same weights read images of any side: this tells a network of CelebA-64 from one of CIFAR-10, and is all that
    does. None without attention. Raises ValueError as `infer_config`.
    """
    attended = infer_config(shapes, _LARGE).attn_resolutions
    return ATTENTION * (_LARGE // attended[0]) if attended else None


def infer_config(shapes: Mapping[str, tuple[int, ...]], image_size: int) -> Config:
    """The configuration of a network from the shapes of its parameters, on images of the side `image_size`.

    What shapes do not show: that side (`attention_side` says what they do of it); dropout, which does nothing in
    evaluation (it is 0 here); and fir where there is no pyramid, taken as off, as in the published ablations. Raises
    ValueError where the shapes are not those of a network with at least two levels, or the side cannot be halved
    between them.
    """
    try:
        config = _inferred(shapes, image_size)
        check_shapes(shapes, layout(config))
    except (LookupError, TypeError, ValueError) as error:
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise ValueError(f"its parameters are not those of an NCSN++ network{reason}; give its config") from error
    return config


def _inferred(shapes: Mapping[str, tuple[int, ...]], image_size: int) -> Config:
    modules: dict[int, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        _, index, name = key.split(".", 2)
        modules.setdefault(int(index), {})[name] = tuple(shape)
    ordered = [modules[index] for index in sorted(modules)]
    fourier = set(ordered[0]) == {"W"}
    stem, *body, _, last = ordered[3 if fourier else 2 :]
    pyramid = any("Conv2d_0.weight" in module for module in body)
    segments: list[list[dict[str, tuple[int, ...]]]] = [[]]  # blocks and attentions between two changes of side
    for module in body:
        if "Conv_2.weight" in module and module["Conv_2.weight"][0] == module["Conv_2.weight"][1]:
            segments.append([])
        elif "Conv2d_0.weight" not in module:
            segments[-1].append(module)
    if len(segments) == 1:
        raise ValueError("one level alone cannot be told from the middle")
    down = segments[: (len(segments) + 1) // 2]  # the last of them goes on into the middle and the way up
    nf, in_ch = stem["weight"][:2]

    def attends(segment: list[dict[str, tuple[int, ...]]]) -> bool:
        return any("NIN_0.W" in module for module in segment[1:2])

    return Config(
        nf=nf,
        ch_mult=tuple(segment[0]["Conv_0.weight"][0] // nf for segment in down),
        num_res_blocks=sum("Conv_0.weight" in module for module in down[0]),
        attn_resolutions=tuple(image_size >> i for i, segment in enumerate(down) if attends(segment)),
        dropout=0.0,
        embedding_type="fourier" if fourier else "positional",
        fir=pyramid,
        progressive_input="residual" if pyramid else "none",
        in_ch=in_ch,
        out_ch=last["weight"][0],
        image_size=image_size,
    )


def check_shapes(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError, naming the first parameter, unless the shapes are those expected."""
    for name, shape in expected.items():
        if name not in shapes:
            raise ValueError(f"{name} {shape} is missing; the configuration asks for {len(expected)} parameters")
        if tuple(shapes[name]) != shape:
            raise ValueError(f"{name} is {tuple(shapes[name])}; the configuration asks for {shape}")
    if extra := [name for name in shapes if name not in expected]:
        raise ValueError(f"{extra[0]} is no parameter of the configuration, nor are {len(extra) - 1} others")


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """By name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
