"""The accounting identity of the nodes that receive messages of other nodes: what became of those of each topic.

messages published = arrived + lost          messages arrived = used + refused by cause + dropped by cause + waiting
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sensebind.fusion.stream.accounting.identity import Account

# Names of counts of a topic: these, and `used.WHAT`, `refused.CAUSE`, `dropped.CAUSE`, which are the ends of a message.
NOT_ENDS = ("arrived", "lost", "earlier", "waiting")
USED, REFUSED, DROPPED = "used.", "refused.", "dropped."
MAX_TOPICS = 300  # of one node, more than a robot may have sensors; others may publish spaces with ever new sensors
OTHER_TOPICS = "other topics"  # the name under which further topics are counted together


class TopicCounts:
    """The counts of the topics of a node, by name. Use it in one thread."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def of(self, topic: str) -> Counter[str]:
        """The counts of a topic, which the caller changes."""
        return self._counts.setdefault(self._name(topic), Counter())

    def total(self, name: str) -> int:
        """The sum of a count over all topics."""
        return sum(counts[name] for counts in self._counts.values())

    def values(self, waiting: Mapping[str, int]) -> dict[str, int]:
        """The counts for the diagnostics: ``embeddings/front: refused.not_finite``. `waiting`: topic → how many of its
        messages are neither used nor dropped yet."""
        waits: Counter[str] = Counter()
        for topic, count in waiting.items():
            waits[self._name(topic)] += count
        return {
            f"{topic}: {name}": count
            for topic, counts in sorted(self._counts.items())
            for name, count in {**dict.fromkeys(NOT_ENDS, 0), **counts, "waiting": waits[topic]}.items()
        }

    def _name(self, topic: str) -> str:
        return topic if topic in self._counts or len(self._counts) < MAX_TOPICS else OTHER_TOPICS


def topic_accounts(counts: Mapping[str, int]) -> list[Account]:
    """The lines of the identity from the counts of a topic. What was lost is an estimate, so the first always holds."""

    def of(prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}

    arrived, lost = counts.get("arrived", 0), {name: counts.get(name, 0) for name in ("lost", "earlier")}
    refused = {name: count for name, count in counts.items() if name.startswith(REFUSED)}
    return [
        Account("published", arrived + sum(lost.values()), {"arrived": arrived}, lost),
        Account("messages", arrived, of(USED), {**refused, **of(DROPPED)}, counts.get("waiting", 0)),
    ]
