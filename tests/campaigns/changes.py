"""The changes that the mutation campaign makes: comparisons, bounds, dropped statements and the like."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import attrs

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@attrs.frozen
class Change:
    """One place of a file, and the text that replaces it. ``start`` and ``end`` are offsets in bytes."""

    path: str
    line: int
    start: int
    end: int
    before: str
    after: str
    constant: str | None = None
    """What is changed where modules are imported, which one test at random does: a constant's name, or ``""``."""

    def apply(self, source: bytes) -> bytes:
        """Return the file's source with the change in it, and every other line where it was."""
        lines = "\n" * self.before.count("\n")
        after = f"{self.after[:-1]}{lines})" if self.after.endswith(")") else self.after + lines
        return source[: self.start] + after.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before!r} -> {self.after!r}"


def changes(path: str, source: str) -> Iterator[Change]:
    """Yield every change of a file."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    data = source.encode()
    constants = dict(_constants(tree))
    for node, after in _replacements(tree):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        before = data[start:end].decode()
        yield Change(path, node.lineno, start, end, before, after, constants.get(node.lineno))


def _constants(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the lines that run as the module is imported, each with the name that is assigned there, or ``""``."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():  # its default values
                yield from ((line, "") for line in range(node.lineno, node.body[0].lineno))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                assert node.end_lineno is not None
                yield from ((line, name) for line in range(node.lineno, node.end_lineno + 1))
            case ast.stmt():
                yield node.lineno, ""
                yield from _constants(node)
            case _:
                pass


def _replacements(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    skipped = {id(below) for node in _passed_over(tree) for below in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                yield node, f"({ast.unparse(ast.Compare(left, [_COMPARE[type(op)]()], [right]))})"
            case ast.BoolOp(op=op, values=values):
                other = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield node, f"({ast.unparse(ast.BoolOp(other, values))})"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield node, f"({ast.unparse(operand)})"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC and not _is_text(left, right):
                yield node, f"({ast.unparse(ast.BinOp(left, _ARITHMETIC[type(op)](), right))})"
            case ast.Constant(value=bool() as value):
                yield node, str(not value)
            case ast.Constant(value=int() | float() as value):
                yield node, repr(value + 1)
            case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
                yield node.func, _NAMES[name]
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise():
                yield node, "pass"
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield node, "pass"
            case _:
                pass


def _passed_over(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what no test should pin down: types, log lines, how a thing shows itself, the texts of messages."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.If(test=ast.Name(id="TYPE_CHECKING"))
                | ast.If(test=ast.UnaryOp(operand=ast.Name(id="TYPE_CHECKING")))
            ):
                yield node
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=ast.expr() as annotation):
                yield annotation
            case ast.FunctionDef(name="__repr__" | "__str__" | "__dir__"):
                yield node
            case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
                yield from decorators
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="_log")))):
                yield node
            case ast.JoinedStr() | ast.Assert():
                yield node
            case _:
                pass


def _is_text(*nodes: ast.expr) -> bool:
    return any(isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str) for node in nodes)
