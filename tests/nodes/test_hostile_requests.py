"""Requests of any content to the services of every node are answered, and neither they nor `/clock` end a node."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from helpers.poison_messages import FORGED, MEGABYTE
from helpers.ros_processes import Executable, Peer, peer, ros_environment, running
from helpers.ros_services import NodeServices

MANAGED = ("embedder", "detector", "bridge", "event_recorder")
# Seconds and nanoseconds of /clock: negative, the last ones, too many nanoseconds, zero, and jumps.
TIMES = ((-1, 0), (-(2**31), 0), (2**31 - 1, 2**32 - 1), (0, 0), (5, 0), (0, 10**9))


def parameter_requests() -> Iterator[tuple[str, Any, Any]]:
    """(service, its type, a request) of the services that set and get parameters."""
    from rcl_interfaces.msg import LoggerLevel, Parameter, ParameterValue
    from rcl_interfaces.srv import (
        DescribeParameters,
        GetLoggerLevels,
        GetParameters,
        GetParameterTypes,
        ListParameters,
        SetLoggerLevels,
        SetParameters,
        SetParametersAtomically,
    )
    from rclpy.parameter import Parameter as RosParameter

    names = ("", ".", FORGED, MEGABYTE, "no.such.parameter", "qos_overrides./clock.subscription.depth")
    values = (math.nan, 2**63 - 1, -(2**63), MEGABYTE, [math.inf] * 1000, [FORGED] * 1000, True)
    hostile = [RosParameter(name, value=value).to_parameter_msg() for name in names for value in values]
    hostile += [RosParameter("autostart", value=value).to_parameter_msg() for value in values[:-1]]
    hostile += [RosParameter("use_sim_time", value=value).to_parameter_msg() for value in values[:-1]]
    hostile.append(Parameter(name="autostart", value=ParameterValue(type=99)))
    for parameter in hostile:
        yield "set_parameters", SetParameters, SetParameters.Request(parameters=[parameter])
        request = SetParametersAtomically.Request(parameters=[parameter, parameter])
        yield "set_parameters_atomically", SetParametersAtomically, request
    yield "set_parameters", SetParameters, SetParameters.Request(parameters=hostile[-1:] * 1000)
    for name in names:
        yield "get_parameters", GetParameters, GetParameters.Request(names=[name] * 100)
        yield "describe_parameters", DescribeParameters, DescribeParameters.Request(names=[name])
        yield "get_parameter_types", GetParameterTypes, GetParameterTypes.Request(names=[name] * 100)
        yield "list_parameters", ListParameters, ListParameters.Request(prefixes=[name], depth=2**64 - 1)
        yield "get_logger_levels", GetLoggerLevels, GetLoggerLevels.Request(names=[name])
        for level in (1, 255, 2**32 - 1):
            levels = [LoggerLevel(name=name, level=level)]
            yield "set_logger_levels", SetLoggerLevels, SetLoggerLevels.Request(levels=levels)


def transition_requests() -> Iterator[tuple[str, Any, Any]]:
    """Transitions that an active node does not have."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions

    for number in (0, 1, 2, 3, 5, 6, 8, 10, 30, 50, 60, 90, 255):
        yield "change_state", ChangeState, ChangeState.Request(transition=Transition(id=number))
    for label in (FORGED, MEGABYTE, "transition_success", "cleanup", "on_activate_success"):
        yield "change_state", ChangeState, ChangeState.Request(transition=Transition(id=4, label=label))
    yield "get_available_transitions", GetAvailableTransitions, GetAvailableTransitions.Request()


def bombard(me: Peer, nodes: dict[str, Executable], count: int) -> None:
    """Send `count` requests to each node, one at a time, and as many messages on /clock. Each request is answered, and
    the nodes are as before."""
    began = time.monotonic()
    from builtin_interfaces.msg import Time
    from rosgraph_msgs.msg import Clock

    clock = me.publisher("rosgraph_msgs/msg/Clock", "/clock")
    me.wait_for_subscribers(clock, len(nodes))
    requests = {name: [*parameter_requests(), *(transition_requests() if name in MANAGED else ())] for name in nodes}
    clients = {
        (name, service): me.node.create_client(type_, f"{name}/{service}")
        for name, own in requests.items()
        for service, type_ in {service: type_ for service, type_, _ in own}.items()
    }
    for (name, service), client in clients.items():
        me.wait_until(client.service_is_ready, 60, f"{name}/{service}")
    me.spin(1.0)  # a service that was just discovered may lose its first response
    for number in range(count):
        seconds, nanoseconds = TIMES[number % len(TIMES)]
        clock.publish(Clock(clock=Time(sec=seconds, nanosec=nanoseconds)))
        calls = {}
        for name, process in nodes.items():
            assert process.is_running, process.output
            service, _, request = requests[name][number % len(requests[name])]
            calls[f"{name}/{service}"] = clients[name, service].call_async(request)
        for what, call in calls.items():
            me.wait_until(call.done, 20, f"the answer of {what} to request {number}")
            if what.endswith("/change_state"):
                assert not call.result().success, (what, number)
    minutes = (time.monotonic() - began) // 60 + 1
    for name, process in nodes.items():
        services = NodeServices(me, f"/{name}")
        assert services.get("use_sim_time") == [True]
        assert name not in MANAGED or services.state() == "active"
        assert process.is_running and "Traceback" not in process.output, process.output
        assert not any(line.startswith(FORGED.splitlines()[1]) for line in process.lines)
        lines = [line[:200] for line in process.lines if "[WARN]" in line or "[ERROR]" in line]
        for kind in ("a message or a request was refused", "a lifecycle transition was refused"):
            found = [line for line in lines if kind in line]
            assert len(found) <= minutes and (found or name not in MANAGED), lines
        assert max(map(len, process.lines)) < 2500


def test_hostile_requests_are_answered_and_leave_an_active_node_active() -> None:
    environment = ros_environment("sensebind_msgs")
    values = {"use_sim_time": True}
    with running("event_recorder", environment=environment, values=values) as process, peer(environment) as me:
        bombard(me, {"event_recorder": process}, 200)
