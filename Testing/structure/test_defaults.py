"""Constants and defaults are those of one table: a changed one changes results without a word.

``python Testing/structure/test_defaults.py`` writes the table anew after a change on purpose.
"""

import ast
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("defaults.json")


def values_in(file: Path) -> dict[str, str]:
    """Return the literal constants of a module, defaults of its functions and fields of its classes, by name."""
    found = {}

    def keep(name: str, node: ast.expr | None) -> None:
        try:
            value = ast.literal_eval(node) if node is not None else None
        except ValueError:
            return
        if isinstance(value, (bool, int, float, str, tuple, list, dict)) and len(repr(value)) <= (
                30 if isinstance(value, str) else 500):
            found[name] = repr(value)

    def visit(body: list, prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                given = node.args
                named = [*given.posonlyargs, *given.args]
                pairs = [*zip(named[len(named) - len(given.defaults):], given.defaults),
                         *zip(given.kwonlyargs, given.kw_defaults)]
                for argument, default in pairs:
                    keep(f"{prefix}{node.name}({argument.arg})", default)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                keep(prefix + node.target.id, node.value)
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    names = target.elts if isinstance(target, ast.Tuple) else [target]
                    own = node.value.elts if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) else \
                        [node.value] if len(names) == 1 else []
                    for name, value in zip(names, own):
                        if isinstance(name, ast.Name):
                            keep(prefix + name.id, value)

    visit(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return found


def values() -> dict[str, dict[str, str]]:
    """Return file -> name -> value, of the libraries."""
    files = sorted(f for f in ROOT.glob("Disc*/Disc*Lib/**/*.py") if "headless" not in f.parts)
    return {f.relative_to(ROOT).as_posix(): found for f in files if (found := values_in(f))}


def test_no_constant_and_no_default_has_changed():
    listed, found = json.loads(TABLE.read_text(encoding="utf-8")), values()
    changed = [f"{file}: {name} is {found[file][name]}, was {value}" for file, own in listed.items()
               for name, value in own.items() if found.get(file, {}).get(name, value) != value]
    assert not changed, "\n".join(changed)
    known = sum(len(own.keys() & listed.get(file, {}).keys()) for file, own in found.items())
    assert known > 0.8 * sum(map(len, found.values())), f"write the table anew: python {Path(__file__).name}"


if __name__ == "__main__":
    TABLE.write_text(json.dumps(values(), indent=0) + "\n", encoding="utf-8")
