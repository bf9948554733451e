"""Each message that a node receives has one end at any moment: what it contains and what fails change only which."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.ros_processes import run_ros_program
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.stream.accounting.topics import MAX_TOPICS, OTHER_TOPICS, TopicCounts, topic_accounts
from sensebind.nodes.tick_assembler import MAX_HELD_TICKS, TickAssembler
from sensebind.nodes.watchdog import Backlog

START, HOP = 1_700_000_000 * SECOND, SECOND // 2
SENSORS = ("vision", "audio", FUSED)
VECTOR = np.ones(4, np.float32) / 2


def embedding(source: str, number: int) -> Embedding:
    tick, sensor = START + number * HOP, "" if source == FUSED else source
    sources = ("audio", "vision") if source == FUSED else ()
    return Embedding(source, tick - SECOND, tick, "toy@0", 1.0, VECTOR, sensor=sensor, sources=sources)


ARRIVALS = st.tuples(st.sampled_from(SENSORS), st.integers(0, 12), st.sampled_from([0.05] * 9 + [1.5]))  # s until it
ACTIONS = st.sampled_from(["release", "release", "flush", "restart", "reactivate"])


@given(st.lists(st.one_of(ARRIVALS, ARRIVALS, ARRIVALS, ACTIONS), max_size=80))
def test_each_embedding_is_in_one_tick_or_dropped_by_one_cause_or_waits(script: list[tuple | str]) -> None:  # type: ignore[type-arg]
    arrived, ends = Counter[str](), Counter[tuple[str, str]]()

    def count_end(item: Embedding, end: str) -> None:
        ends[item.source, end] += 1

    backlog, assembler, now = Backlog(count_end), TickAssembler(3 * HOP, count_end), 0.0

    def count_ticks(ticks: list[tuple[int, dict[str, Embedding]]]) -> None:
        assert all(present and FUSED not in present for _, present in ticks)
        ends.update((source, "used.in_tick") for _, present in ticks for source in present)

    for number, entry in enumerate(script):
        released: list[Embedding] = []
        if isinstance(entry, tuple):
            source, tick, pause = entry
            now += pause
            item = embedding(source, tick)
            arrived[source] += 1
            released = [] if backlog.hold(now, item, number) else [item]
        elif entry == "release":
            now += 0.3
            released = backlog.release(now)
        elif entry == "flush":
            count_ticks(assembler.flush())
        else:
            released = backlog.flush() if entry == "reactivate" else []
            backlog.restart() if entry == "reactivate" else assembler.restart()
        for item in released:
            count_ticks(assembler.add(item))
        waiting = backlog.waiting + assembler.waiting
        for source in SENSORS:
            own = sum(count for (name, _), count in ends.items() if name == source)
            assert arrived[source] == own + waiting[source], (source, ends)
    assert backlog.dropped == sum(count for (_, end), count in ends.items() if end == "dropped.after_stall")


def test_stamps_a_nanosecond_apart_take_bounded_memory_and_each_embedding_has_one_end() -> None:
    """No time passes between them, so none of them would ever be too late."""
    ends = Counter[str]()
    assembler, sent = TickAssembler(SECOND, lambda item, end: ends.update([end])), 3 * MAX_HELD_TICKS
    for number in range(sent):
        item = Embedding("vision", 1, 10 * SECOND + number, "toy@0", 1.0, VECTOR, sensor="front")
        ends["used.in_tick"] += sum(len(present) for _, present in assembler.add(item))
        assert assembler.waiting.total() <= MAX_HELD_TICKS
    assert ends.total() + assembler.waiting.total() == sent
    assert assembler.incomplete_ticks == sent - MAX_HELD_TICKS


def test_a_robot_with_ever_new_topics_takes_bounded_memory_and_the_sums_stay_right() -> None:
    counts = TopicCounts()
    for number in range(MAX_TOPICS + 50):
        counts.of(f"embeddings/{number}").update({"arrived": 2, "used.in_tick": 1})
    values = counts.values({f"embeddings/{number}": 1 for number in range(MAX_TOPICS + 50)})
    topics = {key.rpartition(": ")[0] for key in values}
    assert len(topics) == MAX_TOPICS + 1 and counts.total("arrived") == 2 * (MAX_TOPICS + 50)
    others = {key.rpartition(": ")[2]: count for key, count in values.items() if key.startswith(OTHER_TOPICS)}
    assert (others["arrived"], others["waiting"]) == (100, 50)
    assert not any(line.unaccounted for line in topic_accounts(others))


NODES = """
import json, random
from functools import partial
from types import SimpleNamespace
import rclpy
from rclpy.serialization import serialize_message
from helpers import poison_messages as poison
from sensebind.commands.doctor.live import counters_of, lines_of
from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.samples import AUDIO, SECOND, VISION
from sensebind.fusion.events.tracker import EventTracker
from sensebind.nodes import detector as module
from sensebind.nodes.bridge import BridgeNode
from sensebind.nodes.support.message_types import RosMessageFactory

