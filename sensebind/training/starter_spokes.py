"""How the starter space's own spokes were made: `python -m sensebind.training.starter_spokes MODALITY`.

Each recipe uses simulated or permissively licensed data alone and runs on two CPU cores.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from sensebind.fusion.core.encodings import ThermalImage
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, TEXT, THERMAL, VISION
from sensebind.fusion.core.space import Hub
from sensebind.fusion.models import registry
from sensebind.fusion.models.spokes import spoke as spokes
from sensebind.fusion.models.spokes.spoke import Spoke, SpokeSpec, load_audio_features
from sensebind.fusion.models.starter.space import SPOKE_FOLDER
from sensebind.fusion.preprocess import depth as depth_frontend
from sensebind.fusion.preprocess import thermal as thermal_frontend
from sensebind.fusion.preprocess.image import squash_to_tensor
from sensebind.simulation import rooms
from sensebind.simulation.captioned_sounds import QUIET_CAPTIONS, robot_noise
from sensebind.simulation.catalogue import CATALOGUE
from sensebind.simulation.recorder import IMU_RATE, SimulatedScenario, render_cameras, synthesize_audio
from sensebind.simulation.survey import tour
from sensebind.simulation.synthetic_sounds import synthetic_sounds
from sensebind.training.data import simulated_imu
from sensebind.training.data.activities import activity_pairs, read_activities
from sensebind.training.data.pairs import Pairs, concatenate_pairs, split
from sensebind.training.data.sounds import Floats, audio_pairs, noise_pairs, read_esc10
from sensebind.training.spoke_training import EpochResult, Settings, train_spoke

FIRST_SURVEY_SEED = 100  # seed of the first tour of those that are not recorded
NOISE_WINDOW_COUNT = 1200  # windows with nothing but a robot's noise
VIEW_TIMES = (1.2, 2.5, 3.8)  # s from the start of a station
VIEWS_PER_ROOM = 6  # of a room


def room_pairs(modality: str, hub: Hub, count: int, seed: int = 0) -> Pairs:
    """Pictures of `count` random rooms by a depth or thermal camera, beside the hub's vectors of the colour camera's;
    a block is a room."""
    trunk = hub.image_encoder()
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    for number in tqdm(range(count), desc="rooms", unit="room", disable=None):
        noise = np.random.default_rng([seed, number])
        views = rooms.render_walk(rooms.random_room(noise), noise, VIEWS_PER_ROOM)
        inputs += [squash_to_tensor(_image_levels(modality, view, noise)) for view in views]
        with torch.inference_mode():
            colours = torch.stack([squash_to_tensor(view.colour.astype(np.float32) / 255) for view in views])
            targets.append(trunk(colours))
    rows = torch.arange(count * VIEWS_PER_ROOM)
    return Pairs(
        torch.stack(inputs),
        torch.cat(targets).clone(),
        rows,
        rows // VIEWS_PER_ROOM,
        torch.stack([rows, rows + 1], dim=1),
        torch.zeros_like(rows),
        torch.empty(0),
    )


def _image_levels(modality: str, view: rooms.RenderedView, noise: np.random.Generator) -> npt.NDArray[np.float32]:
    if modality == DEPTH:
        return depth_frontend.log_depth_image(view.depth)
    kelvin = view.kelvin + noise.normal(0, noise.uniform(0.02, 0.2), view.kelvin.shape)
    return thermal_frontend.stretch_contrast(ThermalImage(kelvin.astype(np.float32), True))


def train_image_spoke(
    modality: str, hub: Hub, count: int, epochs: int, checkpoint: Path | None
) -> tuple[Spoke, EpochResult]:
    """Depth or thermal: LoRA on a copy of the image encoder, from rooms."""
    torch.manual_seed(0)
    spoke = Spoke(SpokeSpec(modality, "image", hub.id, hub.dimension, method="lora", rank=8), hub)
    training, held = split(room_pairs(modality, hub, count), share=0.1)
    settings = Settings(
        epochs=epochs, batch=60, chunk=60, learning_rate=2e-3, temperature=1 / 15, bank=0, views=1, by_block=True,
        inverted=0.15 if modality == THERMAL else 0.0, patience=epochs,
    )  # fmt: skip
    return spoke, train_spoke(spoke, hub, training, held, settings, on_epoch=print_epoch, checkpoint=checkpoint)


def station_image_vectors(hub: Hub, seed: int) -> Tensor:
    """What the hub says of the colour camera's view at three moments of each station of a tour: (stations, 3, D)."""
    trunk, plan, noise = hub.image_encoder(), tour(seed), np.random.default_rng([seed, 18])
    vectors = []
    for happening in plan.events:
        moments = happening.onset + np.array(VIEW_TIMES) + noise.uniform(-0.3, 0.3, len(VIEW_TIMES))
        colours = [render_cameras(plan, float(t), noise).colour.astype(np.float32) / 255 for t in moments]
        with torch.inference_mode():
            vectors.append(trunk(torch.stack([squash_to_tensor(colour) for colour in colours])).clone())
    return torch.stack(vectors)


