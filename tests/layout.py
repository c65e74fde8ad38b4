"""The rule for where things live, read from the code: `python tests/layout.py` draws it for docs/architecture.md.

A file directly in `task_aware/` is a command, a folder is the library, and imports run one way.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "task_aware"

#: What each folder may import; a command may import any folder. No two folders import each other.
MAY_IMPORT: dict[str, set[str]] = {
    "base": set(),
    "ops": {"base"},
    "data": {"base", "ops"},
    "synthesis": {"base", "data"},
    "annotations": {"base", "data"},
    "importing": {"base", "data", "annotations"},
    "models": {"base", "ops", "data"},
    "plots": {"base", "data", "models"},
    "viewing": {"base", "data", "models", "plots"},
    "training": {"base", "ops", "data", "synthesis", "models", "plots"},
    "inference": {"base", "ops", "data", "models", "plots", "viewing", "annotations"},
    "scoring": {"base", "ops", "data", "models", "annotations"},
    "portable": {"base", "ops", "models", "inference"},
    "study": {"base", "data", "models", "plots", "training", "scoring"},
}

#: Files beside the commands: what `import task_aware` and `python -m task_aware` run.
NOT_COMMANDS = {"__init__", "__main__"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below `task_aware`."""
    paths = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix("/__init__").replace("/", "."): path for name, path in paths.items()}


def imports_of(name: str, path: Path) -> set[str]:
    """The modules of the package that a module imports, also within functions, by their names below `task_aware`."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("task_aware.")}
        elif isinstance(node, ast.ImportFrom):
            parts = ["task_aware", *package.split(".")] if package else ["task_aware"]
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            whole = ".".join(part for part in (base, node.module) if part)
            if whole.partition(".")[0] == "task_aware":
                found |= {f"{whole}.{alias.name}" for alias in node.names}
    known = modules()
    targets = set()
    for target in (dotted.removeprefix("task_aware.") for dotted in found):
        while target and target not in known:
            target = target.rpartition(".")[0]
        targets.add(target)
    return targets - {name, ""}


def place(module: str) -> str:
    """The folder of a module, or `commands`."""
    return module.partition(".")[0] if "." in module or module in MAY_IMPORT else "commands"


def folder_imports() -> dict[str, set[str]]:
    """Which folders import which."""
    found: dict[str, set[str]] = {folder: set() for folder in MAY_IMPORT}
    for name, path in modules().items():
        if place(name) in found:
            found[place(name)] |= {place(target) for target in imports_of(name, path)} - {place(name)}
    return found


def drawing() -> str:
    """The folders and their imports as a Mermaid flowchart, without the arrows that follow from others."""
    direct = folder_imports()

    def reaches(start: str) -> set[str]:
        return direct[start] | {further for target in direct[start] for further in reaches(target)}

    lines = ["flowchart TD", "    commands([commands: train, infer, evaluate, ...])"]
    shown = {folder for targets in direct.values() for folder in targets}
    lines += [f"    commands --> {folder}" for folder in MAY_IMPORT if folder not in shown]
    for folder in reversed(MAY_IMPORT):
        implied = {further for target in direct[folder] for further in reaches(target)}
        lines += [f"    {folder} --> {target}" for target in sorted(direct[folder] - implied)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(drawing())
