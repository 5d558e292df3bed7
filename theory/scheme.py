"""The scheme language: a sampler's step is a word over a splitting's parts.

    word   := token (' ' token)*
    token  := part ['(' weight ')'] ['@' time] | 'S' ['@' time]
    weight := 1 (default) | 1/2 | 0.25 | any exact rational or decimal > 0
    time   := a rational in [0, 1]
                S:    the score is conditioned at tau + time * h (default 0)
                part: its interval starts at tau + time * h, overriding its clock

`S` evaluates the score, and the parts after it use that value until the next `S`. Every part has its own clock: an
occurrence covers the interval that begins where the part's previous one ended (0 for the first), and integrates beta
over it; an override moves the clock. A word is parsed once, into a frozen `Scheme`; what can be derived (clocks,
cost, symmetry, consistency) is derived.
"""

from __future__ import annotations

import difflib
import itertools
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from .clock import THETA, Clock
from .frozen import SCORE_HELD, Frozen
from .parameters import LARGEST
from .showing import Shown
from .splitting import SCORE, SPLITTINGS, Part, Splitting, splitting_for

# How a part with score follows its dynamics: with the score frozen, by Euler or exactly; by the midpoint rule, which
# evaluates the score once more (second order for parts without noise); or along the true score. The last two keep the
# time of their S.
FROZEN_FLOWS = ("euler", "exact")
FLOWS = (*FROZEN_FLOWS, "midpoint", "true")
# The most evaluations that a part looks back on.
MOST_MEMORY = 4

_TOKEN = re.compile(r"(?P<symbol>[A-Za-z][A-Za-z0-9]*)(?:\((?P<weight>[^()@]*)\))?(?:@(?P<time>[^()@]*))?")
_NUMBER = re.compile(r"-?(?:\d+(?:/\d+)?|\d+\.\d*|\.\d+)", re.ASCII)
_LONGEST_NUMBER = 40


class WordError(ValueError):
    """A word that breaks the grammar; the message names the token, the rule and what would be right."""


@dataclass(frozen=True)
class Token:
    """One letter of a word. `weight` is None for S; `start` is the time that S is conditioned at, or where the
    part's interval begins, as a fraction of the step; `explicit` says that the word writes it with '@'."""

    symbol: str
    weight: Fraction | None
    start: Fraction
    explicit: bool

    @property
    def is_score(self) -> bool:
        """Whether the token evaluates the score."""
        return self.symbol == SCORE

    def __str__(self) -> str:
        weight = "" if self.weight in (None, 1) else f"({self.weight})"
        return f"{self.symbol}{weight}{f'@{self.start}' if self.explicit else ''}"


def _number(text: str, what: str, where: str) -> Fraction:
    if len(text) > _LONGEST_NUMBER:
        raise WordError(f"{where[:60]}: the {what} has {len(text)} characters; it may have {_LONGEST_NUMBER}")
    if not _NUMBER.fullmatch(text) or re.search(r"/0+$", text):
        raise WordError(f"{where}: the {what} {text!r} is not a number; write 1/2 or 0.5")
    return Fraction(text)


