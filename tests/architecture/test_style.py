"""Checks of every file: documented, small, without hidden state."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.architecture.source import PACKAGES, modules

MAX_FILE = 400  # lines
MAX_FUNCTION = 60
MAX_FOLDER = 20  # modules
CONTAINERS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
CONTAINER_TYPES = {"dict", "list", "set", "defaultdict", "deque", "OrderedDict", "Counter"}
# A bounded cache of a pure function changes no result; one without bound is a memory leak.
UNBOUNDED_CACHE = re.compile(r"(functools\.)?(cache|lru_cache(\(\)|\(maxsize=None\)|\(None\))?)")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_module_says_what_it_is_for() -> None:
    """A newcomer learns from the first lines what to expect."""
    without_docstring = [
        module.name for module in modules(*PACKAGES, "tests", "benchmarks") if not module.docstring
    ]

    assert without_docstring == []


def test_packages_hold_no_code_of_their_own() -> None:
    """Importing a package runs no code other than that of the module that is named."""
    with_code = [
        module.name
        for module in modules(*PACKAGES)
        if module.name.endswith("__init__.py") and len(module.tree.body) > 1
    ]

    assert with_code == []


def test_files_can_be_read_in_one_sitting() -> None:
    """A longer file has two subjects."""
    long = [
        f"{module.name}: {lines} lines"
        for module in modules(*PACKAGES)
        if (lines := len(module.text.splitlines())) > MAX_FILE
    ]

    assert long == []


def test_folders_can_be_surveyed() -> None:
    """A folder with more modules has two subjects."""
    folders = Counter(
        module.name.rpartition("/")[0]
        for module in modules(*PACKAGES, "tests", "benchmarks")
        if not module.name.endswith("__init__.py")
    )

    assert {folder: files for folder, files in folders.items() if files > MAX_FOLDER} == {}


def test_one_class_has_a_name() -> None:
    """A search for the name of a class finds one class."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules(*PACKAGES):
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module.name)

    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_values_are_structs() -> None:
    """A dataclass takes forty times as long to define as a struct, and five times as long to make.

    It is for values some fields of which are computed, or not shown.
    """
    found = [
        f"{module.name}: {node.name}"
        for module in modules(*PACKAGES)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and any("dataclass" in ast.unparse(each) for each in node.decorator_list)
        and not any(option in ast.unparse(node) for option in ("init=False", "repr=False"))
    ]

    assert found == []


def test_functions_fit_on_a_screen() -> None:
    """A longer function is two functions."""
    long = [
        f"{module.name}: {function.name} has {lines} lines"
        for module in modules(*PACKAGES)
        for function in functions(module.tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION
    ]

    assert long == []


def test_no_module_holds_mutable_state() -> None:
    """Two servers run in one process, so they may share no mutable state."""
    found = [
        f"{module.name}: {name}"
        for module in modules(*PACKAGES)
        for name in (*_mutable_names(module.tree), *_hidden_state(module.tree))
    ]

    assert found == []


def _mutable_names(tree: ast.Module) -> Iterator[str]:
    """The module's lower-case names that are bound to containers; upper-case ones are constants."""
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
                yield f"{function.name} is cached without bound"


def test_every_test_says_why_a_user_cares() -> None:
    """A developer deletes a failing test that does not explain itself."""
    without_docstring = [
        f"{module.name}: {function.name}"
        for module in modules("tests")
        for function in functions(module.tree)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]

    assert without_docstring == []


def test_tests_write_nothing_into_the_checkout() -> None:
    """Trial's `mktemp` creates folders in the working directory; `temporary_folder` does not."""
    made = [
        module.name
        for module in modules("tests", "benchmarks")
        if re.search(r"\bself\.mktemp\(", module.text) and not module.name.endswith("test_style.py")
    ]

    assert made == []