def motor_noise(seed: int) -> Floats:
    """30 s of a simulated robot's own noise, with turns between one to three places: float32 at 16 kHz."""
    noise = np.random.default_rng([seed, 41])
    starts = [0.0, *sorted(noise.uniform(4, 26, int(noise.integers(0, 3))).tolist())]
    plan = SimulatedScenario(30.0, tuple((start, "carpet") for start in starts), (), seed)
    return synthesize_audio(plan).astype(np.float32) / np.float32(32767)


def train_audio_spoke(hub: Hub, args: argparse.Namespace) -> tuple[Spoke, EpochResult, Pairs]:
    """A small network on the frozen trunk, from captioned sounds, from what the things that make them look like, and
    from a robot's noise alone."""
    torch.manual_seed(0)
    spec = SpokeSpec(AUDIO, "sound", hub.id, hub.dimension, length=2.0, frames=0)
    features = torch.inference_mode()(load_audio_features())
    own = [motor_noise(seed) for seed in range(40)]

    def describe(pieces: Tensor) -> Tensor:
        return torch.cat([features(part).clone() for part in pieces.split(16)])

    def disturb(noise: np.random.Generator, count: int) -> Floats:
        if noise.random() < 0.4:
            return robot_noise(noise, count)
        wave = own[int(noise.integers(len(own)))]
        first = int(noise.integers(len(wave) - count))
        return wave[first : first + count]

    tours = tqdm(range(FIRST_SURVEY_SEED, FIRST_SURVEY_SEED + args.felt), desc="sights", unit="tour", disable=None)
    looks = simulated_imu.prototypes({seed: station_image_vectors(hub, seed) for seed in tours})
    by_sound = {CATALOGUE[kind].sound_name: look for kind, look in looks.items()}
    clips = read_esc10(args.esc10, "123", args.without or ())
    made = [
        item
        for item in synthetic_sounds(8)
        if item.captions != QUIET_CAPTIONS and item.captions[0] not in (args.without or ())
    ]
    pairs = concatenate_pairs(
        [
            audio_pairs(clips, hub, crops_per_sound=24, extract_features=describe, noise_source=disturb),
            audio_pairs(
                made,
                hub,
                seed=1,
                crops_per_sound=4,
                extract_features=describe,
                noise_source=disturb,
                image_prototypes=by_sound,
            ),
            noise_pairs(hub, NOISE_WINDOW_COUNT, disturb, describe),
        ],
        share_groups=True,
    )
    training, held = split(pairs, share=0.15)
    return Spoke(spec, hub), _train_with_held_out(spec, hub, pairs, training, held, args), pairs


def train_imu_spoke(hub: Hub, args: argparse.Namespace) -> tuple[Spoke, EpochResult]:
    """A small network of its own: from what was seen when the robot felt something, from words for it and for feeling
    nothing, and from captioned activities."""
    torch.manual_seed(0)
    spec = SpokeSpec(
        IMU, "series", hub.id, hub.dimension, length=simulated_imu.WINDOW_LENGTH, frames=0, rate=IMU_RATE, channels=6
    )  # fmt: skip
    tours = range(FIRST_SURVEY_SEED, FIRST_SURVEY_SEED + args.felt)
    seen = simulated_imu.prototypes(
        {seed: station_image_vectors(hub, seed) for seed in tqdm(tours, desc="sights", disable=None)}
    )
    felt = simulated_imu.imu_pairs(hub, range(2 * args.felt), tours, range(args.felt), seen)
    done = activity_pairs(read_activities(), hub, training=True)
    spoke = Spoke(spec, hub)
    training, held = split(concatenate_pairs([felt, done], share_groups=True), share=0.06)
    settings = Settings(
        epochs=args.epochs or 4, batch=192, chunk=192, learning_rate=1e-3, weight_decay=1e-2, temperature=0.1, bank=0,
        patience=100, seed=1,
    )  # fmt: skip
    return spoke, train_spoke(spoke, hub, training, held, settings, on_epoch=print_epoch)


