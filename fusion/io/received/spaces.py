"""Checks of sensebind_msgs/EmbeddingSpace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.io.messages import encoders_from_message
from sensebind.fusion.io.received.newest import put_newest
from sensebind.fusion.io.received.values import (
    MAX_DIMENSION,
    RefusedMessage,
    checked_count,
    checked_name,
    checked_number,
    checked_text,
)
from sensebind.fusion.io.topic_names import MAX_SENSORS

MAX_MODALITIES = 64
MAX_LICENCE_LENGTH = 10_000  # characters
MAX_PERIOD = 3600.0  # s, of windows and hops
MAX_KNOWN = 8  # spaces that were received, and as many whose vectors have arrived
# s in which no vector of the newest space arrives, but those of another one do: then that one counts again. The same in
# its longest hops, at most the last number of s.
SPACE_TIMEOUT, TIMEOUT_HOPS, MAX_SPACE_TIMEOUT = 1.5, 2.5, 5.0


@dataclass(frozen=True, slots=True)
class ReceivedSpace:
    """What the nodes need of an EmbeddingSpace. `sensors`: sensor → its modality, of those whose embeddings are
    published. `longest_hop` in s; 0 without sensors."""

    id: str
    dimension: int
    modalities: tuple[str, ...]
    encoders: Mapping[str, str]  # modality → id of its encoder
    sensors: Mapping[str, str]
    longest_hop: float

    def is_same(self, other: ReceivedSpace | None) -> bool:
        """Whether vectors of both can be compared."""
        return other is not None and (self.id, self.dimension) == (other.id, other.dimension)

    @property
    def topics(self) -> set[str]:
        """The names of the topics of embeddings: the sensors; in a message without sensors, the modalities."""
        return {*self.sensors, FUSED} if self.sensors else {*self.modalities, FUSED} - {TEXT}


def received_space(message: Any) -> ReceivedSpace:
    """The space in a sensebind_msgs/EmbeddingSpace of this version or an older one. Raises `RefusedMessage`."""
    space_id = checked_text(message.id, "id")
    dimension = int(checked_number(message.dimension, "dimension", 1, MAX_DIMENSION))
    modalities = tuple(
        checked_name(name, "a modality") for name in checked_count(message.modalities, "modalities", MAX_MODALITIES)
    )
    if not modalities or len(set(modalities)) != len(modalities) or FUSED in modalities:
        raise RefusedMessage("name", f"modalities '{', '.join(modalities)}' are not one or more different names")
    checked_count(message.licence, "licence", MAX_LICENCE_LENGTH)
    for field in ("encoders", "logit_scales", "logit_biases"):
        values = getattr(message, field, ())
        if len(values) not in (0, len(modalities)):
            raise RefusedMessage("size", f"{field} has {len(values)} items, and there are {len(modalities)} modalities")
        for value in values:
            _ = checked_text(value, field, empty=True) if field == "encoders" else checked_number(value, field)
    sensors, hops = {}, [0.0]
    for sensor in checked_count(message.sensors, "sensors", MAX_SENSORS):
        name = checked_name(sensor.name, "a sensor")
        modality = checked_name(sensor.modality, f"the modality of {name}")
        checked_text(sensor.topic, "the topic of a sensor", empty=True)
        checked_number(sensor.window_length, f"the window of {name}", 0, MAX_PERIOD)
        hops.append(checked_number(sensor.hop, f"the hop of {name}", 0, MAX_PERIOD))
        if name in (FUSED, TEXT) or name in sensors:
            raise RefusedMessage("name", f"two sensors have the name '{name}', or it is reserved")
        sensors[name] = modality
    published = {name: modality for name, modality in sensors.items() if modality in modalities}
    return ReceivedSpace(space_id, dimension, modalities, encoders_from_message(message), published, max(hops))


class KnownSpaces:
    """The spaces that were received, and which of them the vectors that arrive are of.

    An embedder publishes its space once. If another one was started in the same namespace by mistake, its space is the
    newest, also after it has ended. So a space counts again if only its vectors arrive. It reads no clock.
    """

    def __init__(self) -> None:
        self._received: dict[str, ReceivedSpace] = {}  # by id, the newest last
        self._used: dict[str, ReceivedSpace] = {}  # those whose vectors have arrived, the newest last
        self._others_since: float | None = None  # steady time in s since when only vectors of other spaces arrive

    def add(self, space: ReceivedSpace) -> None:
        """Remember a space that was received. Raises `RefusedMessage` if its dimension cannot be right."""
        used = self._used.get(space.id)
        if used is not None and used.dimension != space.dimension:
            raise RefusedMessage(
                "dimension", f"space {space.id} has {space.dimension} dimensions, and its vectors have {used.dimension}"
            )
        self._others_since = None
        put_newest(self._used if used is not None else self._received, space.id, space, MAX_KNOWN)

    def get(self, space_id: str) -> ReceivedSpace | None:
        """The space of this id, if it was received."""
        return self._used.get(space_id) or self._received.get(space_id)

    def of_vector(self, space_id: str, dimension: int) -> ReceivedSpace | None:
        """A vector of a space has arrived. Returns the space, if it was received; it is remembered from now on."""
        found = self.get(space_id)
        if found is None or found.dimension != dimension:
            return None
        self._received.pop(space_id, None)
        put_newest(self._used, found.id, found, MAX_KNOWN)
        return found

    def replacement(self, space_id: str, dimension: int, current: str, now: float) -> ReceivedSpace | None:
        """A vector of a space has arrived. Returns the space to use in place of `current`; None: that stays. `now`:
        steady time in s."""
        found = self.of_vector(space_id, dimension)
        if space_id == current:
            self._others_since = None
        elif found is not None:
            self._others_since = now if self._others_since is None else self._others_since
            if now - self._others_since >= min(max(SPACE_TIMEOUT, TIMEOUT_HOPS * found.longest_hop), MAX_SPACE_TIMEOUT):
                self._others_since = None
                return found
        return None
