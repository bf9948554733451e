"""No class of a node overwrites an attribute that one of its base classes, or rclpy, uses for something else."""

from __future__ import annotations

import ast
import inspect
import textwrap
from importlib import import_module
from typing import Any

import pytest

from helpers.ros_processes import ros_environment

NODES = ("embedder", "detector", "bridge", "event_recorder", "player", "support.listener", "support.managed_node")


def assigned(class_: type) -> set[str]:
    """The names of the attributes that the methods of a class, without those of its bases, assign to `self`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(class_)))
    targets: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets.append(node.target)
    parts = [part for target in targets for part in ast.walk(target)]
    return {
        part.attr
        for part in parts
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self"
    }


@pytest.mark.parametrize("module", NODES)
def test_no_node_overwrites_an_attribute_of_its_base_classes(module: str) -> None:
    ros_environment("sensebind_msgs")
    from rclpy.node import Node

    names: dict[str, Any] = vars(import_module(f"sensebind.nodes.{module}"))
    own = [found for found in names.values() if inspect.isclass(found) and issubclass(found, Node)]
    (node,) = [found for found in own if found.__module__ == f"sensebind.nodes.{module}"]
    bases = [base for base in node.__mro__[1:] if base.__module__.startswith(("rclpy", "sensebind"))]
    used = {name: base.__name__ for base in bases for name in assigned(base)}
    assert "_clients" in used  # of rclpy.node.Node
    assert {name: used[name] for name in assigned(node) & used.keys()} == {}
