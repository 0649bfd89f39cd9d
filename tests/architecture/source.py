"""The source of the project, for the checks of this package."""

import ast
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PACKAGES = ("homeserver", "federation", "appservices")


@dataclass(frozen=True)
class Module:
    """One Python file. `name` is its path from the top of the checkout."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""

    def imports(self) -> Iterator[str]:
        """The modules that it imports, wherever in the file."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or ""

    @cached_property
    def texts(self) -> list[str]:
        """Its string constants but docstrings, with the constant parts of f-strings joined."""
        return [*self._texts()]

    def _texts(self) -> Iterator[str]:
        inside: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                inside.add(id(node.value))  # a docstring
            elif isinstance(node, ast.JoinedStr):
                parts = [part for part in node.values if isinstance(part, ast.Constant)]
                inside.update(id(part) for part in parts)
                yield " ".join(str(part.value) for part in parts)
            elif isinstance(node, ast.Constant) and id(node) not in inside:
                yield node.value if isinstance(node.value, str) else ""


def modules(*folders: str) -> list[Module]:
    """All Python files below folders of the checkout."""
    paths = sorted(path for folder in folders for path in (TOP / folder).rglob("*.py"))
    # Two million nodes of trees stay for all checks: to search them for garbage takes longer than
    # to parse the files, again and again.
    gc.disable()
    try:
        return [_module(path) for path in paths if "node_modules" not in path.parts]
    finally:
        gc.freeze()
        gc.enable()


@cache
def _module(path: Path) -> Module:
    """Read and parsed once, for all checks."""
    module = Module(str(path.relative_to(TOP)), path.read_text(encoding="utf-8"))
    assert module.tree, "it is parsed here"
    return module
