"""Small changes of Python source that a test of its behaviour should notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
}


@dataclass(frozen=True)
class Change:
    """One planted bug.

    Attributes:
        line: of the original source, from 1.
        before, after: the changed expression or statement.
    """

    line: int
    before: str
    after: str
    _original: str
    _number: int
    _index: int

    @property
    def source(self) -> str:
        """The whole file with the change."""
        tree = ast.parse(self._original)
        _replace(tree, self._number, self._index)
        return ast.unparse(tree)

    def __str__(self) -> str:
        return f"line {self.line}: {self.before!r} -> {self.after!r}"


def changes(source: str) -> Iterator[Change]:
    """Yield every change of a file, in the order of its syntax tree."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        for index, new in enumerate(_alternatives(node)):
            before, after = (ast.unparse(each).split("\n")[0] for each in (node, new))
            yield Change(node.lineno, before, after, source, number, index)  # type: ignore[attr-defined]


def _replace(tree: ast.AST, number: int, index: int) -> None:
    """Put one alternative of the node with this number in its place."""
    target = next(node for n, node in enumerate(ast.walk(tree)) if n == number)
    new = _alternatives(target)[index]
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, ast.copy_location(new, target))
            elif isinstance(value, list) and any(each is target for each in value):
                value[:] = [ast.copy_location(new, target) if v is target else v for v in value]
    ast.fix_missing_locations(tree)


def _alternatives(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = COMPARES[type(node.ops[0])]()
        found.append(ast.Compare(node.left, [other], node.comparators))
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        found.append(ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right))
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        found.append(ast.BoolOp(other, node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        found.append(node.operand)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            found.append(ast.Constant(not node.value))
        elif isinstance(node.value, int | float):
            found.append(ast.Constant(node.value + 1))
    elif isinstance(node, ast.AugAssign | ast.Expr | ast.Raise | ast.Delete):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not text:  # a docstring, or a string that explains a constant
            found.append(ast.Pass())
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("min", "max"):
        name = "max" if ast.unparse(node.func) == "min" else "min"
        found.append(ast.Call(ast.Name(name, ast.Load()), node.args, node.keywords))
    return found
