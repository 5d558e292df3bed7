"""Formulas as text: how derived expressions are kept, shown, read back into sympy, and evaluated with numpy.

One notation serves all: that of sympy's `str`, with floats to their last digit, which is also Python's. To evaluate
it, the text is parsed, every node of it is checked against the short list of what a formula may hold, and it is
compiled to one function in which repeated subexpressions are computed once; one that is needed once, as a user's time
grid, is evaluated as it stands. sympy is imported only to write a formula or to read it back.
"""

from __future__ import annotations

import ast
import itertools
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sympy import Expr, Symbol

# The jets of a score, or of what else is held, are named by their derivatives, s_x,mt, and in two dimensions s_x1,x1m2.
_JET = re.compile(r"([sq]_[xmaj]\d?|P[hs]i_[xmaj]{2}),(\w+)")
_CONSTANTS = {"pi": np.pi, "E": np.e, "I": np.complex128(1j)}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "sign", "floor")},
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "atan2": np.arctan2,
    "ceiling": np.ceil,
    "Abs": np.abs,
    "Max": lambda *values: reduce(np.maximum, values),
    "Min": lambda *values: reduce(np.minimum, values),
}
_REAL = {"sqrt": np.sqrt, "log": np.log, **_FUNCTIONS}
# Roots and logarithms of negative numbers are complex: rates of an oscillator come in pairs.
_COMPLEX = {"sqrt": np.emath.sqrt, "log": np.emath.log, **_FUNCTIONS}
_APPLIED = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_OPERATORS = (*_APPLIED, ast.UAdd, ast.USub)
_SEVERAL = ("atan2", "Max", "Min")  # functions of more than one argument


class FormulaError(ValueError):
    """A text that is no formula; part: what of it is none."""

    def __init__(self, formula: str, part: str, functions: Mapping[str, Any]) -> None:
        self.part = part
        super().__init__(
            f"the formula {formula[:200]} holds {part[:80]!r}, which is not evaluated; use arithmetic and "
            f"{', '.join(sorted(functions))}"
        )


def text(expression: Expr) -> str:
    """The text of an expression; `parse` reads it back, `compiled` evaluates it."""
    return _printer().doprint(expression)


def shown(formula: str) -> str:
    """A formula's text for people."""
    return formula.replace("**", "^")


@cache
def _printer() -> Any:
    from sympy import Float
    from sympy.printing.str import StrPrinter

    class Printer(StrPrinter):
        def _print_Float(self, expr: Float) -> str:
            return repr(float(expr)) if expr._prec <= 53 else super()._print_Float(expr)

    return Printer()


def parse(formula: str, symbols: Mapping[str, Symbol]) -> Expr:
    """The expression of a formula's text; names that are not in `symbols` are plain symbols. Raises ValueError as
    `compiled`."""
    import sympy as sp

    def build(node: Any) -> Any:
        match node:
            case ast.Constant(value=value):
                return sp.sympify(value)
            case ast.Name(id=name):
                known = name in _CONSTANTS
                return getattr(sp, name) if known else symbols.get(_plain(name)) or sp.Symbol(_plain(name))
            case ast.Call(func=ast.Name(id=name), args=args):
                return getattr(sp, name)(*map(build, args))
            case ast.UnaryOp(op=op, operand=operand):
                return -build(operand) if isinstance(op, ast.USub) else build(operand)
        left, right = build(node.left), build(node.right)
        return _APPLIED[type(node.op)](left, right)

    tree = _parsed(formula)
    _check(tree, _REAL, formula)
    return build(tree)


@dataclass(frozen=True)
class Compiled:
    """Formulas as a numpy function: the names that they hold, and the function of `values` for these names."""

    names: tuple[str, ...]
    function: Callable[..., list[Any]]

    def __call__(self, values: Mapping[str, Any]) -> list[Any]:
        """The formulas' numbers or arrays, in order; values that they do not hold are left alone."""
        return self.function(*(values[name] for name in self.names))


def compiled(formulas: Sequence[str], complex_roots: bool = False) -> Compiled:
    """Formulas compiled to one function.

    complex_roots: roots and logarithms of negative numbers are complex, else nan. Raises ValueError, naming it, on
    what a formula may not hold; nothing else is ever run.
    """
    scope = _COMPLEX if complex_roots else _REAL
    trees = [_parsed(formula) for formula in formulas]
    for tree, formula in zip(trees, formulas, strict=True):
        _check(tree, scope, formula)
    names = sorted(set().union(*map(_names, trees)) if trees else ())
    shared = _Shared(trees)
    results = [shared.place(tree) for tree in trees]
    body = [*shared.assignments, ast.Return(ast.List(results, ast.Load()))]
    module = ast.parse(f"def formulas({', '.join(names)}): pass")
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef):
            function.body = body
    ast.fix_missing_locations(module)
    namespace: dict[str, Any] = {"__builtins__": {}, **_CONSTANTS, **scope}
    exec(compile(module, "<formulas>", "exec"), namespace)
    return Compiled(tuple(map(_plain, names)), namespace["formulas"])


# Python's parser takes no sum of some thousand terms, which a leading error may be: long ones are cut into pieces.
_LONG_SUM = 100
_SUMMAND = re.compile(r"[()]| [+-] ")


