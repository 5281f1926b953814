"""No function has more code lines than the limit."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("edgekit", "models", "export", "device")
MAX_FUNCTION_LINES = 60
MAX_COMMAND_LINES = 50

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_no_function_is_too_long() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {lines} code lines"
        for path in sources()
        for function, lines in functions(path.read_text())
        if lines > (MAX_COMMAND_LINES if is_command(function) else MAX_FUNCTION_LINES)
    ]
    assert too_long == []


def test_code_lines_leave_out_docstring_comments_and_blank_lines() -> None:
    text = 'def f():\n    """A\n    b."""\n    # why\n    a = 1\n\n    return (\n        a\n    )\n'
    assert [lines for _, lines in functions(text)] == [4]


def sources() -> list[Path]:
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not any(parent.is_symlink() for parent in path.parents)
    ]


def functions(text: str) -> list[tuple[Function, int]]:
    """Return each function of a module with the number of code lines of its body."""
    code = code_lines(text)
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                found.append((node, len(code.intersection(range(body[0].lineno, (node.end_lineno or 0) + 1)))))
            else:
                found.append((node, 0))
    return found


def code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that contain more than blanks and comments."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def is_command(function: Function) -> bool:
    """Return whether a decorator makes the function a click command."""
    return any("command" in ast.unparse(decorator).split("(")[0] for decorator in function.decorator_list)
