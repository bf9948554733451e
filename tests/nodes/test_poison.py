"""Nothing that other programs send ends a node: what cannot be used is counted, and logged once for each kind."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import pytest

from helpers import poison_messages as poison
from helpers.poison_messages import EMBEDDINGS, EVENTS, SPACE, SPACES, START, Change
from helpers.ros_processes import Executable, Peer, peer, ros_environment, running
from sensebind.commands.doctor.live import LiveStatuses, lines_of
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND, TEXT, VISION
from sensebind.fusion.io import messages
from sensebind.fusion.stream.accounting.identity import Account

COUNT = 1000  # poison messages of each type
VALUES: dict[str, Any] = {
    "prompts.anything": ["a photo"],
    "prompt.calibration": "none",
    "prompt.onset_threshold": 0.01,
    "prompt.offset_threshold": 0.01,
    "prompt.min_duration": 0.0,
    "detectors": ["prompt", "novelty"],
    "tick_timeout": 10.0,  # by stamps, and they go on 25 times as fast as the time: 0.4 s
}


def status(diagnostics: list[tuple[float, Any]], name: str) -> tuple[bytes, str, dict[str, str]]:
    """Level, message and values of the newest status of a component."""
    found = [s for _, message in diagnostics[-30:] for s in message.status if s.name == name]
    if not found:
        return b"\x03", "", {}
    return found[-1].level, found[-1].message, {pair.key: pair.value for pair in found[-1].values}


def accounts_of(diagnostics: list[tuple[float, Any]], name: str) -> dict[str, list[Account]]:
    """Topic → the lines of the accounting identity that `sensebind doctor --live` prints for a node."""
    found = LiveStatuses()
    for _, message in diagnostics:
        found.add(message)
    return {k.removeprefix(f"{name}, "): lines_of(counts) for k, counts in found.statuses.items() if k.startswith(name)}


def kinds(type_name: str, changes: list[Change]) -> Counter[str]:
    """Kind → how many of `COUNT` messages have it, if the changes are used in turn."""
    return Counter(f"refused.{type_name}.{changes[number % len(changes)][1]}" for number in range(COUNT))


def send(me: Peer, publisher: Any, changes: list[Change], make_message: Any) -> None:
    """Publish `COUNT` messages with the changes in turn, a few at a time."""
    from sensebind.nodes.support.message_types import RosMessageFactory

    make = RosMessageFactory()
    for number in range(COUNT):
        message = make_message(number)
        changes[number % len(changes)][2](message, make)
        publisher.publish(message)
        if number % 10 == 9:
            me.spin(0.02)


def test_a_thousand_poison_messages_of_each_type_end_no_node_that_receives_them() -> None:
    from sensebind.nodes.support.message_types import RosMessageFactory, message_type
    from sensebind.nodes.support.qos import EMBEDDING_INPUT_QOS, EVENT_INPUT_QOS, LATCHED_QOS

    environment, make = ros_environment("sensebind_msgs"), RosMessageFactory()
    vector = SPACE.embed_text(["a photo"]).numpy()[0]
    answers: list[list[str]] = []  # the phrases of each request

    def embed_text(request: Any, response: Any) -> Any:
        answers.append(list(request.texts))
        if len(answers) == 1:
            response.message = poison.FORGED
            return response
        response.success = True
        response.embeddings = [
            messages.embedding_message(make, Embedding(TEXT, START, START, SPACE.id, 1.0, vector))
            for _ in request.texts[len(answers) == 2 :]  # the second answer has no vector
        ]
        return response

    with peer(environment) as me:
        me.node.create_service(message_type(messages.EMBED_TEXT_TYPE), "embed_text", embed_text)
        diagnostics = me.subscribe("diagnostic_msgs/msg/DiagnosticArray", "/diagnostics", 100)
        space_publisher = me.publisher(messages.EMBEDDING_SPACE_TYPE, "embedding_space", LATCHED_QOS)
        poisoned = poison.good_space(make)
        poisoned.dimension = 0
        space_publisher.publish(poisoned)  # a node receives it again whenever it starts
        with (
            running("detector", environment=environment, values=VALUES) as detector,
            running("bridge", environment=environment, values={"address": "tcp://127.0.0.1:*"}) as bridge,
            running("event_recorder", environment=environment) as recorder,
        ):
            nodes = {"detector: events": detector, "bridge: clients": bridge}
            for name in nodes:
                me.wait_until(lambda n=name: "space.number" in status(diagnostics, n)[1], 60, f"the refusal of {name}")
            space_publisher.publish(poison.good_space(make))
            # --- a failed answer, an answer without vectors, and a good one
            me.wait_until(lambda: status(diagnostics, "detector: events")[1].startswith("1 prompts"), 60, "the prompts")
            values = status(diagnostics, "detector: events")[2]
            assert (values["refused.answer.failed"], values["refused.answer.size"]) == ("1", "1")

            embedding_publisher = me.publisher(messages.EMBEDDING_TYPE, f"embeddings/{VISION}", EMBEDDING_INPUT_QOS)
            fused_publisher = me.publisher(messages.EMBEDDING_TYPE, f"embeddings/{FUSED}", EMBEDDING_INPUT_QOS)
            event_publisher = me.publisher(messages.EVENT_TYPE, "events", EVENT_INPUT_QOS)
            me.wait_for_subscribers(embedding_publisher, 2)
            me.wait_for_subscribers(fused_publisher, 2)
            me.wait_for_subscribers(event_publisher, 2)
            events = me.subscribe(messages.EVENT_TYPE, "events", EVENT_INPUT_QOS)

            def good(first: int, count: int, sequence: int) -> None:
                for tick in range(first, first + count):
                    at = START + tick * SECOND // 2
                    embedding_publisher.publish(poison.good_embedding(make, VISION, at, sequence + tick - first))
                    fused_publisher.publish(poison.good_embedding(make, FUSED, at, tick))
                    me.spin(0.02)

            good(0, 10, 0)
            send(me, embedding_publisher, EMBEDDINGS, lambda n: poison.good_embedding(make, sequence=10 + n))
            good(10, 10, 10 + COUNT)
            own = len(events)
            labels = {message.label for _, message in events}
            send(me, event_publisher, EVENTS, lambda n: poison.good_event(make, n))
            send(me, space_publisher, SPACES, lambda n: poison.good_space(make))

            def is_counted(name: str, wanted: Counter[str]) -> bool:
                """Whether each message was refused with its cause. Those that the middleware lost are counted too, and
                good ones may be among them."""
                values = status(diagnostics, name)[2]
                missing = sum(count - int(values.get(kind, 0)) for kind, count in wanted.items())
                return 0 <= missing <= int(values.get("lost", -1))

            for name in nodes:
                wanted = kinds("embedding", EMBEDDINGS)
                if name.startswith("bridge"):  # it has no order of time to keep, and forwards stamps of any time
                    turns = [EMBEDDINGS[number % len(EMBEDDINGS)][0] for number in range(COUNT)]
                    wanted["refused.embedding.time"] -= sum(map(turns.count, poison.OTHER_TIMES))
                me.wait_until(lambda n=name, w=wanted: is_counted(n, w), 20, f"the counts of {name}")
                level, message, values = status(diagnostics, name)
                assert level >= b"\x01" and "refused messages: " in message
                assert all(int(values[kind]) > 0 for kind in kinds("space", SPACES)), values
            for name in ("bridge: clients", "event_recorder: snapshots"):
                values = status(diagnostics, name)[2]
                refused = {kind: int(values[kind]) for kind in kinds("event", EVENTS)}
                assert refused == kinds("event", EVENTS), name
            assert labels == {"anything"}, "a false vector would be a novelty"
            assert own < 20, "and end events, which begin again"
            ends = {"detector: events": "in_tick", "bridge: clients": "forwarded"}
            for name, end in ends.items():
                sent = {f"embeddings/{VISION}": COUNT + 20, f"embeddings/{FUSED}": 20}
                for topic, (published, arrived) in accounts_of(diagnostics, name).items():
                    assert published.total == sent.get(topic, published.total) and not arrived.unaccounted, topic
                    assert topic not in sent or arrived.used[end] + arrived.waiting >= 20, arrived
            for name, node in {**nodes, "event_recorder: snapshots": recorder}.items():
                assert node.is_running
                assert_one_line_of_each_kind(node, status(diagnostics, name)[2])


# Bytes that are no message: headers without fields, and cut or strange bytes. If a header claims padding, Fast CDR
# reads what is behind it in memory.
MALFORMED = [b"\0\1\0\1", b"\0\1\0\2", b"\0\0\0\3", b"\0\1\0\0", b"\0\1\0\0\0\0", b"\xff" * 40]


def test_bytes_that_are_no_message_are_counted_by_detector_and_bridge() -> None:
    from sensebind.nodes.support.message_types import RosMessageFactory
    from sensebind.nodes.support.qos import EMBEDDING_INPUT_QOS, EVENT_INPUT_QOS, LATCHED_QOS

    environment = ros_environment("sensebind_msgs")
    with (
        peer(environment) as me,
        running("detector", environment=environment, values=VALUES) as detector,
        running("bridge", environment=environment, values={"address": "tcp://127.0.0.1:*"}) as bridge,
    ):
        nodes = {"detector: events": detector, "bridge: clients": bridge}
        diagnostics = me.subscribe("diagnostic_msgs/msg/DiagnosticArray", "/diagnostics", 100)
        publishers = {
            "space": (me.publisher(messages.EMBEDDING_SPACE_TYPE, "embedding_space", LATCHED_QOS), nodes),
            "embedding": (me.publisher(messages.EMBEDDING_TYPE, f"embeddings/{VISION}", EMBEDDING_INPUT_QOS), nodes),
            "event": (me.publisher(messages.EVENT_TYPE, "events", EVENT_INPUT_QOS), ["bridge: clients"]),
        }

        def are_counted(name: str, kind: str) -> bool:
            """Whether each is refused. On a busy machine, the next message of a latched topic may replace one."""
            refused = int(status(diagnostics, name)[2].get(f"refused.{kind}.malformed", 0))
            return refused == len(MALFORMED) or (kind == "space" and 0 < refused < len(MALFORMED))

        publishers["space"][0].publish(poison.good_space(RosMessageFactory()))
        for kind, (publisher, receivers) in publishers.items():
            me.wait_for_subscribers(publisher, len(receivers))
            for payload in MALFORMED:
                publisher.publish(payload)
                me.spin(0.05)
            if kind == "space":  # it is latched: on a busy machine, bytes have replaced the good one that came before
                publisher.publish(poison.good_space(RosMessageFactory()))
        for kind, (_, receivers) in publishers.items():
            for name in receivers:
                me.wait_until(lambda n=name, k=kind: are_counted(n, k), 20, f"the counts of {kind} of {name}")
        for name, node in nodes.items():
            assert node.is_running
            assert_one_line_of_each_kind(node, status(diagnostics, name)[2])


def assert_one_line_of_each_kind(node: Executable, values: dict[str, str]) -> None:
    counted = [key for key in values if key.startswith("refused.")]
    lines = [line for line in node.lines if "was refused" in line or "could not be" in line]
    assert len(lines) == len(counted), (counted, lines)
    assert not any(line.startswith(poison.FORGED.splitlines()[1]) for line in node.lines)
    assert max(map(len, node.lines)) < 1500 and "Traceback" not in node.output


def test_a_listener_stores_nothing_of_a_thousand_poison_messages_and_what_is_good() -> None:
    """The node in the program of `sensebind demo` and of the benchmarks."""
    import rclpy

    from sensebind.nodes.support.listener import Listener
    from sensebind.nodes.support.message_types import RosMessageFactory
    from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS, LATCHED_QOS

    environment, make = ros_environment("sensebind_msgs"), RosMessageFactory()
    with peer(environment) as me:
        rclpy.init(domain_id=int(environment["ROS_DOMAIN_ID"]))
        try:
            listener = Listener()
            spaces = me.publisher(messages.EMBEDDING_SPACE_TYPE, "embedding_space", LATCHED_QOS)
            events = me.publisher(messages.EVENT_TYPE, "events", EVENT_QOS)
            embeddings = me.publisher(messages.EMBEDDING_TYPE, f"embeddings/{VISION}", EMBEDDING_QOS)

            def publish(publisher: Any, changes: list[Change], make_message: Any, count: int) -> None:
                for number in range(count):
                    message = make_message()
                    if number != count - 1:
                        changes[number % len(changes)][2](message, make)
                    publisher.publish(message)
                    rclpy.spin_once(listener, timeout_sec=0.01)

            def spin_until(condition: Any) -> None:
                assert me.spin_until(lambda: rclpy.spin_once(listener, timeout_sec=0.02) or condition(), 15)

            spin_until(lambda: spaces.get_subscription_count() and events.get_subscription_count())
            publish(spaces, SPACES, lambda: poison.good_space(make), 100)
            spin_until(lambda: listener.space is not None and embeddings.get_subscription_count())
            publish(embeddings, EMBEDDINGS, lambda: poison.good_embedding(make), COUNT)
            publish(events, EVENTS, lambda: poison.good_event(make), COUNT)
            spin_until(lambda: listener.events and listener.embeddings)
            assert {e.label for e in listener.events} == {"person"} and listener.space.id == SPACE.id
            other_times = {10 * SECOND, (2**31 - 10) * SECOND}  # `OTHER_TIMES`
            assert {e.tick for e in listener.embeddings} == {START} | other_times
        finally:
            rclpy.try_shutdown()


def image_poisons(make: Any) -> list[Any]:
    """Images with hostile fields; good ones have 48 × 64 pixels."""
    changes: list[dict[str, Any]] = [
        {"height": 2**32 - 1},
        {"width": 2**32 - 1, "height": 2**32 - 1, "step": 2**32 - 1},
        {"width": 0},
        {"step": 1},
        {"data": array("B")},
        {"data": array("B", bytes(10))},
        {"encoding": ""},
        {"encoding": poison.FORGED},
        {"encoding": poison.MEGABYTE},
        {"encoding": "64FC4"},
        {"encoding": "16UC1", "is_bigendian": 255},
        {"header": messages.header_message(make, 0)},
        {"header": messages.header_message(make, -5 * SECOND)},
        {"header": messages.header_message(make, 2**31 * SECOND - SECOND)},
        {"header": messages.header_message(make, START, poison.FORGED)},
    ]
    found = []
    for change in changes:
        message = good_image(make, START)
        for name, value in change.items():
            setattr(message, name, value)
        found.append(message)
    return found


def good_image(make: Any, stamp: int) -> Any:
    return make.make(
        messages.IMAGE_TYPE, header=messages.header_message(make, stamp), height=48, width=64, encoding="rgb8",
        is_bigendian=0, step=192, data=array("B", bytes(range(192)) * 48),
    )  # fmt: skip


def compressed_poisons(make: Any) -> list[Any]:
    png = b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IHDR" + b"\x7f\xff\xff\xff" * 2 + b"\x08\x02"
    contents = [("jpeg", b""), ("jpeg", b"\xff\xd8\xff" + bytes(100)), ("png", png), ("", b"x"), (poison.FORGED, b"x")]
    return [
        make.make(
            messages.COMPRESSED_IMAGE_TYPE, header=messages.header_message(make, START + number), format=name,
            data=array("B", data),
        )
        for number, (name, data) in enumerate(contents)
    ]  # fmt: skip


def imu_poisons(make: Any) -> list[Any]:
    found = []
    for value in (float("nan"), float("inf"), 1e308, -1e308):
        for stamp in (START, 0, -SECOND, 2**31 * SECOND - SECOND):
            message = imu_message(make, stamp)
            message.linear_acceleration.x = message.angular_velocity.z = value
            message.orientation_covariance = [value] * 9
            message.linear_acceleration_covariance = [value] * 9
            found.append(message)
    return found


def imu_message(make: Any, stamp: int) -> Any:
    from sensebind.nodes.support.message_types import message_type

    message = message_type(messages.IMU_TYPE)()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    message.linear_acceleration.z = 9.81
    return message


def audio_poisons(make: Any) -> list[Any]:
    found = []
    for data in (b"", b"\xff", bytes(3), b"\xff" * 10**5):
        for stamp in (START, 0, -SECOND):
            audio = make.make("audio_common_msgs/msg/AudioData", data=array("B", data))
            header = messages.header_message(make, stamp)
            found.append(make.make("audio_common_msgs/msg/AudioDataStamped", header=header, audio=audio))
    return found


def info_poisons(make: Any) -> list[Any]:
    return [
        make.make(
            "audio_common_msgs/msg/AudioInfo", channels=channels, sample_rate=rate, sample_format=sample_format,
            bitrate=0, coding_format="wave",
        )
        for channels, rate, sample_format in (
            (0, 16000, "S16LE"), (255, 16000, "S16LE"), (1, 0, "S16LE"), (1, 2**32 - 1, "S16LE"), (1, 8000, "x"),
            (1, 8000, poison.FORGED), (1, 8000, ""), (1, 16000, "S16LE"),
        )
    ]  # fmt: skip


def camera_poisons(make: Any) -> list[Any]:
    """CameraInfo with hostile fields."""
    from sensebind.nodes.support.message_types import message_type

    changes: list[dict[str, Any]] = [
        {"k": [value] * 9} for value in (0.0, -1.0, 1e-320, 1e308, float("nan"), float("inf"))
    ] + [
        {"width": 0, "height": 0},
        {"width": 2**32 - 1, "height": 2**32 - 1},
        {"d": [float("nan")] * 10_000},
        {"distortion_model": poison.FORGED},
        {"distortion_model": poison.MEGABYTE},
        {"binning_x": 2**32 - 1, "binning_y": 2**32 - 1},
        {"header": messages.header_message(make, -SECOND, poison.FORGED)},
    ]
    found = []
    for change in changes:
        message = message_type("sensor_msgs/msg/CameraInfo")()
        message.width, message.height = 64, 48
        for name, value in change.items():
            setattr(message, name, value)
        found.append(message)
    return found


@pytest.mark.slow  # the quick siblings: the counts of errors in test_diagnostics, the slices in test_embed_text
def test_an_embedder_outlives_poison_and_many_phrases_and_embeds_what_is_good_meanwhile() -> None:
    from sensebind.nodes.support.message_types import RosMessageFactory, message_type

    environment, make = ros_environment("sensebind_msgs", "audio_common_msgs"), RosMessageFactory()
    values: dict[str, Any] = {
        "modalities": ["vision", "audio", "imu"],
        "device": "cpu",
        "vision.sensors": ["front", "rear"],
        "rear.transport": "compressed",
        "audio.type": "audio_common_msgs/msg/AudioDataStamped",
    }
    with running("embedder", environment=environment, values=values) as embedder, peer(environment) as me:
        diagnostics = me.subscribe("diagnostic_msgs/msg/DiagnosticArray", "/diagnostics", 100)
        publishers = {
            "front": me.publisher(messages.IMAGE_TYPE, "front/image", 1000),
            "rear": me.publisher(messages.COMPRESSED_IMAGE_TYPE, "rear/image/compressed", 1000),
            "audio": me.publisher("audio_common_msgs/msg/AudioDataStamped", "audio", 1000),
            "imu": me.publisher(messages.IMU_TYPE, "imu", 1000),
        }
        info = me.publisher("audio_common_msgs/msg/AudioInfo", "audio_info", 1000)
        camera = me.publisher("sensor_msgs/msg/CameraInfo", "front/camera_info", 1000)
        for publisher in [*publishers.values(), info, camera]:
            me.wait_for_subscribers(publisher, timeout=60)
        poisons = {
            "front": image_poisons(make),
            "rear": compressed_poisons(make),
            "audio": audio_poisons(make),
            "imu": imu_poisons(make),
        }
        infos, cameras, count = info_poisons(make), camera_poisons(make), COUNT
        for number in range(count):
            for sensor, publisher in publishers.items():
                publisher.publish(poisons[sensor][number % len(poisons[sensor])])
            info.publish(infos[number % len(infos)])
            camera.publish(cameras[number % len(cameras)])
            me.spin(0.004)

        def value(sensor: str, key: str) -> int:
            return int(status(diagnostics, f"embedder: {sensor}")[2].get(key, "-1"))

        def counted(sensor: str) -> int:
            return value(sensor, "arrived") + value(sensor, "lost") + value(sensor, "earlier")

        for sensor in publishers:
            me.wait_until(lambda s=sensor: counted(s) == count, 20, f"{count} messages of {sensor}")
            assert status(diagnostics, f"embedder: {sensor}")[0] >= b"\x01"

        # --- phrases: too many, an empty one, a long one, and as many as are allowed beside the sensors
        client = me.node.create_client(message_type(messages.EMBED_TEXT_TYPE), "embed_text")
        me.wait_until(client.service_is_ready, 30, "the service")

        def ask(texts: list[str]) -> Any:
            call = client.call_async(message_type(messages.EMBED_TEXT_TYPE).Request(texts=texts))
            me.wait_until(call.done, 60, "the answer")
            return call.result()

        assert "in several requests" in ask(["a dog"] * 10_000).message
        assert "phrase 2 of 2 is empty" in ask(["a dog", ""]).message
        assert "shorten" in ask([poison.MEGABYTE]).message
        lost, embedded = value("imu", "lost"), value("front", "embedded")
        stamps, sent = [], 0

        def publish() -> None:
            stamps.append(me.node.get_clock().now().nanoseconds)
            publishers["imu"].publish(imu_message(make, stamps[-1]))
            if len(stamps) % 10 == 0:
                publishers["front"].publish(good_image(make, stamps[-1]))

        timer = me.node.create_timer(0.01, publish)
        answer = ask([f"a photo of a dog and {number} cats" for number in range(100)])
        sent = len(stamps)
        assert answer.success and len(answer.embeddings) == len(answer.objects) == 100
        me.wait_until(lambda: value("front", "embedded") > embedded, 20, "embeddings of good images")
        timer.cancel()
        me.wait_until(lambda: counted("imu") == count + len(stamps), 20, "all messages of the IMU")
        # If the sensors waited for the call, nearly all would be lost; a busy machine loses some.
        assert value("imu", "lost") - lost <= 0.05 * sent, f"of {sent} messages during the call"
        assert embedder.is_running
        own = [line for line in embedder.lines if "topic '" in line]
        assert len(own) < 40 and max(map(len, embedder.lines)) < 1500
        forged = [line[:300] for line in embedder.lines if line.startswith(poison.FORGED.splitlines()[1])]
        assert not forged, [line[:300] for line in embedder.lines]
