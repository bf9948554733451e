"""The services of a running node: its parameters and its lifecycle, as `ros2 param` and `ros2 lifecycle` use them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from helpers.ros_processes import Peer

# The transitions and states of lifecycle_msgs that Nav2's lifecycle manager uses: (id of the transition, the state that
# it expects from get_state afterwards).
TRANSITIONS: Mapping[str, tuple[int, str]] = {
    "configure": (1, "inactive"),
    "cleanup": (2, "unconfigured"),
    "activate": (3, "active"),
    "deactivate": (4, "inactive"),
    "unconfigured_shutdown": (5, "finalized"),
}
# Commands of nav2_msgs/srv/ManageLifecycleNodes and the transitions that Nav2's lifecycle manager makes for them. Each
# is made for all nodes before the next one; configure and activate in the order of `node_names`, others in reverse.
MANAGER_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "STARTUP": ("configure", "activate"),
    "PAUSE": ("deactivate",),
    "RESUME": ("activate",),
    "RESET": ("deactivate", "cleanup"),
    "SHUTDOWN": ("deactivate", "cleanup", "unconfigured_shutdown"),
    "CONFIGURE": ("configure",),
    "CLEANUP": ("cleanup",),
}
SERVICE_TIMEOUT = 5.0  # s: `service_timeout` of Nav2's lifecycle manager, in which get_state must answer


class NodeServices:
    """Calls the services of one node, for example ``/robot1/detector``. Each call waits for its answer."""

    def __init__(self, me: Peer, node: str) -> None:
        self._me, self._node = me, node
        self._clients: dict[str, Any] = {}

    def call(self, type_: Any, service: str, request: Any) -> Any:
        if service not in self._clients:
            self._clients[service] = self._me.node.create_client(type_, f"{self._node}/{service}")
        client = self._clients[service]
        self._me.wait_until(client.service_is_ready, 60, f"{self._node}/{service}")
        for seconds in (2, 4, 8, 16, 32):  # a service that was just discovered may lose its first response
            answer = client.call_async(request)
            if self._me.spin_until(answer.done, seconds):
                return answer.result()
        raise AssertionError(f"{self._node}/{service} does not answer")

    def set(self, name: str, value: Any) -> str:
        """Set a parameter; None deletes it. Returns the reason of a refusal; empty if it was accepted."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        (result,) = self.call(SetParameters, "set_parameters", request).results
        assert result.successful == (not result.reason), result
        return str(result.reason)

    def get(self, *names: str) -> list[Any]:
        """Values of parameters; None for one that is not declared."""
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        values = self.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
        found = [parameter_value_to_python(value) for value in values]
        return [list(value) if hasattr(value, "typecode") else value for value in found]

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState

        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def change_state(self, transition: str) -> bool:
        """Run a transition as Nav2's lifecycle manager does; returns whether it did what the manager expects."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number, expected = TRANSITIONS[transition]
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(ChangeState, "change_state", request).success) and self.state() == expected


class Manager:
    """Makes the calls of Nav2's lifecycle manager with `bond_timeout: 0.0`, read from nav2_lifecycle_manager 1.5.

    `change_state` may take any time. Then `get_state` must answer within `SERVICE_TIMEOUT`, with the state that belongs
    to the transition. At the first node for which one of them fails, the command ends; but SHUTDOWN goes on.
    """

    def __init__(self, nodes: Mapping[str, NodeServices], node_names: Sequence[str], patience: float = 1.0) -> None:
        """`patience`: factor of `SERVICE_TIMEOUT` on a busy machine."""
        self._nodes, self._names, self._timeout = nodes, list(node_names), SERVICE_TIMEOUT * patience

    def manage(self, command: str) -> str:
        """Carry out a command. Returns the name of the node at which it failed; empty if it succeeded."""
        for transition in MANAGER_COMMANDS[command]:
            names = self._names if transition in ("configure", "activate") else self._names[::-1]
            for name in names:
                if not self._change(self._nodes[name], transition):
                    if command != "SHUTDOWN":
                        return name
                    break
        return ""

    def _change(self, node: NodeServices, transition: str) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number, expected = TRANSITIONS[transition]
        request = ChangeState.Request(transition=Transition(id=number))
        if not node.call(ChangeState, "change_state", request).success:
            return False
        asked = time.monotonic()
        return node.state() == expected and time.monotonic() - asked < self._timeout
