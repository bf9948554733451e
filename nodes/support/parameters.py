"""Parameters of `fusion.config` as ROS parameters: declared with description and range, and read back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from sensebind.fusion.config.parameters import Parameter, resolve
from sensebind.nodes.support.distributions import LOGGER_SERVICE

# For the constructor of a node: what a launch file sets is then there to be checked, misspelt names included.
OPTIONS: dict[str, Any] = {
    "allow_undeclared_parameters": True,
    "automatically_declare_parameters_from_overrides": True,
    **LOGGER_SERVICE,
}


def declare(
    node: Node, parameters: Iterable[Parameter], *, free: Sequence[str] = (), others: Iterable[str] = ()
) -> dict[str, Any]:
    """Declare `parameters` on a node that was made with `OPTIONS`; their values by name.

    `free` and `others` are those of `fusion.config.resolve`. Raises `ConfigError` for a name that is not
    known, or a value of a wrong type or out of range.
    """
    parameters = list(parameters)
    given = {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
    for name in ("use_sim_time", "start_type_description_service"):
        given.pop(name, None)
    values = resolve(parameters, given, free=free, others=others)
    for parameter in parameters:
        descriptor = describe(parameter)
        if node.has_parameter(parameter.name):
            node.set_descriptor(parameter.name, descriptor)
        else:
            node.declare_parameter(parameter.name, parameter.default, descriptor)
    return values


def describe(parameter: Parameter) -> ParameterDescriptor:
    """As `ros2 param describe` shows it."""
    descriptor = ParameterDescriptor(
        name=parameter.name,
        description=parameter.description,
        additional_constraints=f"one of {', '.join(parameter.choices)}" if parameter.choices else "",
        dynamic_typing=True,  # a file may say 1 for 1.0; `Parameter.check` has the last word
    )
    low, high = parameter.minimum, parameter.maximum
    if low is not None and high is not None:
        if isinstance(parameter.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
