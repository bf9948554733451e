"""Print what the bridge publishes, without ROS: `python3 zmq_client.py [ADDRESS]`. Needs pyzmq, msgpack and NumPy."""

import sys

import msgpack
import numpy as np
import zmq

socket = zmq.Context().socket(zmq.SUB)
socket.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:7447")
socket.subscribe("")  # all topics; or "event", "embedding/", "robot1/", "robot1/event"
expected: dict[bytes, int] = {}  # topic → sequence number of its next message
while True:
    topic, payload = socket.recv_multipart()
    message = msgpack.unpackb(payload)
    lost = message["sequence"] - expected.get(topic, message["sequence"])
    expected[topic] = message["sequence"] + 1
    if lost > 0:
        print(f"{topic.decode()}: {lost} messages lost", flush=True)
    if topic.endswith(b"event"):
        print(
            f"{message.get('robot', '')} {message['phase']} {message['label']} {message['score']:.2f}".lstrip(),
            flush=True,
        )
    else:
        vector = np.frombuffer(message["vector"], "<f4")
        print(f"{topic.decode()} at {message['stamp']} ns: {len(vector)} numbers", flush=True)
