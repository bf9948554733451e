"""The base class of the lifecycle nodes: the same parameters, transitions and automatic start for all of them."""

from __future__ import annotations

import gc
import traceback
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from lifecycle_msgs.msg import State
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.publisher import Publisher

from sensebind.fusion.config.parameters import NODE_PARAMETERS
from sensebind.fusion.core.errors import ConfigError, SensebindError, is_of_a_file
from sensebind.fusion.core.freed_memory import freeze_objects
from sensebind.fusion.core.parameters import Parameter
from sensebind.nodes.support.guards.transitions import GuardedTransitionsMixin
from sensebind.nodes.support.parameter_files import warn_of_unused_sections, with_source_file
from sensebind.nodes.support.ros_parameters import (
    NODE_ARGUMENTS,
    EmptyListParametersMixin,
    GuardedParameterServicesMixin,
    ParameterGuard,
    declare,
    parameter_values,
)
from sensebind.nodes.support.run import StopFlag, interruptible, spin, wait_for_acknowledgements


class ManagedNode(EmptyListParametersMixin, GuardedParameterServicesMixin, GuardedTransitionsMixin, LifecycleNode):
    """A lifecycle node. A subclass defines what happens in `configure`, `activate`, `deactivate` and `release`.

    The transitions are those of ROS, so `ros2 lifecycle` and Nav2's lifecycle manager can drive it; it has no bond. All
    methods run in the thread of the node's executor.
    """

    def __init__(self, executable: str) -> None:
        super().__init__(executable, **NODE_ARGUMENTS)
        self._executable = executable
        self._unacknowledged_publishers: list[Publisher] = []  # published shortly before the last deactivation
        self.configuration_error: Exception | None = None  # the reason why the last configuration failed
        self._is_starting = False  # whether `start` reports that reason
        warn_of_unused_sections(self)
        with suppress(ConfigError):  # the configuration reports it, and can be repeated after a correction
            declare(self, executable, self.known_parameters(parameter_values(self, unset=[])))
        self._parameter_guard = ParameterGuard(
            self,
            executable,
            parameters=self.known_parameters,
            is_configured=lambda: self._is_in(State.PRIMARY_STATE_INACTIVE, State.PRIMARY_STATE_ACTIVE),
            apply=self.apply_values,
        )

    # --- what a subclass defines

    @abstractmethod
    def configure(self, values: dict[str, Any]) -> None:
        """Prepare for `activate` with these values of all parameters.

        Raises a `SensebindError` or a `ModuleNotFoundError`; then `release` is called, and the node is unconfigured.
        """

    def activate(self) -> None:
        """Start the work of the node: subscribe, and start timers."""

    def deactivate(self) -> list[Publisher]:
        """End the work in order. Returns the publishers whose last messages may not have arrived yet."""
        return []

    def release(self) -> None:
        """Release what `configure` made. Called when the node is not active, also after a `configure` that failed."""

    def apply_values(self, values: dict[str, Any]) -> None:
        """Use new values of the parameters that take effect at once. `values` has all parameters. Raises a
        `SensebindError` to refuse them."""

    def known_parameters(self, values: Mapping[str, Any]) -> list[Parameter]:
        """The declarations of all parameters of the node, given the values that are set."""
        return NODE_PARAMETERS[self._executable]()

    # --- transitions

    @property
    def is_active(self) -> bool:
        """Whether the node is in the state active."""
        return self._is_in(State.PRIMARY_STATE_ACTIVE)

    def _is_in(self, *states: int) -> bool:
        return self._state_machine.current_state[0] in states

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.configuration_error = None
        self._parameter_guard.paused = True
        try:
            with interruptible():
                self.configure(declare(self, self._executable, self.known_parameters(parameter_values(self, unset=[]))))
        except (SensebindError, ModuleNotFoundError) as error:
            return self._not_configured(error)
        except Exception as error:
            if not is_of_a_file(error):
                return self._unexpected("configure")
            return self._not_configured(ConfigError(str(error)))
        finally:
            self._parameter_guard.paused = False
        freeze_objects()  # the model among them
        return TransitionCallbackReturn.SUCCESS

    def _not_configured(self, error: Exception) -> TransitionCallbackReturn:
        self.configuration_error = error
        self.release()
        if not self._is_starting:
            self.get_logger().error(f"not configured: {with_source_file(str(error))}")
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.activate()
        except Exception:
            return self._unexpected("activate")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._unacknowledged_publishers = self.deactivate()
        except Exception:
            return self._unexpected("deactivate")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            wait_for_acknowledgements(self._unacknowledged_publishers)
            self._unacknowledged_publishers = []
            gc.unfreeze()
            self.release()
        except Exception:
            return self._unexpected("cleanup")
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if state.state_id == State.PRIMARY_STATE_ACTIVE:
            self.on_deactivate(state)
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected error: the node is unconfigured, and can be configured again."""
        return self.on_shutdown(state)

    def _unexpected(self, transition: str) -> TransitionCallbackReturn:
        """rclpy drops the exception of a transition: log it."""
        self.get_logger().error(f"{transition} failed:\n{traceback.format_exc()}")
        return TransitionCallbackReturn.ERROR

    # --- the process

    def start(self, *, fail: bool) -> None:
        """Configure and activate the node, unless `autostart` is false.

        `fail`: raise the error of the configuration; else it is logged, and the node waits for a correction.
        """
        autostart = self.get_parameter_or("autostart", RosParameter("autostart", value=True)).value
        if not autostart:
            return
        self._is_starting = fail
        try:
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()
            elif fail and self.configuration_error is not None:
                raise self.configuration_error
        finally:
            self._is_starting = False

    def finish(self) -> Iterable[Publisher]:
        """End the work, if the node is active, when the process ends. Returns the publishers as `deactivate` does."""
        return self.deactivate() if self.is_active else self._unacknowledged_publishers


def serve(node: ManagedNode, stop: StopFlag) -> None:
    """Start the node and serve it until `stop` is set. Raises the error of its configuration."""
    spin(node, stop, lambda: node.start(fail=True))