rclpy.init(args=["--ros-args", "--log-level", "fatal", "-p", "detectors:=[novelty, fault]",
                 "-p", "prompt.calibration:=none", "-p", "bridge:address:=tcp://127.0.0.1:*"])
make, chance, now = RosMessageFactory(), random.Random(1), [0.0]
module.time = SimpleNamespace(monotonic=lambda: now[0])
detector, bridge = module.DetectorNode(), BridgeNode()
nodes = {"detector": (detector, detector._waiting_embeddings), "bridge": (bridge, dict)}
for node, _ in nodes.values():
    node.trigger_configure()
    node.trigger_activate()
    assert node.is_active


def failing(work, every, self, tick, *rest):  # a detector with an error in some ticks
    if tick // HOP % every == 3:
        raise ValueError("broken")
    return work(self, tick, *rest)


HOP, tick, numbers = SECOND // 2, 0, {}
for name, every in (("step", 7), ("add_late_embeddings", 5)):
    setattr(EventTracker, name, lambda *all, w=getattr(EventTracker, name), e=every: failing(w, e, *all))


def receive(subscription, topic, message):
    numbers[topic] = numbers.get(topic, 0) + 1 + (chance.random() < 0.02)  # the middleware loses some
    subscription.callback(serialize_message(message), {"publication_sequence_number": numbers[topic]})


def space(name):
    message = poison.good_space(make)
    message.id = name
    for node in (detector, bridge):
        for subscription in node.subscriptions:
            if subscription.topic_name.endswith("/embedding_space"):
                receive(subscription, "space" + node.get_name(), message)


def ends():
    found = {}
    for name, (node, waiting) in nodes.items():
        values = node._callback_guard.values(waiting())
        status = SimpleNamespace(values=[SimpleNamespace(key=key, value=str(n)) for key, n in values.items()])
        for topic, counts in counters_of(status).items():
            if lines := lines_of(counts):
                assert not any(line.unaccounted for line in lines), (name, topic, counts)
                assert min(counts.values()) >= 0
                for end, count in counts.items():
                    found[name] = found.get(name, {})
                    found[name][end] = found[name].get(end, 0) + count
    return found


space(poison.SPACE.id)
for step in range(3000):
    roll = chance.random()
    now[0] += 2.0 if roll < 0.004 else 0.02
    tick += chance.random() < 0.4
    if roll < 0.002:
        tick -= 100
    if step == 2000:
        space("other@2")  # then the detector has no detectors for these vectors
        detector._tracker = None
    source = chance.choice([VISION, VISION, AUDIO, FUSED])
    own = tick - (chance.choice([1, 2, 8]) if roll > 0.85 else 0)
    message = poison.good_embedding(make, source, poison.START + own * HOP, step)
    if step >= 2000:
        message.space = "other@2"
    if roll > 0.97:
        message.space = "other@1"
    elif roll < 0.1:
        chance.choice(poison.EMBEDDINGS)[2](message, make)
    for node, _ in nodes.values():
        if source in node._embedding_subscriptions:
            receive(node._embedding_subscriptions[source], source + node.get_name(), message)
    if step % 10 == 0:
        detector._watch()
    if step % 50 == 0:
        ends()
        for subscription in bridge.subscriptions:
            if subscription.topic_name.endswith("/events"):
                receive(subscription, "events", poison.good_event(make))
for node, _ in nodes.values():
    node.trigger_deactivate()
assert not detector._waiting_embeddings()
print(json.dumps(ends()))
"""


def test_in_nodes_with_poison_stalls_jumps_and_failing_detectors_each_message_has_one_end() -> None:
    run = run_ros_program(NODES)
    assert run.returncode == 0, run.stderr[-3000:]
    ends = {node: {name for name, n in counts.items() if n} for node, counts in json.loads(run.stdout).items()}
    causes = ("late", "replaced", "alone", "after_stall", "other_space", "failed", "not_ready", "time")
    wanted = {"used.in_tick", "used.late", "used.applied", *(f"dropped.{cause}" for cause in causes)}
    assert wanted <= ends["detector"], wanted - ends["detector"]
    assert {"used.forwarded", "used.applied", "refused.not_finite", "lost"} <= ends["bridge"]
    assert "waiting" not in ends["detector"]
