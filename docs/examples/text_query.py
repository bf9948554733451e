"""Find the moments that are most similar to a phrase in the output bag of a replay:
`python3 text_query.py out/outputs "a person" [SENSOR [SPACE]]`. SPACE is the parameter `space` of the
replay; models of Hugging Face need it. Needs no ROS."""

import sys

import numpy as np

from sensebind import Recording, load_space

bag, phrase, sensor, name = (*sys.argv[1:], *("vision", "")[len(sys.argv) - 3 :])[:4]
with Recording(bag) as recording:
    embeddings = [message for *_, message in recording.messages([f"/embeddings/{sensor}"])]
    start = recording.start / 1e9
if not embeddings:
    sys.exit(f"'{bag}' has no topic /embeddings/{sensor}")
space = load_space(name or embeddings[0].space.partition("@")[0], modalities=["text", embeddings[0].modality])
if space.id != embeddings[0].space:
    sys.exit(f"the recording is of the space {embeddings[0].space}, and {space.id} is installed")
similarities = np.stack([e.vector for e in embeddings]) @ space.embed_text([phrase]).numpy()[0]
for index in np.argsort(-similarities)[:5]:
    stamp = embeddings[index].header.stamp
    print(f"{stamp.sec + stamp.nanosec / 1e9 - start:6.1f} s: similarity {similarities[index]:.3f}")