def _tokenize(word: str, splitting: Splitting) -> tuple[Token, ...]:
    """The tokens of a word, checked, with their clocks. Raises WordError."""
    texts = word.split()
    if not texts:
        raise WordError(f"empty word: a step needs at least one part of {splitting.name!r} ({_letters(splitting)})")
    clocks = dict.fromkeys(splitting.part_names, Fraction(0))
    tokens: list[Token] = []
    for position, text in enumerate(texts, 1):
        where = f"token {position}, {text!r}"
        match = _TOKEN.fullmatch(text)
        if not match:
            raise WordError(
                f"{where}: not a token; write PART, PART(weight), PART(weight)@time, {SCORE} or {SCORE}@time"
            )
        symbol, weight_text, time_text = match["symbol"], match["weight"], match["time"]
        if symbol != SCORE and symbol not in clocks:
            guess = difflib.get_close_matches(symbol.upper(), [*clocks, SCORE], 1, 0.5)
            hint = f"; did you mean {guess[0]!r}?" if guess else ""
            raise WordError(f"{where}: unknown part {symbol!r}; {splitting.name!r} has {_letters(splitting)}{hint}")
        time = None if time_text is None else _number(time_text, "time", where)
        if time is not None and not 0 <= time <= 1:
            raise WordError(
                f"{where}: the time {time} is outside the step; it must be in [0, 1], a fraction of the step"
            )
        if symbol == SCORE:
            if weight_text is not None:
                raise WordError(
                    f"{where}: {SCORE} takes no weight, it evaluates the score; write {SCORE} or {SCORE}@time"
                )
            tokens.append(Token(symbol, None, Fraction(0) if time is None else time, time is not None))
            continue
        weight = Fraction(1) if weight_text is None else _number(weight_text, "weight", where)
        if weight <= 0:
            raise WordError(
                f"{where}: the weight {weight} is not positive; the weights of {symbol} are > 0 and sum to 1"
            )
        if splitting[symbol].sde.uses_score and not any(token.is_score for token in tokens):
            raise WordError(
                f"{where}: {symbol} uses the score, but no {SCORE} stands before it; write '{SCORE} {text}'"
            )
        start = clocks[symbol] if time is None else time
        clocks[symbol] = start + weight
        tokens.append(Token(symbol, weight, start, time is not None))
    return tuple(tokens)


def _letters(splitting: Splitting) -> str:
    return f"{' '.join(splitting.part_names)} and {SCORE}, the score"


