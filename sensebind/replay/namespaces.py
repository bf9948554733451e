"""One robot in a recording of several: its topics, by its namespace."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sensebind.fusion.config.parameters import OWN_PARAMETERS, robots_of, sensor_options, sensors_of
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.io.recordings import Recording, Topic
from sensebind.fusion.io.topic_names import bare_name

LOG = logging.getLogger(__name__)


class RobotRecording:
    """The topics of a recording that are in a namespace, such as ``/robot1``; all, if none is.

    It is a source for `TopicSelection`. `namespace` is empty if all topics are listed.
    """

    def __init__(self, recording: Recording, namespace: str = "") -> None:
        self._recording = recording
        prefix = f"/{namespace.strip('/')}/"
        own = [topic for topic in recording.topics if topic.name.startswith(prefix)]
        self.topics: list[Topic] = own or recording.topics
        self.namespace = prefix.rstrip("/") if own else ""
        if namespace.strip("/") and not own:
            LOG.warning("the recording has no topic in the namespace '%s': all topics are used", prefix.rstrip("/"))

    def first_messages(self, topic: str, count: int) -> list[Any]:
        """See `Recording`."""
        return self._recording.first_messages(topic, count)

    def time_span(self, topic: str) -> tuple[int, int]:
        """See `Recording`."""
        return self._recording.time_span(topic)

    def topic_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The embedder's values in which relative topics are those of the namespace, where the recording has them.

        Raises `ConfigError` if the recording has topics of several `robots`, and the namespace of none is given.
        """
        names = {topic.name for topic in self.topics}
        found: dict[str, Any] = {}
        if not self.namespace:
            robots = [r for r in robots_of(values) if any(name.startswith(f"/{r}/") for name in names)]
            if robots:
                raise ConfigError(
                    f"the recording has topics of {' and '.join(robots)}, which the parameter 'robots' names: choose "
                    f"one with --namespace {robots[0]}"
                )
            return found
        for sensor, modality in sensors_of(values).items():
            options = sensor_options(values, modality, sensor)
            given = {name: str(values.get(f"{sensor}.{name}") or "") for name in OWN_PARAMETERS}
            if options.has_explicit_topic:
                given["topic"] = options.topic_name
            for name, topic in given.items():
                full = f"{self.namespace}/{bare_name(topic)}"
                if topic and not topic.startswith("/") and any(n == full or n.startswith(f"{full}/") for n in names):
                    found[f"{sensor}.{name}"] = full
        return found