def _train_with_held_out(
    spec: SpokeSpec, hub: Hub, pairs: Pairs, training: Pairs, held: Pairs, args: argparse.Namespace
) -> EpochResult:
    """How long to train, told by what is held out."""
    settings = Settings(
        epochs=args.epochs or 12, batch=192, chunk=192, learning_rate=1e-3, weight_decay=1e-2, temperature=0.1, bank=0,
        patience=6, seed=1,
    )  # fmt: skip
    return train_spoke(Spoke(spec, hub), hub, training, held, settings, on_epoch=print_epoch)


def train_on_all_pairs(spoke: Spoke, hub: Hub, pairs: Pairs, epochs: int) -> None:
    """Train on all pairs for as long as was best with some held out."""
    settings = Settings(
        epochs=max(epochs, 2), batch=192, chunk=192, learning_rate=1e-3, weight_decay=1e-2, temperature=0.1, bank=0,
        patience=10**6, keep_last=True, seed=1,
    )  # fmt: skip
    train_spoke(spoke, hub, pairs, pairs.select(torch.arange(0, len(pairs), 41)), settings)


def print_epoch(epoch: EpochResult) -> None:
    """Print how an epoch went."""
    print(
        f"epoch {epoch.number}: loss {epoch.loss:.3f}, held-out R@1 {epoch.recall:.3f} "
        f"(best {epoch.best:.3f}, chance {epoch.chance:.3f})", flush=True,
    )  # fmt: skip


@dataclass(frozen=True)
class TrainingDataCard:
    """What a card says of how a spoke was made."""

    data: str
    licence: str
    anchors: tuple[str, ...] = (VISION,)  # the hub's senses that it was bound to


ROOMS_DATA = "random rooms of sensebind/simulation/rooms.py, with patterns cut from scikit-image's photographs"
TRAINING_DATA = {
    AUDIO: TrainingDataCard(
        "ESC-10 (K. J. Piczak), folds 1 to 3, with text; imitations, with text and the looks of things on simulated "
        "tours; a robot's noise, with text",
        "CC BY 3.0",
        (TEXT, VISION),
    ),
    IMU: TrainingDataCard(
        "simulated robots, with text and vision; seglearn's shoulder exercises of subjects 1 to 7 and half of aeon's "
        "BasicMotions, with text",
        "BSD-3-Clause packages",
        (VISION, TEXT),
    ),
    DEPTH: TrainingDataCard(ROOMS_DATA, "mostly CC0"),
    THERMAL: TrainingDataCard(ROOMS_DATA, "mostly CC0"),
}


def main() -> None:
    """Train one spoke and write it to where the starter space looks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modality", choices=sorted(TRAINING_DATA))
    parser.add_argument("--rooms", type=int, default=600, help="random rooms to train on (default: %(default)s)")
    parser.add_argument("--esc10", type=Path, default=Path("../shared/evaluation/esc10"), metavar="DIR",
                        help="folder of ESC-10, of which folds 1 to 3 are used (default: %(default)s)")  # fmt: skip
    parser.add_argument("--felt", type=int, default=30,
                        help="tours whose looks sound and motion are bound to (default: %(default)s)")  # fmt: skip
    parser.add_argument("--without", action="append", metavar="CLASS", help="class of ESC-10 to leave out")
    parser.add_argument("--epochs", type=int, help="at most (default: 8 for pictures, 12 for sound, 4 for motion)")
    parser.add_argument("--checkpoint", type=Path, help="file to go on from")
    parser.add_argument("-o", "--out", type=Path, help="spoke file (default: the one that is shipped)")
    args = parser.parse_args()
    hub = registry.load_without_spokes("starter")
    if args.modality == AUDIO:
        spoke, best, pairs = train_audio_spoke(hub, args)  # type: ignore[arg-type]
        train_on_all_pairs(spoke, hub, pairs, best.number)  # type: ignore[arg-type]
    elif args.modality == IMU:
        spoke, best = train_imu_spoke(hub, args)  # type: ignore[arg-type]
    else:
        spoke, best = train_image_spoke(args.modality, hub, args.rooms, args.epochs or 8, args.checkpoint)  # type: ignore[arg-type]
    recipe = TRAINING_DATA[args.modality]
    about = {
        "data": recipe.data, "licence": recipe.licence, "anchors": list(recipe.anchors),
        "held_out_recall": round(best.recall, 3),
    }  # fmt: skip
    spoke.spec = SpokeSpec(**{**vars(spoke.spec), "about": about})
    out = args.out or SPOKE_FOLDER / f"{args.modality}.safetensors"
    spokes.save(spoke, out)
    print(f"{out}: held-out R@1 {best.recall:.3f}, chance {best.chance:.3f}")


if __name__ == "__main__":
    main()
