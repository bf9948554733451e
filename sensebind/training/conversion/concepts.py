"""Writes the sentence vectors of the starter space's concepts and of its motion phrases.

    python -m sensebind.training.conversion.concepts

Run it after a change of `motion_phrases.txt` or one of the files `…_classes.txt` in `fusion/models/starter`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from sensebind.evaluation.real.robot_noise import robot_noise
from sensebind.evaluation.real.sound_streams import read_clips
from sensebind.fusion.core.atomic import write_bytes
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.models.starter import concepts, minilm, motion_competence, yamnet
from sensebind.fusion.models.starter.weight_files import AUDIO_WEIGHTS, TEXT_WEIGHTS, find_weight_file
from sensebind.fusion.preprocess.audio import SAMPLE_RATE

TYPICAL_SNR = 10.0  # dB, of the sounds that are typical
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


@torch.inference_mode()
def typical_log_probabilities(folder: Path) -> Tensor:
    """(521,): the mean log probabilities of the clips of ESC-10's fold 1 (CC BY 3.0, K. J. Piczak) at 10 dB in robot
    noise, in windows of 1 s."""
    clips = read_clips(folder, "1")
    network = yamnet.load(find_weight_file(AUDIO_WEIGHTS))
    random, found = np.random.default_rng(0), []
    for clip in clips:
        noise = robot_noise(random, max(clip.seconds, 1.0))
        level = float(np.sqrt(np.mean(np.square(noise)))) * 10 ** (TYPICAL_SNR / 20)
        noise[: len(clip.samples)] += clip.samples * (level / clip.level)
        whole = len(noise) // SAMPLE_RATE * SAMPLE_RATE
        windows = torch.from_numpy(noise[:whole].astype(np.float32)).reshape(-1, SAMPLE_RATE)
        probabilities = network.of_sound(windows).logits.sigmoid().mean(dim=(0, 1))
        found.append((probabilities + concepts.PROBABILITY_FLOOR).log())
    return torch.stack(found).mean(dim=0)


def write(files: concepts.ConceptFiles, entries: dict[str, Tensor]) -> None:
    """Write a file of sentence vectors in half precision."""
    half = {name: tensor.half().contiguous() for name, tensor in entries.items()}
    write_bytes(files.vectors, safetensors.torch.save(half))
    print(f"{files.vectors}: {files.vectors.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--esc10", type=Path, default=Path("../shared/evaluation/esc10"), metavar="DIR",
        help="folder of ESC-10, whose fold 1 gives the typical sound (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args()
    try:
        typical = typical_log_probabilities(args.esc10)  # first: it needs the folder
    except SensebindError as error:
        sys.exit(f"error: {error}; --esc10 must be the folder of ESC-10")
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
        sounds["typical_log_probabilities"] = typical
        write(concepts.SOUND_FILES, sounds)


if __name__ == "__main__":
    main()
