"""Derives everything built in, for the file that ships: `python -m weakorder.integrators.make_derivations` writes it.

`questions` names them: the declarations, the flows of every part and whole, the one-step maps and the orders of every
scheme of the catalogue and every Langevin control, the orders of those that hold other quantities, or longer. It takes
about two minutes. A test derives them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..theory import derivations
from ..theory.cache import afresh
from ..theory.flows import derivation
from ..theory.frozen import DATA_HELD
from ..theory.model import DIFFUSIONS, LinearSDE
from ..theory.scheme import FLOWS, FROZEN_FLOWS, Scheme
from ..theory.splitting import PSLD_FLOW_WHOLE, PSLD_WHOLE, SPLITTINGS
from ..theory.step_map import step_map_text
from ..theory.weak_order import prove_order
from .catalogue import CATALOGUE, CONJUGATE_WORDS, EXPONENTIAL, LANGEVIN_CONTROLS, POSITION, conjugate_scheme

SCHEMES = (*CATALOGUE.values(), *LANGEVIN_CONTROLS, POSITION["vp-EM"], POSITION["vp-Euler"])
# What no proof depends on, which of several quantities is held, is named here by one of them.
LONGER = (
    Scheme("S F", PSLD_WHOLE, "memory 3 of data", "exact", frozen=DATA_HELD, memory=3),
    *(
        Scheme("S F", splitting, f"memory {memory} on {splitting.name}", flow, memory=memory)
        for splitting in (PSLD_WHOLE, PSLD_FLOW_WHOLE)
        for flow in FROZEN_FLOWS
        for memory in (2, 3)
    ),
)
# A lambda_s is a symbol in a proof: any value but 1 stands for all.
_SCALED = 0.5


def questions(schemes: Sequence[Scheme] = SCHEMES) -> dict[str, Callable[[], Any]]:
    """Everything that ships, by what it is; calling an entry asks for it (theory.cache)."""
    asked: dict[str, Callable[[], Any]] = {}
    for diffusion in DIFFUSIONS.values():
        asked[f"the reverse SDE of {diffusion.name}"] = diffusion.reverse
        asked[f"the probability flow of {diffusion.name}"] = diffusion.probability_flow
        asked |= _of_sde(f"the forward SDE of {diffusion.name}", diffusion.forward)
    for name, splitting in SPLITTINGS.items():
        asked[f"{name} adds up"] = splitting.check
        asked |= _of_sde(f"the whole of {name}", splitting.whole)
        for part in splitting.parts:
            asked |= _of_sde(f"part {part.name} of {name}", part.sde)
    for scheme in schemes:
        for flow in FROZEN_FLOWS:
            changed = replace(scheme, flow=flow)
            asked[f"step map of {scheme.name}, {flow}"] = lambda s=changed: step_map_text(s)
    for scheme in schemes:
        asked |= _orders(scheme)
    for scheme in (*EXPONENTIAL.values(), *POSITION.values(), *LONGER):
        asked |= _orders_held(scheme)
    for name in CONJUGATE_WORDS:
        conjugated = conjugate_scheme(name)
        asked[f"matrices of the parts of {name}"] = lambda n=name: conjugate_scheme.__wrapped__(n)
        for part in conjugated.parts:
            asked |= _of_sde(f"part {part.name} of {name}", part.sde)
        asked |= _orders_held(conjugated, two=False)
    return asked


def _of_sde(what: str, sde: LinearSDE) -> dict[str, Callable[[], Any]]:
    return {
        f"matrices of {what}": lambda: LinearSDE.declared(sde.declaration).uses_score,
        f"flows of {what}": lambda: derivation(sde),
    }


def _orders(scheme: Scheme) -> dict[str, Callable[[], Any]]:
    """In one dimension with every sub-flow, in two with those that `weakorder derive` compares."""
    asked: dict[str, Callable[[], Any]] = {}
    scales = [1.0, _SCALED] if any(part.sde.noisy[0] for part in scheme.parts) else [1.0]
    for dims, flows in ((1, FLOWS), (2, (scheme.flow, "true"))):
        for flow in flows:
            for scale in scales:
                for beta, linear in (("linear", True), ("constant", False)):
                    scaled = "" if scale == 1 else ", lambda_s"
                    what = f"order of {scheme.name}, {flow}{scaled}, {beta} beta, dims {dims}"
                    changed = replace(scheme, flow=flow, lambda_s=scale)
                    asked[what] = lambda s=changed, d=dims, b=linear: prove_order(s, d, b)
    return asked


def _orders_held(scheme: Scheme, two: bool = True) -> dict[str, Callable[[], Any]]:
    """In one dimension, as it is declared; in two without memory, which would be of some thousand terms with it."""
    return {
        f"order of {scheme.name}, {scheme.flow}, {beta} beta, dims {dims}": lambda d=dims, b=linear: prove_order(
            scheme, d, b
        )
        for dims in ((1, 2) if two and scheme.memory == 1 else (1,))
        for beta, linear in (("linear", True), ("constant", False))
    }


def derive(ask: Callable[[], Any]) -> dict[str, Any]:
    """What a question of `questions` comes down to, derived now: answers by digest."""
    with afresh() as answers:
        ask()
    return answers


def stale(asked: Mapping[str, Callable[[], Any]]) -> list[str]:
    """Which of these questions the file answers otherwise than they are answered now, or not at all; by their names."""
    found = []
    for what, ask in asked.items():
        for key, answer in derive(ask).items():
            entry = derivations.entry(key)
            if (entry is None or entry["answer"] != answer) and what not in found:
                found.append(what)
    return found


def lines(progress: Callable[[Sequence[str]], Iterable[str]] = iter) -> list[str]:
    """The lines of the file (theory.derivations)."""
    from ..theory.declarations import describe

    asked = questions()
    entries: dict[str, str] = {}
    for what in progress(list(asked)):
        for key, answer in derive(asked[what]).items():
            entries.setdefault(key, json.dumps({"key": key, "what": what, "answer": answer}))
    return [json.dumps({"version": derivations.version(), "declared": describe()}), *entries.values()]


def main() -> None:
    """Write the file."""
    from tqdm import tqdm

    text = "\n".join(lines(tqdm)) + "\n"
    derivations.FILE.parent.mkdir(exist_ok=True)
    derivations.FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
