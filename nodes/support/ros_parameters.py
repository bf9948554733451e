"""Parameters of `fusion.config` as ROS parameters: declared with description and range, and read back."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from sensebind.fusion.config.parameters import (
    NODE_PARAMETERS,
    ROS_NODE_PARAMETERS,
    ROS_NODE_PREFIXES,
    label_parameter,
    old_names,
    parameters_of_other_nodes,
    renamed,
    resolve_values,
    unknown_parameter,
)
from sensebind.fusion.core.errors import ConfigError, SensebindError, error_text
from sensebind.fusion.core.parameters import Effect, Parameter
from sensebind.nodes.support.rclpy_compat import LOGGER_SERVICE_ARGUMENTS

# For the constructor of a node: all parameters that a launch file sets can then be checked, also misspelt names.
NODE_ARGUMENTS: dict[str, Any] = {
    "allow_undeclared_parameters": True,
    "automatically_declare_parameters_from_overrides": True,
    **LOGGER_SERVICE_ARGUMENTS,
}


# Node → name and default of each parameter that it declared without a given value.
_DECLARED_DEFAULTS: WeakKeyDictionary[Node, dict[str, Any]] = WeakKeyDictionary()


class EmptyListParametersMixin:
    """Mixin for nodes: rclpy refuses `[]` in a parameter file, because a list without elements has no type."""

    def declare_parameters(self, namespace: str, parameters: Sequence[Any], ignore_override: bool = False) -> Any:
        """As in `rclpy.node.Node`, which sets `ignore_override` for values from files and the command line."""
        if ignore_override:  # a wrong type must be correctable: `Parameter.check` reports it
            parameters = [(name, value, ParameterDescriptor(dynamic_typing=True)) for name, value, *_ in parameters]
        return super().declare_parameters(namespace, parameters, ignore_override)  # type: ignore[misc]  # a method of Node


class GuardedParameterServicesMixin:
    """Mixin for nodes: rclpy's services that set parameters raise an error for a value of no type, and do not answer.
    Here the request is refused with the reason."""

    def create_service(self, srv_type: Any, srv_name: str, callback: Callable[..., Any], **options: Any) -> Any:
        """As in `rclpy.node.Node`, which creates these services with it."""

        def guarded(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:  # the request is of another program
                refused = SetParametersResult(successful=False, reason=error_text(error))
                if srv_type is SetParametersAtomically:
                    response.result = refused
                else:
                    response.results = [refused] * len(request.parameters)
                return response

        used = guarded if srv_type in (SetParameters, SetParametersAtomically) else callback
        return super().create_service(srv_type, srv_name, used, **options)  # type: ignore[misc]  # of Node


def declare(node: Node, executable: str, parameters: Iterable[Parameter] | None = None) -> dict[str, Any]:
    """Declare the parameters of `executable` on a node that was made with `NODE_ARGUMENTS`. Returns name → value.

    `parameters`: those to declare (None: all of the executable's). A parameter that still has the default with which it
    was declared earlier gets the default of now: that of a sensor is the value of its modality. Raises `ConfigError`
    for an unknown name, and for a value of a wrong type or out of range.
    """
    parameters = list(NODE_PARAMETERS[executable]() if parameters is None else parameters)
    if not isinstance(simulated := node.get_parameter("use_sim_time").value, bool):  # rclpy would use the system's time
        raise ConfigError(f"parameter 'use_sim_time' must be true or false, not {simulated!r}")
    earlier = _DECLARED_DEFAULTS.get(node, {})
    given = {
        name: value
        for name, value in _without_undeclared(node, parameter_values(node, unset=[]), parameters).items()
        if name not in earlier or value != earlier[name]
    }
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
        elif parameter.name in earlier and parameter.name not in given and earlier[parameter.name] != parameter.default:
            node.set_descriptor(parameter.name, descriptor_of(parameter))
            node.set_parameters([RosParameter(parameter.name, value=parameter.default)])
        node.set_descriptor(parameter.name, descriptor_of(parameter))
    _DECLARED_DEFAULTS[node] = {p.name: p.default for p in parameters if p.name not in given}
    return values


class ParameterGuard:
    """Checks every change of a node's parameters, from `ros2 param set` and the like, and refuses it with a reason.

    Refused are unknown names, wrong values, and values that would not take effect now (`Parameter.effect`). Make it
    when the parameters are declared, and set `paused` while they are declared again. All calls run in the thread of the
    node's executor.
    """

    def __init__(
        self,
        node: Node,
        executable: str,
        *,
        parameters: Callable[[Mapping[str, Any]], list[Parameter]],
        is_configured: Callable[[], bool],
        apply: Callable[[dict[str, Any]], None],
    ) -> None:
        """`parameters`: those of the node, given its values. `apply`: called with the values of all parameters after an
        accepted change of a configured node; it may refuse them with a `SensebindError`, and then changes nothing."""
        self.paused = False
        self._node, self._executable = node, executable
        self._parameters, self._is_configured, self._apply = parameters, is_configured, apply
        accept_old_names(node, executable, self._can_change)
        node.add_on_set_parameters_callback(self._on_change)

    def _can_change(self, parameter: Parameter) -> bool:
        """Whether a new value of this parameter would take effect."""
        if parameter.effect is Effect.START:
            return False
        return parameter.effect is not Effect.CONFIGURE or not self._is_configured()

    def _on_change(self, changes: list[RosParameter]) -> SetParametersResult:
        if self.paused:
            return SetParametersResult(successful=True)
        new = {change.name: _as_list(change.value) for change in changes}
        given = {name: value for name, value in (parameter_values(self._node) | new).items() if value is not None}
        try:
            known = {parameter.name: parameter for parameter in self._parameters(given)}
            for name, value in new.items():
                self._check(name, value, known)
            if self._is_configured():
                others = parameters_of_other_nodes(self._executable, given)
                self._apply(resolve_values(known.values(), given, others))
        except SensebindError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _check(self, name: str, value: Any, known: Mapping[str, Parameter]) -> None:
        """Raises `ConfigError` if this parameter cannot get this value now. None: the parameter is to be deleted."""
        if name == "use_sim_time" and not isinstance(value, bool):  # rclpy would log it each time
            raise ConfigError("parameter 'use_sim_time' must be true or false")
        if name in ROS_NODE_PARAMETERS:
            return
        if name.startswith(ROS_NODE_PREFIXES):  # rclpy refuses to change those that it has read
            if value is not None and not self._node.has_parameter(name):
                raise ConfigError(f"parameter '{name}' has no effect now: set it in a file, and start the node again")
            return
        declared = known.get(name) or (label_parameter(name) if self._executable == "detector" else None)
        if declared is None:
            if value is None and self._node.has_parameter(name):
                return  # a wrong name from a file or the command line
            old = old_names(known.values())
            raise ConfigError(renamed(name, old[name])) if name in old else unknown_parameter(name, known)
        if value is not None:
            value = resolve_values([declared], {name: value})[name]
        if self._node.has_parameter(name) and _as_list(self._node.get_parameter(name).value) == value:
            return  # as in `ros2 param load` of a dump
        if self._can_change(declared):
            return
        if declared.effect is Effect.START:
            raise ConfigError(
                f"parameter '{name}' is read-only while the process runs: it takes effect {Effect.START.value}. Set it "
                "in the parameter file or with -p, and start the node again"
            )
        node = self._node.get_fully_qualified_name()
        raise ConfigError(
            f"parameter '{name}' is read-only while the node is configured: it takes effect {Effect.CONFIGURE.value}. "
            f"Run `ros2 lifecycle set {node} deactivate` and `cleanup`, set it, then run `configure` and `activate`"
        )


def accept_old_names(node: Node, executable: str, can_change: Callable[[Parameter], bool]) -> None:
    """Accept the parameter names of the previous version while the node runs, with a warning.

    `executable` is a key of `NODE_PARAMETERS`. `can_change`: whether a parameter can be changed now; an old name of
    another one is left as it is, so that the refusal gives the new name. ROS 2 Humble cannot do this: there, the node
    refuses the old name.
    """
    if not hasattr(node, "add_pre_set_parameters_callback"):
        return
    renamed_parameters = {p.formerly: p for p in NODE_PARAMETERS[executable]() if p.formerly}
    warned: set[str] = set()  # old names

    def with_new_name(change: RosParameter) -> RosParameter:
        parameter = renamed_parameters.get(change.name)
        if parameter is None or not can_change(parameter):
            return change
        if change.name not in warned:  # once: a program may set it again and again
            warned.add(change.name)
            node.get_logger().warning(renamed(change.name, parameter.name))
        return RosParameter(parameter.name, change.type_, change.value)

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
        if name in names or label_parameter(name) or not node.describe_parameter(name).description
    }


def descriptor_of(parameter: Parameter) -> ParameterDescriptor:
    """The descriptor that `ros2 param describe` shows."""
    constraints = [parameter.allowed_values_text] if parameter.choices else []
    if parameter.effect not in (None, Effect.AT_ONCE):
        constraints.append(f"takes effect {parameter.effect.value}")
    descriptor = ParameterDescriptor(
        name=parameter.name,
        description=parameter.description + (f" [{parameter.unit}]" if parameter.unit else ""),
        additional_constraints="; ".join(constraints),
        dynamic_typing=True,  # a file may have 1 for 1.0; `Parameter.check` checks the type
    )
    if parameter.bounds is not None:
        low, high = parameter.bounds
        if isinstance(parameter.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
