"""Writes the sentence vectors of the starter space's concepts and of its motion phrases.

    python -m sensebind.training.conversion.concepts

Run it after a change of `motion_phrases.txt` or one of the files `…_classes.txt` in `fusion/models/starter`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sensebind.evaluation.spaces.sounds import read_esc10
from sensebind.fusion.models.starter import concepts, minilm, motion_competence, yamnet
from sensebind.fusion.models.starter.weight_files import AUDIO_WEIGHTS, TEXT_WEIGHTS, find_weight_file

# Usual wordings of a prompt. The mean shift of sentence vectors by each is projected out.
IMAGE_TEMPLATES = ("a photo of {}", "a picture of {}", "This is {}.", "There is {} in the scene.")
SOUND_TEMPLATES = ("the sound of {}", "a recording of {}", "{} sound", "This is {}.", "I hear {}.")


def concept_vectors(
    encoder: minilm.MiniLMTextEncoder, phrases: Sequence[str], templates: Sequence[str]
) -> dict[str, Tensor]:
    """The sentence vectors of N phrases (N, 384), and their mean shift by each of T templates (T, 384)."""
    vectors = encoder(phrases)
    shifts = [(encoder([t.format(p) for p in phrases]) - vectors).mean(dim=0) for t in templates]
    return {"class_vectors": vectors, "template_shifts": torch.stack(shifts)}


def typical_sound(folder: Path) -> Tensor:
    """(521,): the mean concepts of the clips of ESC-10's fold 1 (CC BY 3.0, K. J. Piczak)."""
    network = yamnet.load(find_weight_file(AUDIO_WEIGHTS))
    outputs = [network.of_sound(torch.from_numpy(clip.samples)[None]) for clip in read_esc10(folder, "1")]
    return torch.cat([concepts.concepts_from_sound(out.logits, torch.zeros(1)) for out in outputs]).mean(dim=0)


def write(files: concepts.ConceptFiles, entries: dict[str, Tensor]) -> None:
    """Write a file of sentence vectors in half precision."""
    half = {name: tensor.half().contiguous() for name, tensor in entries.items()}
    files.vectors.write_bytes(safetensors.torch.save(half))
    print(f"{files.vectors}: {files.vectors.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--esc10", type=Path, default=Path("../shared/evaluation/esc10"), metavar="DIR",
        help="folder of ESC-10, whose fold 1 gives the typical sound (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args()
    encoder = minilm.load(find_weight_file(TEXT_WEIGHTS).parent)
    with torch.inference_mode():
        write(concepts.IMAGE_FILES, concept_vectors(encoder, concepts.image_class_phrases(), IMAGE_TEMPLATES))
        objects = [phrase for _, own in concepts.object_classes() for phrase in own]
        write(concepts.OBJECT_FILES, {"class_vectors": encoder(objects)})
        phrases = motion_competence.phrases()
        write(
            motion_competence.PHRASE_FILES,
            {"motion": encoder(phrases.motion), "other": encoder(phrases.other)},
        )
        sounds = concept_vectors(encoder, concepts.sound_class_phrases(), SOUND_TEMPLATES)
        sounds["name_vectors"] = encoder(concepts.sound_class_names())
        write(concepts.SOUND_FILES, {**sounds, "typical_sound": typical_sound(args.esc10)})


if __name__ == "__main__":
    main()
