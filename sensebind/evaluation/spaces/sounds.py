"""Accuracy of sounds by name: recordings are assigned to the class whose phrase is nearest in the space.

No class is trained. The sets are read from a folder of evaluation data. For comparison: YAMNet's own probabilities of
AudioSet's classes, those that are listed here for a class of the set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sensebind.evaluation.tables import read_table
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import AUDIO, SECOND, Sample, Sound
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.spokes.bound_space import BoundSpace
from sensebind.fusion.models.starter.concepts import sound_class_names
from sensebind.fusion.models.starter.space import StarterSpace
from sensebind.fusion.preprocess.audio import SAMPLE_RATE
from sensebind.replay.progress import track

# Class → three paraphrases, and the names of AudioSet's classes that fit it.
ESC10 = {
    "Dog bark": (("a barking dog", "a dog barks", "woof woof"), ("Dog", "Bark")),
    "Rain": (("rain falling", "it is raining", "raindrops on the ground"), ("Rain", "Raindrop", "Rain on surface")),
    "Sea waves": (("waves at the beach", "ocean surf", "waves breaking on the shore"), ("Ocean", "Waves, surf")),
    "Baby cry": (("a crying baby", "an infant is crying", "a newborn wailing"), ("Baby cry, infant cry",)),
    "Clock tick": (("a ticking clock", "the tick tock of a clock", "a watch ticking"), ("Tick-tock", "Tick")),
    "Person sneeze": (("someone sneezing", "a sneeze", "a person sneezes"), ("Sneeze",)),
    "Helicopter": (("a helicopter flying", "helicopter rotor blades", "a chopper overhead"), ("Helicopter",)),
    "Chainsaw": (("a chainsaw running", "cutting wood with a chainsaw", "a motor saw"), ("Chainsaw",)),
    "Rooster": (("a rooster crowing", "cock-a-doodle-doo", "a cockerel"),
                ("Chicken, rooster", "Crowing, cock-a-doodle-doo")),
    "Fire crackling": (("a crackling fire", "a campfire", "burning wood crackles"), ("Fire", "Crackle")),
}  # fmt: skip
URBANSOUND8K = {  # folder → names of AudioSet's classes
    "air_conditioner": ("Air conditioning",),
    "car_horn": ("Vehicle horn, car horn, honking",),
    "children_playing": ("Children playing",),
    "dog_bark": ("Dog", "Bark"),
    "drilling": ("Drill",),
    "engine_idling": ("Idling",),
    "gun_shot": ("Gunshot, gunfire",),
    "jackhammer": ("Jackhammer",),
    "siren": ("Siren",),
    "street_music": ("Music",),
}
OFFICE = {  # folder → phrase, and names of AudioSet's classes
    "clearthroat": ("clearing the throat", ("Throat clearing",)),
    "cough": ("cough", ("Cough",)),
    "doorslam": ("door slam", ("Slam",)),
    "drawer": ("drawer", ("Drawer open or close",)),
    "keyboard": ("keyboard", ("Computer keyboard", "Typing")),
    "keysDrop": ("keys", ("Keys jangling",)),
    "knock": ("knock", ("Knock",)),
    "laughter": ("laughter", ("Laughter",)),
    "pageturn": ("page turn", ("Writing",)),
    "phone": ("phone", ("Telephone", "Telephone bell ringing", "Ringtone")),
    "speech": ("speech", ("Speech",)),
}


class SoundDataError(SensebindError):
    """Sounds are missing or cannot be read. The message names the folder or file."""


@dataclass(frozen=True, slots=True)
class NamedSound:
    """A sound, float32 (N,) at 16 kHz, its class, and a group that accuracies are also given for, or ""."""

    samples: npt.NDArray[np.float32]
    name: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class SoundSet:
    """Sounds, and one phrase for each of their classes. `audioset`: class → names of AudioSet's classes, for
    comparison; empty without a comparison."""

    title: str
    sounds: Sequence[NamedSound]
    phrases: Mapping[str, str]
    audioset: Mapping[str, Sequence[str]]


def read_esc10(folder: Path, folds: str = "123") -> list[NamedSound]:
    """ESC-10's clips of these folds (the digit that a file name begins with). The class is "Dog bark", for example.
    Raises `SoundDataError` if there are none."""
    result = [
        NamedSound(read_sound(path), path.parent.name.partition(" - ")[2])
        for path in sorted(folder.glob("* - */*.ogg"))
        if path.name[0] in folds
    ]
    if not result:
        raise SoundDataError(f"'{folder}' has no clips of ESC-10: it must have folders like '001 - Dog bark'")
    return result


def read_sound(path: Path) -> npt.NDArray[np.float32]:
    """A sound file → mono float32 at 16 kHz. Raises `SoundDataError`."""
    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise SoundDataError(f"'{path}' is not a sound that can be read: {error}") from error
    return np.asarray(soxr.resample(data.mean(axis=1), rate, SAMPLE_RATE), np.float32)


def read_sets(folder: Path) -> list[SoundSet]:
    """The sets of a folder of evaluation data; sets that are missing are left out. Raises `SoundDataError` if all
    are."""
    sets = []
    audioset = {name: names for name, (_, names) in ESC10.items()}
    for title, folds in (("ESC-10 fold 1 (the map was chosen on it)", "1"), ("ESC-10 folds 2 and 3", "23")):
        if any((folder / "esc10").glob(f"* - */[{folds}]*.ogg")):
            sounds = read_esc10(folder / "esc10", folds)
            sets.append(SoundSet(f"{title}, by name", sounds, {name: name for name in ESC10}, audioset))
            for number in range(3):
                phrases = {name: own[number] for name, (own, _) in ESC10.items()}
                sets.append(SoundSet(f"{title}, paraphrase {number + 1}", sounds, phrases, {}))
    if sounds := _read_folders(folder / "urbansound8k_subset"):
        phrases = {name: name.replace("_", " ") for name in URBANSOUND8K}
        sets.append(SoundSet("UrbanSound8K, subset", sounds, phrases, URBANSOUND8K))
    office = {name: phrase for name, (phrase, _) in OFFICE.items()}
    names = {name: own for name, (_, own) in OFFICE.items()}
    if sounds := _read_folders(folder / "dcase2016_office", "noisy"):
        sets.append(SoundSet("office sounds", sounds, office, names))
    if sounds := _read_groups(folder / "dcase2016_office", "noisy.csv", "event_to_background_db", " dB"):
        sets.append(SoundSet("office sounds in noise", sounds, office, names))
    booth = folder / "booth_sounds"
    if sounds := _read_groups(booth, "labels.csv", "loudness", ""):
        table = read_table(booth / "labels.csv", ("file", "words"))
        words = {row["file"].split("/")[0]: row["words"] for row in table}
        sets.append(SoundSet("everyday sounds from a booth", sounds, words, {}))
    if not sets:
        raise SoundDataError(
            f"'{folder}' has none of esc10, urbansound8k_subset, dcase2016_office, booth_sounds: "
            "--shared is the folder that contains 'evaluation'"
        )
    return sets


def report_lines(space: Space, sets: Sequence[SoundSet]) -> list[str]:
    """A Markdown table: accuracy by phrase, by AudioSet's names (starter space only), and chance. Raises
    `SoundDataError` if the space has no audio encoder."""
    if AUDIO not in space.modalities:
        raise SoundDataError(f"space {space.id} has no encoder for audio: choose another --space")
    hub = space.hub if isinstance(space, BoundSpace) else space
    lines = ["| sounds | by phrase | by AudioSet's names | chance | clips |", "| --- | --- | --- | --- | --- |"]
    vectors: dict[int, Tensor] = {}  # sets with the same sounds share their vectors
    for one in sets:
        if id(one.sounds) not in vectors:
            vectors[id(one.sounds)] = torch.stack(
                [clip_vector(space, sound.samples) for sound in track(one.sounds, one.title, "sounds")]
            )
        right = _correct_by_phrase(space, one, vectors[id(one.sounds)])
        named = _correct_by_audioset(hub, one) if one.audioset and isinstance(hub, StarterSpace) else None
        groups = sorted({sound.group for sound in one.sounds})
        for group in ("", *groups) if len(groups) > 1 else ("",):
            rows = [not group or sound.group == group for sound in one.sounds]
            title = f"{one.title}: {group}" if group else one.title
            baseline = "–" if named is None else f"{named[rows].mean():.3f}"
            lines.append(
                f"| {title} | {right[rows].mean():.3f} | {baseline} | {1 / len(one.phrases):.3f} | {sum(rows)} |"
            )
    return lines


def comparison_lines(spaces: Mapping[str, Space], sets: Sequence[SoundSet]) -> list[str]:
    """A Markdown table of several spaces by their titles: accuracy by phrase in each, and chance."""
    titles = ["sounds", *spaces, "chance", "clips"]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    vectors: dict[tuple[str, int], Tensor] = {}  # sets with the same sounds share their vectors
    for one in sets:
        shares = []
        for title, space in spaces.items():
            key = title, id(one.sounds)
            if key not in vectors:
                vectors[key] = torch.stack(
                    [clip_vector(space, sound.samples) for sound in track(one.sounds, one.title, "sounds")]
                )
            shares.append(_correct_by_phrase(space, one, vectors[key]).mean())
        cells = [*(f"{share:.3f}" for share in (*shares, 1 / len(one.phrases))), str(len(one.sounds))]
        lines.append(f"| {' | '.join([one.title, *cells])} |")
    return lines


def clip_vector(space: Space, samples: npt.NDArray[np.float32]) -> Tensor:
    """The mean, of unit length, of the vectors of a sound's windows, (D,). Windows are as long as in the space's
    training, and each begins half a window after the one before. What remains after the last one, less than half a
    window, is left out. A shorter sound is one window of its own length."""
    length = round(space.trained_windows[AUDIO].length * SAMPLE_RATE)
    starts = range(0, max(len(samples) - length, 0) + 1, length // 2)
    pieces = [samples[start : start + length] for start in starts]
    tensors = [space.tensor(_window(piece)) for piece in pieces]
    return normalize(space.embed(AUDIO, torch.stack(tensors)).mean(dim=0), dim=0)


def _window(samples: npt.NDArray[np.float32]) -> Window:
    end = len(samples) * SECOND // SAMPLE_RATE
    return Window(AUDIO, 0, end, 1.0, (Sample(AUDIO, 0, Sound(samples[:, None], SAMPLE_RATE)),))


def _correct_by_phrase(space: Space, sounds: SoundSet, vectors: Tensor) -> npt.NDArray[np.bool_]:
    """For each sound, whether the phrase of its class is the nearest one, (N,)."""
    names = list(sounds.phrases)
    best = (vectors @ space.embed_text(list(sounds.phrases.values())).T).argmax(dim=1)
    return np.array([names[int(i)] == sound.name for i, sound in zip(best, sounds.sounds, strict=True)])


@torch.inference_mode()
def _correct_by_audioset(space: StarterSpace, sounds: SoundSet) -> npt.NDArray[np.bool_]:
    """For each sound, whether YAMNet's most likely class, among those of `audioset`, is of its own class, (N,)."""
    columns = [[sound_class_names().index(own) for own in sounds.audioset[name]] for name in sounds.phrases]
    names, network, right = list(sounds.phrases), space.audio_encoder(), []
    for sound in sounds.sounds:
        output = network.of_sound(torch.from_numpy(sound.samples)[None].to(space.device))
        scores = output.logits[0].sigmoid().mean(dim=0)
        right.append(names[int(np.argmax([float(scores[own].max()) for own in columns]))] == sound.name)
    return np.array(right)


def _read_folders(folder: Path, without: str = "") -> list[NamedSound]:
    """All sounds of a folder with one folder for each class, except the folder `without`."""
    files = sorted(path for path in folder.glob("*/*") if path.is_file() and path.parent.name != without)
    return [NamedSound(read_sound(path), path.parent.name) for path in files]


def _read_groups(folder: Path, table: str, column: str, unit: str) -> list[NamedSound]:
    """The sounds of a CSV table with the column `file`, in groups by the value of `column`; none if there is no table.
    Raises `TableError`."""
    if not (folder / table).is_file():
        return []
    return [
        NamedSound(read_sound(folder / row["file"]), Path(row["file"]).parent.name, row[column] + unit)
        for row in read_table(folder / table, ("file", column))
    ]
