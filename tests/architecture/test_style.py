"""How files look: documented, small, without hidden state."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.architecture.source import PACKAGES, Module, modules

MAX_FILE = 400  # lines
MAX_FUNCTION = 60
MAX_FOLDER = 20  # modules
CONTAINERS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
CONTAINER_TYPES = {"dict", "list", "set", "defaultdict", "deque", "OrderedDict", "Counter"}
# A bounded memo of a pure function changes nothing for anyone; one without bound is a leak.
UNBOUNDED_CACHE = re.compile(r"(functools\.)?(cache|lru_cache(\(\)|\(maxsize=None\)|\(None\))?)")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("module", modules(*PACKAGES, "tests", "benchmarks"), ids=lambda m: m.name)
def test_every_module_says_what_it_is_for(module: Module) -> None:
    """A newcomer learns from the first lines what to expect."""
    assert module.docstring


def test_packages_hold_no_code_of_their_own() -> None:
    """Importing a package runs nothing: what is imported is what is named."""
    with_code = [
        module.name
        for module in modules(*PACKAGES)
        if module.name.endswith("__init__.py") and len(module.tree.body) > 1
    ]

    assert with_code == []


def test_files_can_be_read_in_one_sitting() -> None:
    """A file that grows past this does two things."""
    long = [
        f"{module.name}: {lines} lines"
        for module in modules(*PACKAGES)
        if (lines := len(module.text.splitlines())) > MAX_FILE
    ]

    assert long == []


def test_folders_can_be_overlooked() -> None:
    """A folder that grows past this holds two subjects."""
    folders = Counter(
        module.name.rpartition("/")[0]
        for module in modules(*PACKAGES, "tests", "benchmarks")
        if not module.name.endswith("__init__.py")
    )

    assert {folder: files for folder, files in folders.items() if files > MAX_FOLDER} == {}


def test_functions_fit_on_a_screen() -> None:
    """A function that does not is two functions."""
    long = [
        f"{module.name}: {function.name} has {lines} lines"
        for module in modules(*PACKAGES)
        for function in functions(module.tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION
    ]

    assert long == []


def test_no_module_holds_mutable_state() -> None:
    """Two servers run in one process, so nothing may be shared behind their backs."""
    found = [
        f"{module.name}: {name}"
        for module in modules(*PACKAGES)
        for name in (*_mutable_names(module.tree), *_hidden_state(module.tree))
    ]

    assert found == []


def _mutable_names(tree: ast.Module) -> Iterator[str]:
    """Lower-case names of a module that are bound to containers; upper-case ones are constants."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        made = isinstance(value, ast.Call) and ast.unparse(value.func) in CONTAINER_TYPES
        if isinstance(value, CONTAINERS) or made:
            names = (target.id for target in targets if isinstance(target, ast.Name))
            yield from (name for name in names if not name.isupper() and name != "__all__")


def _hidden_state(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}"
    for function in functions(tree):
        for decorator in function.decorator_list:
            if UNBOUNDED_CACHE.fullmatch(ast.unparse(decorator)):
                yield f"{function.name} is remembered without bound"


@pytest.mark.parametrize("module", modules("tests"), ids=lambda m: m.name)
def test_every_test_says_why_a_user_cares(module: Module) -> None:
    """A test that nobody can explain is deleted by the first one whom it stops."""
    silent = [
        function.name
        for function in functions(module.tree)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]

    assert silent == []


def test_tests_write_nothing_into_the_checkout() -> None:
    """Trial's `mktemp` makes folders where the tests are started; `temporary_folder` does not."""
    made = [
        module.name
        for module in modules("tests", "benchmarks")
        if re.search(r"\bself\.mktemp\(", module.text) and not module.name.endswith("test_style.py")
    ]

    assert made == []
