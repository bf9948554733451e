"""Parameters of `fusion.config` as ROS parameters: declared with description and range, and read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from sensebind.fusion.config.parameters import NODES, OF_ROS, PROMPTS, names_of_others, prompt_parameter, resolve
from sensebind.fusion.core.parameters import Parameter
from sensebind.nodes.support.distributions import LOGGER_SERVICE

# For the constructor of a node: what a launch file sets is then there to be checked, misspelt names included.
OPTIONS: dict[str, Any] = {
    "allow_undeclared_parameters": True,
    "automatically_declare_parameters_from_overrides": True,
    **LOGGER_SERVICE,
}


def declare(
    node: Node, executable: str, parameters: Iterable[Parameter] | None = None, *, read_only: bool = False
) -> dict[str, Any]:
    """Declare the parameters of `executable` on a node that was made with `OPTIONS`; their values by name.

    `parameters`: what to declare (None: all of the executable's). `read_only`: later changes are refused. Raises
    `ConfigError` for a name that is not known, or a value of a wrong type or out of range.
    """
    parameters = list(NODES[executable]() if parameters is None else parameters)
    values = _resolved(executable, parameters, given_to(node))
    prompts = [prompt_parameter(name) for name in values if executable == "detector" and name.startswith(PROMPTS)]
    for parameter in [*parameters, *prompts]:
        descriptor = describe(parameter)
        descriptor.read_only = read_only
        if node.has_parameter(parameter.name):
            node.set_descriptor(parameter.name, descriptor)
        else:
            node.declare_parameter(parameter.name, parameter.default, descriptor)
    return values


def changed(node: Node, executable: str, changes: Iterable[RosParameter]) -> dict[str, Any]:
    """The values of the parameters of `executable` as they would be after `changes`. Raises `ConfigError`."""
    given = given_to(node) | {change.name: change.value for change in changes}
    given = {name: value for name, value in given.items() if value is not None}  # what is unset has its default
    return _resolved(executable, NODES[executable](), given)


def given_to(node: Node) -> dict[str, Any]:
    """The values of all parameters that are set on the node, by name."""
    return {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}


def _resolved(executable: str, parameters: Iterable[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in given.items() if name not in OF_ROS}
    return resolve(parameters, given, names_of_others(executable))


def describe(parameter: Parameter) -> ParameterDescriptor:
    """As `ros2 param describe` shows it."""
    descriptor = ParameterDescriptor(
        name=parameter.name,
        description=parameter.description + (f" [{parameter.unit}]" if parameter.unit else ""),
        additional_constraints=parameter.allowed if parameter.choices else "",
        dynamic_typing=True,  # a file may say 1 for 1.0; `Parameter.check` has the last word
    )
    if parameter.bounds is not None:
        low, high = parameter.bounds
        if isinstance(parameter.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
