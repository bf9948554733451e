"""Guards the lifecycle of a node: a request for a transition that its state does not have is refused."""

from __future__ import annotations

import time
from typing import Any

from sensebind.fusion.core.errors import printable
from sensebind.fusion.io.received.refusals import Refusals

MAX_SHOWN_LENGTH = 60  # characters of a transition in the log


class GuardedTransitionsMixin:
    """Of a lifecycle node. A request for a transition that its state does not have is answered with `success: false`,
    and logged, at most once a minute.

    rclpy logs the text of each such request as it is, with newlines and of any length. In Jazzy and Humble it also
    raises an exception in the executor, and Nav2's lifecycle manager, which waits for the answer without a limit, would
    wait for ever.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._transition_refusals = Refusals()
        super().__init__(*arguments, **options)

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802, rclpy's name
        node: Any = self
        wanted = request.transition.label or request.transition.id  # the label counts, as in rclpy
        if any(wanted in (number, label) for number, label, *_ in node._state_machine.available_transitions):
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        state = node._state_machine.current_state[1]
        text = f"a lifecycle transition was refused: the state {state} has no transition "
        if line := self._transition_refusals.add(state, text + printable(wanted, MAX_SHOWN_LENGTH), time.monotonic()):
            node.get_logger().error(line)
        response.success = False
        return response