@dataclass(frozen=True)
class Scheme(Shown):
    """A splitting integrator: one step as a word, with the sub-flow of its score-driven parts.

    word: the step, see the module's grammar; kept in canonical form. splitting: whose parts it composes.
    flow: "euler" or "exact" (the score frozen), "midpoint" (one more evaluation at the part's midpoint), or "true" (the
    score followed inside the part; needs one in closed form), for every part that uses the score; the last two keep the
    time of their S. Parts without score are always exact.
    lambda_s in (0, 1e6]: factor on the standard deviation of the position noise that the parts draw; the momentum noise
    is untouched (arXiv 2402.07211, section 3). order: the weak order claimed for it, or None.
    frozen: which quantity the parts hold under flow="exact", q of s = Phi u + Psi q (theory.frozen). memory in 1..4: q
    is the polynomial through the last `memory` evaluations, at their true times; the first steps of a run have fewer,
    and use those. Under flow="euler" it is the part's drift that is extrapolated (Adams-Bashforth). clock: the variable
    of that polynomial, int beta unless given, and whether all of it is held or its value in the middle (theory.clock).
    Raises WordError, or ValueError naming the value and the rule.
    """

    word: str
    splitting: Splitting
    name: str = ""
    flow: str = "euler"
    lambda_s: float = 1.0
    order: int | None = None
    reference: str = ""
    frozen: Frozen = SCORE_HELD
    memory: int = 1
    clock: Clock = THETA
    tokens: tuple[Token, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _tokenize(self.word, self.splitting))
        object.__setattr__(self, "word", " ".join(map(str, self.tokens)))
        object.__setattr__(self, "name", self.name or self.word)
        if not self.name.isprintable():
            raise ValueError(f"name {self.name!r} holds characters that cannot be printed; choose a plain name")
        if self.flow not in FLOWS:
            raise ValueError(f"flow {self.flow!r} is unknown; choose one of {', '.join(FLOWS)}")
        if not 0 < self.lambda_s <= LARGEST:
            raise ValueError(
                f"lambda_s = {self.lambda_s:g} must be a number in (0, {LARGEST:g}]; 1 is the plain scheme"
            )
        if self.lambda_s != 1 and not any(part.sde.noisy[0] for part in self.parts):
            raise ValueError(
                f"lambda_s = {self.lambda_s:g} scales the noise in position, and {self.word!r} on "
                f"{self.splitting.name!r} draws none; leave it at 1"
            )
        if self.order is not None and self.order < 1:
            raise ValueError(f"order {self.order} is not a weak order; it is an integer >= 1, or None")
        self._check_frozen()
        self._check_memory()
        self._check_clock()

    def _check_frozen(self) -> None:
        """Raises ValueError unless what is held goes with the sub-flows and the diffusion."""
        if not isinstance(self.frozen, Frozen):
            raise ValueError(
                f"frozen {self.frozen!r} is of type {type(self.frozen).__name__}; give a theory.frozen.Frozen, such as "
                "theory.frozen.FROZEN['data']"
            )
        if self.frozen == SCORE_HELD:
            return
        if self.flow != "exact":
            raise ValueError(
                f"frozen {self.frozen.name!r} under flow {self.flow!r}: only exact sub-flows tell what is held "
                "from the score; choose flow 'exact', or frozen 'score'"
            )
        self.frozen.check(self.splitting.diffusion)

    def _check_memory(self) -> None:
        """Raises ValueError unless a polynomial through the last evaluations exists, and is what the sub-flows take."""
        if not isinstance(self.memory, int) or isinstance(self.memory, bool) or not 1 <= self.memory <= MOST_MEMORY:
            raise ValueError(
                f"memory {self.memory!r} is no number of evaluations to look back on; it is an integer from 1 to "
                f"{MOST_MEMORY}"
            )
        if self.memory == 1:
            return
        if self.flow not in FROZEN_FLOWS:
            raise ValueError(
                f"memory {self.memory} under flow {self.flow!r}: it follows the score, and holds nothing to "
                f"extrapolate; choose flow {' or '.join(map(repr, FROZEN_FLOWS))}, or memory 1"
            )
        times = [token.start for token in self.tokens if token.is_score]
        if not times:
            raise ValueError(f"memory {self.memory}: {self.word!r} evaluates no score to remember; leave it at 1")
        steps = range(-(-self.memory // len(times)) + 1)  # as many as `memory` evaluations in a row can reach into
        run = [step + time for step in steps for time in times]
        for first, time in enumerate(run):
            if time in run[first + 1 : first + self.memory]:
                raise ValueError(
                    f"memory {self.memory}: {self.word!r} evaluates the score twice at tau + {time % 1} h, and a "
                    "polynomial through both does not exist; give each S its own time, or choose memory 1"
                )
        if self.flow == "euler":
            self._check_extrapolated_drift()

    def _check_clock(self) -> None:
        """Raises ValueError unless there is a polynomial for the clock, and it runs."""
        if not isinstance(self.clock, Clock):
            raise ValueError(
                f"clock {self.clock!r} is of type {type(self.clock).__name__}; give a theory.clock.Clock, such as "
                "theory.clock.CLOCKS['logsnr']"
            )
        if self.clock.is_theta:
            return
        if self.memory == 1:
            raise ValueError(
                f"clock '{self.clock}' with memory 1: nothing is extrapolated from one evaluation; choose memory 2 or "
                "more, or clock theta"
            )
        self.clock.check(self.splitting.diffusion)

    def _check_extrapolated_drift(self) -> None:
        """Raises ValueError unless every part with score stands where its drift was evaluated."""
        if (amount := self.splitting.whole.amount) is not None:
            raise ValueError(
                f"memory {self.memory} under flow 'euler' extrapolates drifts, of older times with the noise of these, "
                f"which {amount} changes; choose flow 'exact', memory 1 or a number as noise"
            )
        users = {part.name for part in self.parts if part.sde.uses_score}
        for before, token in itertools.pairwise(self.tokens):
            if token.symbol in users and not (before.is_score and len(users) == 1):
                raise ValueError(
                    f"memory {self.memory} under flow 'euler' extrapolates the drift of one part, evaluated where it "
                    f"acts: '{token}' of {self.word!r} must stand directly behind S, and no other part use the score; "
                    "choose flow 'exact', or memory 1"
                )

    @property
    def holds_score(self) -> bool:
        """Whether the parts hold the score, of the last evaluation alone: all that a word says is in it."""
        return self.frozen == SCORE_HELD and self.memory == 1

    @property
    def held(self) -> str:
        """What parts hold and for how long, where it is not the last score: for titles; else empty."""
        words = [] if self.frozen == SCORE_HELD else [f"{self.frozen} held"]
        words += [] if self.memory == 1 else [f"memory {self.memory}"]
        return ", ".join(words + ([] if self.clock.is_theta else [f"clock {self.clock}"]))

    @property
    def sub_flows(self) -> str:
        """The sub-flow and what is held: for titles."""
        return f"{self.flow} sub-flows" + (f", {self.held}" if self.held else "")

    @property
    def held_key(self) -> list[object]:
        """The same, complete, for the keys of what is kept on disk; nothing where it is the last score."""
        if self.holds_score:
            return []
        diffusion = self.splitting.diffusion
        clock = [] if self.clock.is_theta else self.clock.fingerprint(diffusion)
        return [*self.frozen.fingerprint(diffusion), *clock, self.held]

    def remembering(self, memory: int) -> Scheme:
        """The scheme with another memory: of 1, without a clock. Raises ValueError as `Scheme` does."""
        return replace(self, memory=memory, clock=THETA if memory == 1 else self.clock)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the word, in the order of their first use."""
        return tuple(self.splitting[name] for name in dict.fromkeys(t.symbol for t in self.tokens if not t.is_score))

    @property
    def nfe_per_step(self) -> int:
        """Network evaluations a step: one for each S, and under "midpoint" one for each part that uses the score."""
        inner = [t for t in self.tokens if not t.is_score and self.splitting[t.symbol].sde.uses_score]
        return sum(token.is_score for token in self.tokens) + (len(inner) if self.flow == "midpoint" else 0)

    @property
    def is_palindrome(self) -> bool:
        """Whether the parts with their weights read the same backwards (the evaluations of the score aside)."""
        letters = [(token.symbol, token.weight) for token in self.tokens if not token.is_score]
        return letters == letters[::-1]

    @cached_property
    def inconsistencies(self) -> tuple[str, ...]:
        """Why the word is not consistent with the reverse dynamics; empty if it is."""
        found = []
        for part in self.splitting.parts:
            total = sum((t.weight or Fraction(0) for t in self.tokens if t.symbol == part.name), Fraction(0))
            if total != 1:
                found.append(f"the weights of {part.name} sum to {total}, not 1")
        if self.lambda_s != 1:
            found.append(f"lambda_s = {self.lambda_s:g} changes the noise of the position, it is 1 in the reverse SDE")
        return tuple(found)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """The inconsistencies, then what is legal but rarely meant: intervals of a part that do not tile the step, and
        evaluations of the score that are paid for and not used."""
        found = list(self.inconsistencies)
        for part in self.parts:
            intervals = sorted((t.start, t.start + t.weight) for t in self.tokens if t.symbol == part.name and t.weight)
            edges = [Fraction(0), *(edge for interval in intervals for edge in interval), Fraction(1)]
            if edges[::2] != edges[1::2]:
                spans = ", ".join(f"[{start}, {end}]" for start, end in intervals[:4]) + ", ..." * (len(intervals) > 4)
                found.append(f"the intervals of {part.name}, {spans}, do not tile the step [0, 1]")
        for position, token in enumerate(self.tokens):
            users = []
            for later in self.tokens[position + 1 :]:
                if later.is_score:
                    break
                users.append(later.symbol)
            if token.is_score and not any(self.splitting[name].sde.uses_score for name in users):
                found.append(f"token {position + 1}, '{token}': no part uses this evaluation of the score")
        return tuple(found)

    def __str__(self) -> str:
        return self.word


def check_holds_score(scheme: Scheme, reading: str) -> None:
    """Raises ValueError, in the name of a `reading`, on a scheme that holds anything but the last score."""
    if not scheme.holds_score:
        raise ValueError(
            f"{reading} not known of {scheme.name!r} ({scheme.sub_flows}): it is of schemes that hold the score of the "
            "last evaluation; choose frozen 'score' and memory 1"
        )


def parse(word: str, splitting: Splitting | None = None) -> Scheme:
    """A bare word as a `Scheme`; without `splitting`, over the first built-in one that has the parts it names.

    Raises WordError on a bad word.
    """
    if splitting is None:
        names = {match["symbol"] for text in word.split() if (match := _TOKEN.fullmatch(text))} - {SCORE}
        known = {name for built_in in SPLITTINGS.values() for name in built_in.part_names}
        splitting = splitting_for(names & known)  # an unknown part is left for the parser to name
    return Scheme(word, splitting)
