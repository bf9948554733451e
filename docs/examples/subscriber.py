"""Print events and the fused embedding of a robot: `python3 subscriber.py` in a sourced ROS 2 workspace."""

from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from sensebind_msgs.msg import CrossModalEvent, Embedding


class Subscriber(Node):
    def __init__(self) -> None:
        super().__init__("sensebind_subscriber")
        self.create_subscription(CrossModalEvent, "events", self.on_event, 10)
        self.create_subscription(Embedding, "embeddings/fused", self.on_embedding, 10)

    def on_event(self, event: CrossModalEvent) -> None:
        if event.phase == CrossModalEvent.ONSET:
            sensors = [evidence.sensor for evidence in event.evidence if evidence.supports]
            print(f"{event.label}: score {event.score:.2f}, supported by {', '.join(sensors)}", flush=True)

    def on_embedding(self, embedding: Embedding) -> None:
        print(f"{embedding.header.stamp.sec}: {len(embedding.vector)} numbers from {embedding.sources}", flush=True)


rclpy.init()
with suppress(KeyboardInterrupt, ExternalShutdownException):
    rclpy.spin(Subscriber())
