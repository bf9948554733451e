"""Subscribes to the sensor topics. One `SampleDecoder` for each sensor turns its messages into samples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription

from sensebind.fusion.config.parameters import sensor_options, sensors_of
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.errors import error_text, printable
from sensebind.fusion.core.samples import IMAGE_MODALITIES, Calibration, Sample
from sensebind.fusion.io.messages import IMU_TYPE
from sensebind.fusion.io.received.sequences import TopicLosses
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder, data_topic, select_message_type
from sensebind.fusion.io.sensor_options import RAW_TRANSPORT, SensorOptions
from sensebind.fusion.stream.accounting.identity import MESSAGE_COUNTERS
from sensebind.nodes.support.message_types import message_type
from sensebind.nodes.support.qos import LATCHED_QOS, SENSOR_DATA_QOS, sensor_data_qos
from sensebind.nodes.support.rclpy_compat import SubscriptionEventCallbacks, numbered_subscription

# Messages that the middleware holds while this process is busy: about one second of a sensor's data. With ROS's usual
# depth of 5, images are lost after 0.17 s without CPU time and IMU readings after 25 ms, as on a loaded machine.
IMAGE_QUEUE_DEPTH, SERIES_QUEUE_DEPTH = 30, 500
MIN_QUEUE_DEPTH = 2  # of images of any size
TYPE_LOG_PERIOD = 10.0  # s from one line of the log on another type of messages to the next one


class SensorSubscriptions:
    """The subscriptions of one node to its sensors.

    `on_sample` is called with every sample; `on_calibration` with each sensor's calibration, during construction from
    the parameters and later whenever CameraInfo changes it; `on_error(sensor, message)` with each error of a topic.
    After construction, all these calls run in the thread of the node's executor; any thread may read `topics`.
    `past`: closed subscriptions of the node, whose counts and sequence numbers those of this object continue.
    """

    def __init__(
        self,
        node: Node,
        values: Mapping[str, Any],
        on_sample: Callable[[Sample], None],
        on_calibration: Callable[[str, Calibration], None],
        on_error: Callable[[str, str], None],
        past: SensorSubscriptions | None = None,
        queue_bytes: int | None = None,
    ) -> None:
        """`queue_bytes`: of the messages of one image topic that the middleware may hold. With larger images, a
        subscription is made again, with a shorter queue. None: no limit."""
        self._node = node
        self._queue_bytes = queue_bytes
        self._largest: Counter[str] = Counter()  # sensor → bytes of its largest image
        # Sensor with images → its subscription, its depth, and how to make it again with another depth.
        self._image_queues: dict[str, tuple[Subscription[Any], int, Callable[[int], Subscription[Any]]]] = {}
        self._on_sample, self._on_calibration, self._on_error = on_sample, on_calibration, on_error
        sensors = sensors_of(values, values["modalities"])
        self._options = {name: sensor_options(values, modality, name) for name, modality in sensors.items()}
        self._subscriptions: defaultdict[str, list[Subscription[Any]]] = defaultdict(list)  # by sensor
        self._is_closed = False
        self._past = {name: past.message_counts(name) for name in sensors} if past is not None else {}
        self._losses: dict[str, TopicLosses] = dict(past._losses) if past is not None else {}  # by sensor
        self._lost: Counter[str] = Counter()
        self._missed_before_start: Counter[str] = Counter()
        self._decoders: dict[str, SampleDecoder] = {}  # sensor → the decoder of its messages, once their type is known
        self._types: dict[str, str] = {}  # sensor → the message type that it was subscribed with
        self._topics: Mapping[str, str] = {}  # replaced, never modified, so any thread can read it
        for sensor, options in self._options.items():
            self._on_calibration(sensor, options.calibration)
        self.discover_topics()

    @property
    def topics(self) -> Mapping[str, str]:
        """Sensor → resolved topic, once its message type is known."""
        return dict(self._topics)

    def warnings(self, sensor: str) -> list[str]:
        """What is wrong with the messages of a sensor now."""
        decoder, now = self._decoders.get(sensor), self._node.get_clock().now().nanoseconds
        return decoder.active_warnings(now) if decoder is not None else []

    def message_counts(self, sensor: str) -> dict[str, int]:
        """A sensor's messages by the names in `MESSAGE_COUNTERS`: those of `SampleDecoder.message_counts`; `lost` since
        the first that arrived; `earlier`: published before it, or while the node was inactive; `unfinished`: those that
        still waited for others when the subscriptions were closed.
        If the middleware does not number messages, `lost` is the middleware's count and `earlier` is 0."""
        decoder = self._decoders.get(sensor)
        now = decoder.message_counts() if decoder is not None else {}
        if self._is_closed:
            now["unfinished"] = now.pop("messages_waiting", 0)
        now |= {"lost": self._lost[sensor], "earlier": self._missed_before_start[sensor]}
        past = self._past.get(sensor, {})
        return {name: past.get(name, 0) + now.get(name, 0) for name in MESSAGE_COUNTERS}

    def close(self) -> None:
        """Destroy the subscriptions. Messages that arrive later are not used."""
        self._is_closed = True
        for sensor in list(self._subscriptions):
            self._unsubscribe(sensor)

    def _unsubscribe(self, sensor: str) -> None:
        for subscription in self._subscriptions.pop(sensor, []):
            self._node.destroy_subscription(subscription)

    def discover_topics(self) -> None:
        """Subscribe to topics whose message type is known now. Call it repeatedly: publishers may appear later."""
        for sensor, options in self._options.items():
            if sensor in self._topics:
                continue
            if type_name := options.message_type or select_message_type(options.modality, self._published(options)):
                self._subscribe_sensor(options, type_name)
        self._shorten_queues()

    def follow_types(self) -> None:
        """Subscribe again to topics whose messages have another type now, as of another driver, or that had none that
        can be read. Call it about once a second."""
        for sensor, options in self._options.items():
            if sensor not in self._topics or options.message_type:
                continue
            published, current = self._published(options), self._types[sensor]
            type_name = select_message_type(options.modality, published)
            if not type_name or type_name == current or (current in published and self._subscriptions.get(sensor)):
                continue
            self._node.get_logger().info(
                f"{sensor}: messages have the type {printable(type_name)} now: subscribed again",
                throttle_duration_sec=TYPE_LOG_PERIOD,
            )
            self._unsubscribe(sensor)
            counts = self.message_counts(sensor)
            counts["unfinished"] += counts.pop("messages_waiting")
            self._past[sensor] = counts
            self._decoders.pop(sensor, None)
            del self._lost[sensor], self._missed_before_start[sensor]
            self._subscribe_sensor(options, type_name)

    def _published(self, options: SensorOptions) -> list[str]:
        """The type of each publisher of a sensor's topic."""
        name = self._node.resolve_topic_name(options.topic_name)
        return [info.topic_type for info in self._node.get_publishers_info_by_topic(name)]

    def _shorten_queues(self) -> None:
        """Subscribe again to images that are too large for the depth of their queue."""
        for sensor, (subscription, depth, subscribe) in self._image_queues.items():
            if self._queue_bytes is None or depth * self._largest[sensor] <= self._queue_bytes:
                continue
            shorter = max(MIN_QUEUE_DEPTH, self._queue_bytes // self._largest[sensor])
            if shorter < depth:
                self._node.destroy_subscription(subscription)
                self._subscriptions[sensor].remove(subscription)
                self._image_queues[sensor] = subscribe(shorter), shorter, subscribe

    def _subscribe_sensor(self, options: SensorOptions, type_name: str) -> None:
        sensor, topic = options.sensor, options.topic_name
        if options.transport != RAW_TRANSPORT:  # remapping rules use the topic name without its suffix
            topic = data_topic(options, self._node.resolve_topic_name(topic))
        name = self._node.resolve_topic_name(topic)
        self._topics, self._types[sensor] = {**self._topics, sensor: name}, type_name
        try:
            decoder = self._decoders[sensor] = SampleDecoder(options, type_name, name)
            message_type(type_name)
        except (EncodingError, ModuleNotFoundError) as error:
            self._on_error(sensor, f"topic '{name}': {error}")
            return

        def on_message(message: Any) -> None:
            if options.modality in IMAGE_MODALITIES:
                self._largest[sensor] = max(self._largest[sensor], len(message.data))
            try:
                for sample in decoder.decode(message, self._node.get_clock().now().nanoseconds):
                    self._on_sample(sample)
            except Exception as error:
                report(error)

        def on_info(message: Any) -> None:
            if self._is_closed:
                return
            try:
                if decoder.apply_side_message(message, self._node.get_clock().now().nanoseconds):
                    self._on_calibration(sensor, decoder.calibration)
            except Exception as error:
                report(error)

        def report(error: Exception) -> None:
            """No error of a message may end the node; an `EncodingError` says what to do."""
            text = str(error) if isinstance(error, EncodingError) else f"a message is undecodable: {error_text(error)}"
            self._on_error(sensor, f"topic '{name}': {text}")

        self._subscribe(options, type_name, topic, on_message)
        for side in decoder.side_topics(options.topic_name):
            # Some drivers publish this topic once (transient local), others repeatedly (volatile). A volatile
            # subscription misses earlier messages, and a transient-local one does not match a volatile publisher.
            usual = sensor_data_qos(SERIES_QUEUE_DEPTH) if side.type == IMU_TYPE else SENSOR_DATA_QOS
            for qos in (LATCHED_QOS, usual) if side.latched else (usual,):
                self._subscribe_info(sensor, side.type, side.name, qos, on_info)

    def _subscribe(self, options: SensorOptions, type_name: str, topic: str, callback: Callable[[Any], None]) -> None:
        sensor = options.sensor
        name = self._node.resolve_topic_name(topic)

        def known() -> int:  # those that arrived before the node was inactive are among them
            counts = self.message_counts(sensor)
            return counts["arrived"] + counts["lost"] + counts["earlier"]

        count_publishers = self._node.count_publishers
        losses = self._losses.setdefault(sensor, TopicLosses(lambda: count_publishers(name)))
        losses.resume(known)

        def on_message(message: Any, number: int | None, publisher: bytes | None) -> None:
            if self._is_closed:
                return  # it arrived before
            earlier, lost = losses.missing_before(number, publisher)
            self._missed_before_start[sensor] += earlier
            self._lost[sensor] += lost
            callback(message)

        def on_lost(count: int) -> None:
            self._lost[sensor] += losses.missing_as_reported(count)

        def subscribe(depth: int) -> Subscription[Any]:
            subscription = numbered_subscription(
                self._node, message_type(type_name), topic, on_message, on_lost, sensor_data_qos(depth)
            )
            self._subscriptions[sensor].append(subscription)
            return subscription

        if options.modality in IMAGE_MODALITIES:
            self._image_queues[sensor] = subscribe(IMAGE_QUEUE_DEPTH), IMAGE_QUEUE_DEPTH, subscribe
        else:
            subscribe(SERIES_QUEUE_DEPTH)

    def _subscribe_info(
        self, sensor: str, type_name: str, topic: str, qos: Any, callback: Callable[[Any], None]
    ) -> None:
        # There is a subscription for each of several QoS, so one that does not match needs no warning. Without event
        # callbacks, the executor spends no time on these events.
        no_callbacks = SubscriptionEventCallbacks(use_default_callbacks=False)
        self._subscriptions[sensor].append(
            self._node.create_subscription(message_type(type_name), topic, callback, qos, event_callbacks=no_callbacks)
        )
