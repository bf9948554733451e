"""One message of another program, or another embedder for a time, costs the detector nothing for good."""

from __future__ import annotations

from helpers.ros_processes import run_ros_program

START = """
from types import SimpleNamespace
import rclpy
from rclpy.serialization import serialize_message
from helpers import poison_messages as poison
from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.samples import AUDIO, SECOND, VISION
from sensebind.fusion.events.tracker import EventTracker
from sensebind.nodes import detector as module
from sensebind.nodes.support.message_types import RosMessageFactory

make, now, tick, sent, restarts, calibrations = RosMessageFactory(), [0.0], 0, {}, [], []
module.time = SimpleNamespace(monotonic=lambda: now[0])
restart, make_detectors = EventTracker.restart, module.make_detectors
EventTracker.restart = lambda self: [restarts.append(now[0]), restart(self)][1]
module.make_detectors = lambda values, *all: [
    calibrations.append(values["prompt.calibration"]), make_detectors(values, *all)][1]
rclpy.init(args=["--ros-args", "-p", "detectors:=[novelty, fault]", "-p", f"prompt.calibration:={CALIBRATION}"])
node = module.DetectorNode()
node.trigger_configure()
node.trigger_activate()
[spaces] = [own for own in node.subscriptions if own.topic_name == "/embedding_space"]


def receive(subscription, message):
    number = sent[subscription.topic_name] = sent.get(subscription.topic_name, 0) + 1
    subscription.callback(serialize_message(message), {"publication_sequence_number": number})


def publish(source, at, change=lambda message: None):
    message = poison.good_embedding(make, source, poison.START + at)
    change(message)
    receive(node._embedding_subscriptions[source], message)


def ends(source):
    counts = node._callback_guard.counts.of(f"embeddings/{source}")
    return {name: count for name, count in counts.items() if count and name not in ("arrived", "used.in_tick")}


def play(seconds, sources=(VISION, FUSED), change=lambda message: None):
    global tick
    for step in range(round(seconds / 0.1)):
        now[0] += 0.1
        if step % 5 == 0:
            tick += SECOND // 2
            for source in sources:
                publish(source, tick, change)
        node._watch()
"""

STAMPS = (
    'CALIBRATION = "none"'
    + START
    + """
receive(spaces, poison.good_space(make))
play(10.0)
for hour in (3000, -3000):  # one message each, of a sensor that is silent and of one that is not
    for source in (AUDIO, VISION):
        publish(source, tick + hour * SECOND)
    play(3.0)
play(5.0, sources=())  # the embedder stops: ticks that wait are processed
play(5.0)
print(restarts, ends(VISION), ends(FUSED), ends(AUDIO), sum(node._waiting_embeddings().values()))
for jump in (-100, 600):  # all sensors, as their clock does
    tick += jump * SECOND
    play(5.0)
print(len(restarts), ends(VISION), ends(FUSED), sum(node._waiting_embeddings().values()))


def other(message):
    message.space, message.modality = "other@1", f"modality{number}"


for number in range(500):
    publish(VISION, tick + number, other)
held = [node._watchdog._windows, node._backlog._ticks, node._assembler._newest_by_topic, node._present_modalities]
print([len(found) <= 3 for found in held])
"""
)


def test_wrong_stamps_of_an_hour_change_nothing_and_jumps_of_the_clock_lose_nothing() -> None:
    run = run_ros_program(STAMPS)
    assert run.returncode == 0, run.stderr[-3000:]
    wrong, jumps, kinds = run.stdout.splitlines()
    assert wrong == "[] {'dropped.time': 2} {} {'dropped.time': 2} 0"
    assert jumps == "1 {'dropped.time': 2} {} 0"
    assert kinds == "[True, True, True, True]"
    assert len(run.stderr.splitlines()) < 20, run.stderr[-3000:]


SPACES = (
    'CALIBRATION = "starter"'
    + START
    + """
from sensebind.fusion.events.prompt_calibration import find_calibration
own, calibration = poison.good_space(make), find_calibration("starter", "")
own.id, own.modalities = calibration.space, [VISION, AUDIO, "text"]
own.encoders, own.logit_scales, own.logit_biases = [calibration.encoders[m] for m in own.modalities], [], []


def of_own(message):
    message.space = own.id


receive(spaces, own)
play(5.0, change=of_own)
receive(spaces, poison.good_space(make))  # of an embedder that was started by mistake, and is stopped again
play(3.0, change=of_own)
counted = dict(node._callback_guard.counts.of("embeddings/vision"))
play(3.0, change=of_own)
print(node._space_id == own.id, calibrations)
print(node._callback_guard.counts.of("embeddings/vision")["used.in_tick"] - counted["used.in_tick"])
for number in range(100):  # ever other ones, and one of the same name with other vectors
    other = poison.good_space(make)
    other.id = f"other@{number}"
    receive(spaces, other)
other.id, other.dimension = own.id, 7
receive(spaces, other)
play(3.0, change=of_own)
print(node._space_id == own.id, node._space.dimension == own.dimension)
from rclpy.parameter import Parameter
node.set_parameters([Parameter("detectors", value=["prompt"])])
[result] = node.set_parameters([Parameter("prompts.person", value=["a person", "x" * 1001])])
print(result.successful, "1001 characters" in result.reason, "prompts" in result.reason)
"""
)


def test_a_space_whose_vectors_arrive_counts_again_and_a_phrase_that_no_embedder_takes_is_refused() -> None:
    run = run_ros_program(SPACES)
    assert run.returncode == 0, run.stderr[-3000:]
    spaces = ["True ['starter', 'none', 'starter']", "6", "True True"]
    assert run.stdout.splitlines() == [*spaces, "False True True"], run.stderr[-3000:]


BRIDGE = """
import rclpy
from rclpy.serialization import serialize_message
from helpers import poison_messages as poison
from sensebind.fusion.core.samples import VISION
from sensebind.nodes import bridge as module
from sensebind.nodes.support.message_types import RosMessageFactory

make, encoders = RosMessageFactory(), []
module.encode = lambda item, sequence, encoder, robot: [encoders.append(encoder), (b"topic", b"payload")][1]
rclpy.init(args=["--ros-args", "-p", "address:=tcp://127.0.0.1:*"])
node = module.BridgeNode()
node.trigger_configure()
node.trigger_activate()
[spaces] = [own for own in node.subscriptions if own.topic_name == "/embedding_space"]
for number in range(30):
    space = poison.good_space(make)
    space.id = f"other@{number}" if number else space.id
    spaces.callback(serialize_message(space), {})
    node._embedding_subscriptions[VISION].callback(serialize_message(poison.good_embedding(make)), {})
print(len(set(encoders)), bool(encoders[0]), len(encoders))
"""


def test_the_bridge_names_the_encoder_of_a_vector_also_after_another_embedder_published_its_space() -> None:
    run = run_ros_program(BRIDGE)
    assert run.returncode == 0 and run.stdout.split() == ["1", "True", "30"], run.stdout + run.stderr[-3000:]
