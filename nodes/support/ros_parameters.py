"""Parameters of `fusion.config` as ROS parameters: declared with description and range, and read back."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from sensebind.fusion.config.parameters import (
    NODE_PARAMETERS,
    label_parameter,
    old_names,
    parameters_of_other_nodes,
    renamed,
    resolve_values,
)
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import Parameter
from sensebind.nodes.support.rclpy_compat import LOGGER_SERVICE_ARGUMENTS

# For the constructor of a node: all parameters that a launch file sets can then be checked, also misspelt names.
NODE_ARGUMENTS: dict[str, Any] = {
    "allow_undeclared_parameters": True,
    "automatically_declare_parameters_from_overrides": True,
    **LOGGER_SERVICE_ARGUMENTS,
}


class EmptyListParametersMixin:
    """Mixin for nodes: rclpy refuses `[]` in a parameter file, because a list without elements has no type."""

    def declare_parameters(self, namespace: str, parameters: Sequence[Any], ignore_override: bool = False) -> Any:
        """As in `rclpy.node.Node`, which sets `ignore_override` for values from files and the command line."""
        if ignore_override:
            parameters = [
                (name, value, ParameterDescriptor(dynamic_typing=value is None)) for name, value, *_ in parameters
            ]
        return super().declare_parameters(namespace, parameters, ignore_override)  # type: ignore[misc]  # a method of Node


def declare(
    node: Node, executable: str, parameters: Iterable[Parameter] | None = None, *, read_only: bool = False
) -> dict[str, Any]:
    """Declare the parameters of `executable` on a node that was made with `NODE_ARGUMENTS`. Returns name → value.

    `parameters`: those to declare (None: all of the executable's). `read_only`: later changes are refused. Raises
    `ConfigError` for an unknown name, and for a value of a wrong type or out of range.
    """
    parameters = list(NODE_PARAMETERS[executable]() if parameters is None else parameters)
    given = _without_undeclared(node, parameter_values(node, unset=[]), parameters)
    values = resolve_values(parameters, given, parameters_of_other_nodes(executable, given), node.get_logger().warning)
    labels = [label_parameter(name) for name in values if executable == "detector"]
    for parameter in [*parameters, *(found for found in labels if found is not None)]:
        if parameter.formerly and node.has_parameter(parameter.formerly):
            node.undeclare_parameter(parameter.formerly)
        if not node.has_parameter(parameter.name):
            node.declare_parameter(
                parameter.name, values.get(parameter.name, parameter.default), descriptor_of(parameter)
            )
        elif node.get_parameter(parameter.name).value is None:
            node.set_descriptor(parameter.name, descriptor_of(parameter))
            node.set_parameters([RosParameter(parameter.name, RosParameter.Type.STRING_ARRAY, [])])
        descriptor = descriptor_of(parameter)
        descriptor.read_only = read_only
        node.set_descriptor(parameter.name, descriptor)
    if read_only:
        node.add_on_set_parameters_callback(lambda changes: _refuse_unknown(node, changes, old_names(parameters)))
    return values


def values_after(node: Node, executable: str, changes: Iterable[RosParameter]) -> dict[str, Any]:
    """The values that the parameters of `executable` would have after `changes`. Raises `ConfigError`."""
    parameters = NODE_PARAMETERS[executable]()
    old = old_names(parameters)
    changes = {change.name: _as_list(change.value) for change in changes}
    if found := next((name for name in changes if name in old), None):
        raise ConfigError(renamed(found, old[found]))
    given = {name: value for name, value in (parameter_values(node) | changes).items() if value is not None}
    return resolve_values(parameters, given, parameters_of_other_nodes(executable, given))


def accept_old_names(node: Node, executable: str) -> None:
    """Accept the parameter names of the previous version while the node runs, with a warning.

    `executable` is a key of `NODE_PARAMETERS`. ROS 2 Humble cannot do this: there, the node refuses the old name.
    """
    if not hasattr(node, "add_pre_set_parameters_callback"):
        return
    old = old_names(NODE_PARAMETERS[executable]())

    def with_new_name(change: RosParameter) -> RosParameter:
        if change.name not in old:
            return change
        node.get_logger().warning(renamed(change.name, old[change.name]))
        return RosParameter(old[change.name], change.type_, change.value)

    node.add_pre_set_parameters_callback(lambda changes: [with_new_name(change) for change in changes])


def parameter_values(node: Node, unset: Any = None) -> dict[str, Any]:
    """The values of all parameters that are set on the node, by name.

    `unset`: the value for a parameter without one: it is `[]` in a file, before `declare`, or was deleted later.
    """
    found = {name: _as_list(parameter.value) for name, parameter in node.get_parameters_by_prefix("").items()}
    return {name: unset if value is None else value for name, value in found.items()}


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, array) else value  # an empty list may arrive as an array of numbers


def _without_undeclared(node: Node, set_values: Mapping[str, Any], parameters: Iterable[Parameter]) -> dict[str, Any]:
    """`set_values` without parameters that only an earlier configuration declared: those of a removed modality."""
    names = {parameter.name for parameter in parameters}
    return {
        name: value
        for name, value in set_values.items()
        if name in names or not node.describe_parameter(name).description
    }


def _refuse_unknown(node: Node, changes: Iterable[RosParameter], old: Mapping[str, str]) -> SetParametersResult:
    for name in (change.name for change in changes):
        if not node.has_parameter(name):
            reason = renamed(name, old[name]) if name in old else f"there is no parameter '{name}'"
            return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def descriptor_of(parameter: Parameter) -> ParameterDescriptor:
    """The descriptor that `ros2 param describe` shows."""
    descriptor = ParameterDescriptor(
        name=parameter.name,
        description=parameter.description + (f" [{parameter.unit}]" if parameter.unit else ""),
        additional_constraints=parameter.allowed_values_text if parameter.choices else "",
        dynamic_typing=True,  # a file may have 1 for 1.0; `Parameter.check` checks the type
    )
    if parameter.bounds is not None:
        low, high = parameter.bounds
        if isinstance(parameter.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
