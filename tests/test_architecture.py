"""The rules of the architecture in `docs/architecture.md`: which package may import which, and limits of size.

A package here is a top-level package inside `fusion/`, `nodes/` or `sensebind/`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from helpers.paths import ROOT

# Layers, the lowest first. A package imports from lower layers only.
LAYERS = (
    ("fusion.core",),
    ("fusion.events", "fusion.health", "fusion.inference", "fusion.io", "fusion.preprocess"),
    ("fusion.models", "fusion.stream", "simulation"),
    ("fusion.config",),
    ("nodes.support", "replay"),
    ("nodes", "evaluation"),
    ("benchmarks", "report", "training"),
    ("commands",),
)
ROS = {"rclpy", "rcl_interfaces", "lifecycle_msgs", "diagnostic_msgs", "rosgraph_msgs", "launch", "launch_ros"}
LARGEST_FOLDER = 13  # Python files
LONGEST_FUNCTION = 60  # lines; a longer one needs a comment on the line above that gives the reason


@cache
def modules() -> Mapping[str, Path]:
    """Module name → file, of the whole product."""
    found = {}
    for top, prefix in (("fusion", "sensebind."), ("nodes", "sensebind."), ("sensebind", "")):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if top == "sensebind" and parts[1] in ("fusion", "nodes"):
                continue  # links to the folders `fusion` and `nodes`
            found[(prefix + ".".join(parts)).removesuffix(".__init__")] = path
    return found


def package_of(module: str) -> str | None:
    """The package of a module; None for `sensebind` itself, its `cli`, and other modules than the product's."""
    parts = module.split(".")
    if parts[0] != "sensebind" or len(parts) < 2 or parts[1] == "cli":
        return None
    if parts[1] == "fusion":
        return f"fusion.{parts[2]}" if len(parts) > 2 else None
    if parts[1] == "nodes":
        return "nodes.support" if parts[2:3] == ["support"] else "nodes"
    return parts[1]


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """Module → the modules that it imports anywhere in the file; for other software, the top-level package."""
    known, result = modules(), {}
    for module, path in known.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module, f"{path}: import by full name"
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {name if name in known else node.module for name in names}
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        result[module] = frozenset(t if t in known else t.split(".")[0] for t in targets if t != module)
    return result


def imports_between_packages() -> Iterator[tuple[str, str, str, str]]:
    """(module, imported module, package of the module, package of the imported module) for each import."""
    for module, targets in imports().items():
        for target in targets:
            ends = package_of(module), package_of(target)
            if ends[0] and ends[1] and ends[0] != ends[1]:
                yield module, target, ends[0], ends[1]


def test_every_package_has_a_layer_and_their_number_is_limited() -> None:
    packages = {package for module in modules() if (package := package_of(module))}
    assert packages == {package for layer in LAYERS for package in layer}
    assert len(packages) <= 18 and len(LAYERS) <= 8


def test_a_package_imports_from_lower_layers_only() -> None:
    layer_of = {package: number for number, layer in enumerate(LAYERS) for package in layer}
    wrong = [
        f"{module} imports {target}"
        for module, target, a, b in imports_between_packages()
        if layer_of[b] >= layer_of[a]
    ]
    assert not wrong, "\n".join(wrong)


def test_fusion_imports_no_ros_package_and_nothing_of_the_workbench() -> None:
    for module, targets in imports().items():
        if module.startswith("sensebind.fusion"):
            wrong = {t for t in targets if t in ROS or (t.startswith("sensebind.") and ".fusion" not in t)}
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_nodes_import_nothing_of_the_workbench() -> None:
    for module, targets in imports().items():
        if module.startswith("sensebind.nodes"):
            wrong = {
                t
                for t in targets
                if t.startswith("sensebind.") and not t.startswith(("sensebind.fusion", "sensebind.nodes"))
            }
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_there_are_no_circular_imports() -> None:
    graph = {module: {t for t in targets if t in modules()} for module, targets in imports().items()}
    while leaves := {module for module, targets in graph.items() if not targets & graph.keys()}:
        graph = {module: targets for module, targets in graph.items() if module not in leaves}
    assert not graph, f"circular imports among {', '.join(sorted(graph))}"


def test_the_number_of_files_in_a_folder_is_limited() -> None:
    folders: dict[Path, int] = {}
    for path in modules().values():
        folders[path.parent] = folders.get(path.parent, 0) + 1
    assert {str(f.relative_to(ROOT)): n for f, n in folders.items() if n > LARGEST_FOLDER} == {}
    assert not [
        m
        for m in modules()
        if m.count(".") == 2 and m.startswith("sensebind.fusion.") and modules()[m].name != "__init__.py"
    ]


def test_tests_are_in_folders_named_as_the_packages_and_import_no_other_test() -> None:
    packages = {package.removeprefix("fusion.") for layer in LAYERS for package in layer} | {"docs", "helpers", "fuzz"}
    packages |= {"faults"}  # of running nodes
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
    assert folders <= packages, folders - packages
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tests = [name for name in names if name.split(".")[-1].startswith("test_")]
            assert not tests, f"{path} imports {tests}: put what both use into tests/helpers"


def test_no_two_files_of_tests_have_the_same_name() -> None:
    # pytest would import one of them only, and `make test` would end before the first test
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}


def test_a_comment_gives_the_reason_for_each_long_function() -> None:
    long = []
    for path in modules().values():
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if (
                isinstance(node, ast.FunctionDef)
                and node.end_lineno
                and node.end_lineno - node.lineno >= LONGEST_FUNCTION
            ):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if not lines[first - 2].lstrip().startswith("#"):
                    long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not long, "\n".join(long)


@pytest.mark.parametrize(
    "statement", ["import sensebind", "from sensebind import __version__", "dir(__import__('sensebind'))"]
)
def test_importing_sensebind_loads_no_model_and_nothing_of_the_workbench(statement: str) -> None:
    heavy = "('torch', 'numpy', 'cv2', 'sensebind')"
    check = f"{statement}\nimport sys\nprint(*[name for name in sys.modules if name.split('.')[0] in {heavy}])"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
    )
    allowed = {"sensebind", "sensebind.fusion", "sensebind.fusion.core", "sensebind.fusion.core.threads"}
    assert set(done.stdout.split()) <= allowed


@pytest.mark.parametrize("module", ["fusion.config.parameters", "nodes.bridge", "nodes.detector", "nodes.player"])
def test_modules_that_embed_and_decode_nothing_load_neither_torch_nor_opencv(module: str) -> None:
    if module.startswith("nodes"):
        pytest.importorskip("rclpy")
    program = f"import sys, sensebind.{module}; print(*{{'torch', 'cv2', 'scipy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_the_public_names_exist() -> None:
    import sensebind

    assert set(sensebind.__all__) <= set(dir(sensebind))
    for name in sensebind.__all__:
        assert getattr(sensebind, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sensebind.no_such_name  # type: ignore[attr-defined]
