"""Which topic of a recording is which sensor: by its type, its first messages, its counts, and then by its name."""

from sensebind.fusion.io.topic_selection.selection import (
    Candidate,
    TopicChoice,
    TopicSelection,
    modality_of_topic,
)

__all__ = ["Candidate", "TopicChoice", "TopicSelection", "modality_of_topic"]
