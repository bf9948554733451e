"""Detection of open-vocabulary events: a modality matches a prompt of the user.

`detector` scores the labels. `z_scores` compares similarities, `intervals` finds what intervals say.
"""

from sensebind.fusion.events.prompt.detector import (
    CompetenceLookup,
    ObjectLookup,
    PromptDetector,
    full_competence,
    no_objects,
    unrecognisable_text,
)
from sensebind.fusion.events.prompt.intervals import UNKNOWN_LABEL
from sensebind.fusion.events.prompt.options import DEFAULT_BACKGROUND_PHRASES, PromptOptions
from sensebind.fusion.events.prompt.z_scores import background_z_score

__all__ = [
    "DEFAULT_BACKGROUND_PHRASES",
    "UNKNOWN_LABEL",
    "CompetenceLookup",
    "ObjectLookup",
    "PromptDetector",
    "PromptOptions",
    "background_z_score",
    "full_competence",
    "no_objects",
    "unrecognisable_text",
]
