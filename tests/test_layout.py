"""Where things live: a file directly in `task_aware/` is a command, a folder is the library, imports run one way."""

from __future__ import annotations

from pathlib import Path

import pytest
from layout import MAY_IMPORT, NOT_COMMANDS, PACKAGE, drawing, folder_imports, imports_of, modules, place

CHECKOUT = PACKAGE.parent
COMMANDS = {name: path for name, path in modules().items() if place(name) == "commands" and path.parent == PACKAGE}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - NOT_COMMANDS))
def test_a_file_in_the_package_itself_is_a_command(name):
    first, *_ = COMMANDS[name].read_text(encoding="utf-8").splitlines()
    assert first.startswith(f'"""`python -m task_aware.{name}`: '), "a command says on its first line what it does"
    assert lines(COMMANDS[name]) <= 130, "a command reads options, calls the library and prints; move the rest there"


def test_every_folder_has_its_row():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT), "name a new folder, and what it may import, in MAY_IMPORT"


def test_nothing_imports_a_command():
    importers = {
        f"{name} -> {target}"
        for name, path in modules().items()
        for target in imports_of(name, path)
        if target in COMMANDS and target != "__main__"
    }
    assert not importers


def test_folders_import_what_they_may():
    for folder, targets in folder_imports().items():
        assert targets <= MAY_IMPORT[folder], f"{folder}/ imports {', '.join(sorted(targets - MAY_IMPORT[folder]))}"


def test_the_rule_has_no_circle_and_allows_nothing_that_is_not_used():
    order = list(MAY_IMPORT)
    for folder, targets in MAY_IMPORT.items():
        assert all(order.index(target) < order.index(folder) for target in targets)
    assert folder_imports() == MAY_IMPORT


def test_no_two_modules_import_each_other():
    graph = {name: imports_of(name, path) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a circle: {' -> '.join((*above[above.index(name) :], name))}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("folder", ["task_aware", "csrc", "build_backend", "benchmarks", "tests", "examples", "docs"])
def test_no_file_is_long_without_a_reason(folder):
    suffixes = {".py", ".h", ".cpp", ".cu", ".cuh", ".sh", ".md"}
    files = (p for p in (CHECKOUT / folder).rglob("*") if p.suffix in suffixes and "results" not in p.parts)
    long = {path.relative_to(CHECKOUT).as_posix(): n for path in files if (n := lines(path)) > 350}
    assert long.keys() <= LONG_FOR_A_REASON.keys(), f"split {long}"


#: One subject that would not read better in two files.
LONG_FOR_A_REASON = {}


def test_tests_lie_where_what_they_test_does():
    beside = {path.parent.name for path in (CHECKOUT / "tests").glob("*/test_*.py")}
    assert beside - {"cuda_host", "fuzz"} <= set(MAY_IMPORT)


def test_the_drawing_in_the_documentation_is_of_this_code():
    text = (CHECKOUT / "docs/architecture.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{drawing()}\n```" in text, "put the output of `python tests/layout.py` there"