def _parsed(formula: str) -> ast.expr:
    """The tree of a formula; a long sum as the sum of its halves."""
    mangled, depth, cuts = _mangled(formula), 0, [0]
    for match in _SUMMAND.finditer(mangled):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if len(match[0]) == 3 and depth == 0:
            cuts.append(match.start())
    if len(cuts) <= _LONG_SUM:
        return ast.parse(mangled, mode="eval").body
    ends = [*cuts[_LONG_SUM::_LONG_SUM], len(mangled)]
    pieces = [mangled[a:b].removeprefix(" + ").strip() for a, b in itertools.pairwise([0, *ends])]
    return _sum([ast.parse(piece, mode="eval").body for piece in pieces])


def _sum(terms: list[ast.expr]) -> ast.expr:
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return ast.BinOp(_sum(terms[:half]), ast.Add(), _sum(terms[half:]))


def evaluated(formula: str, values: Mapping[str, Any]) -> Any:
    """The number or array of a formula in these names. Its numbers, whole ones too, are float64: powers have a bound.

    Raises FormulaError on what a formula may not hold and on other names, SyntaxError on what is no expression, and
    what Python raises of texts that are too deep or too large (RecursionError, MemoryError, OverflowError).
    """
    tree = ast.parse(formula.strip(), mode="eval").body
    _check(tree, _REAL, formula)
    if unknown := sorted(_names(tree) - set(values)):
        raise FormulaError(formula, unknown[0], _REAL)

    def value(node: Any) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return np.float64(number)
            case ast.Name(id=name):
                return values[name] if name in values else _CONSTANTS[name]
            case ast.Call(func=ast.Name(id=name), args=args):
                return _REAL[name](*map(value, args))
            case ast.UnaryOp(op=op, operand=operand):
                return -value(operand) if isinstance(op, ast.USub) else value(operand)
        return _APPLIED[type(node.op)](value(node.left), value(node.right))

    return value(tree)


def _mangled(formula: str) -> str:
    return _JET.sub(r"\1__\2", formula)


def _plain(name: str) -> str:
    return name.replace("__", ",")


def _names(tree: ast.AST) -> set[str]:
    """The names of the quantities in a formula: all but functions and constants."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}
    return names - set(_CONSTANTS)


def _check(tree: ast.AST, functions: Mapping[str, Any], formula: str) -> None:
    """Raises FormulaError unless the tree is made of numbers, names, arithmetic and calls of `functions`."""
    match tree:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return
        case ast.Name():
            return
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _OPERATORS):
            parts = [left, right]
        case ast.UnaryOp(op=op, operand=operand) if isinstance(op, _OPERATORS):
            parts = [operand]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in functions and (
            len(args) == 1 or name in _SEVERAL
        ):
            parts = args
        case _:
            raise FormulaError(formula, ast.unparse(tree), functions)
    for part in parts:
        _check(part, functions, formula)


class _Shared:
    """Common subexpressions: each that occurs more than once is assigned to a name of its own, before its first use."""

    def __init__(self, trees: Sequence[ast.expr]) -> None:
        self.assignments: list[ast.stmt] = []
        self._trees = trees  # whose nodes keep their ids for as long as they are here
        self._keys: dict[int, int] = {}
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._uses: Counter[int] = Counter()
        self._placed: dict[int, str] = {}
        for tree in trees:
            self._count(tree)

    def _key(self, node: ast.expr) -> int:
        """A number for the node, found once: equal trees have equal ones."""
        if (known := self._keys.get(id(node))) is not None:
            return known
        if isinstance(node, ast.Constant):
            key = ("number", type(node.value), node.value)
        elif isinstance(node, ast.Name):
            key = ("name", node.id)
        else:
            head = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            op = type(getattr(node, "op", None))
            key = (type(node), head, op, *map(self._key, _operands(node)))
        self._keys[id(node)] = self._numbers.setdefault(key, len(self._numbers))
        return self._keys[id(node)]

    def _count(self, node: ast.expr) -> None:
        key = self._key(node)
        self._uses[key] += 1
        if self._uses[key] == 1:  # what stands inside a repeated one is not repeated by it
            for operand in _operands(node):
                self._count(operand)

    def place(self, node: ast.expr) -> ast.expr:
        """The node with its repeated parts replaced by names, assigned on the way."""
        if not (operands := _operands(node)):
            return node
        key = self._key(node)
        if key in self._placed:
            return ast.Name(self._placed[key], ast.Load())
        placed = [self.place(operand) for operand in operands]
        if isinstance(node, ast.BinOp):
            node = ast.BinOp(placed[0], node.op, placed[1])
        elif isinstance(node, ast.UnaryOp):
            node = ast.UnaryOp(node.op, placed[0])
        elif isinstance(node, ast.Call):
            node = ast.Call(node.func, placed, [])
        if self._uses[key] == 1:
            return node
        self._placed[key] = f"_{len(self._placed)}"
        self.assignments.append(ast.Assign([ast.Name(self._placed[key], ast.Store())], node))
        return ast.Name(self._placed[key], ast.Load())


def _operands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    return list(node.args) if isinstance(node, ast.Call) else []
