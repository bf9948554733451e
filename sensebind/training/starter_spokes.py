"""Trains the spokes that ship with the starter space: `python -m sensebind.training.starter_spokes MODALITY`.

Each training uses simulated or permissively licensed data only and runs on two CPU cores. With `--restamp`, nothing is
trained: the shipped file of `imu` gets the id of the motion concepts (`fusion/models/starter/motion_concepts.py`). This
is needed after a change of their settings.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sensebind.fusion.core.encodings import ThermalImage
from sensebind.fusion.core.samples import DEPTH, IMU, TEXT, THERMAL, VISION
from sensebind.fusion.core.space import Hub
from sensebind.fusion.models import registry
from sensebind.fusion.models.spokes import spoke as spokes
from sensebind.fusion.models.spokes.spoke import Spoke, SpokeSpec
from sensebind.fusion.models.starter import motion_concepts
from sensebind.fusion.models.starter.space import SPOKE_FOLDER
from sensebind.fusion.preprocess import depth as depth_frontend
from sensebind.fusion.preprocess import thermal as thermal_frontend
from sensebind.fusion.preprocess.image import squash_to_tensor
from sensebind.replay.progress import track
from sensebind.simulation import rooms
from sensebind.simulation.recorder import IMU_RATE, render_cameras
from sensebind.simulation.survey import survey_scenario
from sensebind.training.data import simulated_imu
from sensebind.training.data.activities import activity_pairs, read_activities
from sensebind.training.data.pairs import Pairs, concatenate_pairs, split
from sensebind.training.spoke_training import EpochResult, TrainingOptions, train_spoke

FIRST_SURVEY_SEED = 100  # seed of the first survey that is trained on
VIEW_TIMES = (1.2, 2.5, 3.8)  # s from the start of a station
VIEWS_PER_ROOM = 6


def room_pairs(modality: str, hub: Hub, count: int, seed: int = 0) -> Pairs:
    """Depth or thermal images of `count` random rooms, paired with the hub's vectors of the colour images.

    A block is a room.
    """
    trunk = hub.image_encoder()
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    for number in track(range(count), "rooms", "rooms"):
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
    """A depth or thermal image with sensor noise as levels float32 (H, W) in 0..1."""
    if modality == DEPTH:
        return depth_frontend.log_depth_image(view.depth)
    kelvin = view.kelvin + noise.normal(0, noise.uniform(0.02, 0.2), view.kelvin.shape)
    return thermal_frontend.stretch_contrast(ThermalImage(kelvin.astype(np.float32), True))


def train_image_spoke(
    modality: str, hub: Hub, count: int, epochs: int, checkpoint: Path | None
) -> tuple[Spoke, EpochResult]:
    """Train a depth or thermal spoke on `count` rooms: LoRA on a copy of the image encoder."""
    torch.manual_seed(0)
    spoke = Spoke(SpokeSpec(modality, "image", hub.id, hub.dimension, method="lora", rank=8), hub)
    training, held = split(room_pairs(modality, hub, count), share=0.1)
    settings = TrainingOptions(
        epochs=epochs, batch=60, chunk=60, learning_rate=2e-3, temperature=1 / 15, bank=0, views=1, by_block=True,
        inverted_fraction=0.15 if modality == THERMAL else 0.0, patience=epochs,
    )  # fmt: skip
    return spoke, train_spoke(spoke, hub, training, held, settings, on_epoch=print_epoch, checkpoint=checkpoint)


def station_image_vectors(hub: Hub, seed: int) -> Tensor:
    """The hub's vectors of the colour images at three times in each station of a survey, (stations, 3, D)."""
    trunk, scenario, noise = hub.image_encoder(), survey_scenario(seed), np.random.default_rng([seed, 18])
    vectors = []
    for event in scenario.events:
        times = event.onset + np.array(VIEW_TIMES) + noise.uniform(-0.3, 0.3, len(VIEW_TIMES))
        colours = [render_cameras(scenario, float(t), noise).colour.astype(np.float32) / 255 for t in times]
        with torch.inference_mode():
            vectors.append(trunk(torch.stack([squash_to_tensor(colour) for colour in colours])).clone())
    return torch.stack(vectors)


def image_prototypes(hub: Hub, survey_seeds: range) -> dict[str, Tensor]:
    """Kind → image prototype (D,) from the surveys with these seeds."""
    seeds = track(survey_seeds, "images of surveys", "surveys")
    return simulated_imu.prototypes({seed: station_image_vectors(hub, seed) for seed in seeds})


def train_imu_spoke(hub: Hub, args: argparse.Namespace) -> tuple[Spoke, EpochResult]:
    """Train the IMU spoke, a small network of its own.

    The pairs are windows of simulated robots with text or image prototypes, and activities of people with text.
    """
    torch.manual_seed(0)
    spec = SpokeSpec(
        IMU, "series", hub.id, hub.dimension, length=simulated_imu.WINDOW_LENGTH, frames=0, rate=IMU_RATE, channels=6
    )  # fmt: skip
    surveys = range(FIRST_SURVEY_SEED, FIRST_SURVEY_SEED + args.surveys)
    prototypes = image_prototypes(hub, surveys)
    simulated = simulated_imu.imu_pairs(hub, range(2 * args.surveys), surveys, range(args.surveys), prototypes)
    activities = activity_pairs(read_activities(), hub, training=True)
    spoke = Spoke(spec, hub)
    training, held = split(concatenate_pairs([simulated, activities], share_groups=True), share=0.06)
    settings = TrainingOptions(
        epochs=args.epochs or 4, batch=192, chunk=192, learning_rate=1e-3, weight_decay=1e-2, temperature=0.1, bank=0,
        patience=100, seed=1,
    )  # fmt: skip
    return spoke, train_spoke(spoke, hub, training, held, settings, on_epoch=print_epoch)


def with_motion_concepts(spec: SpokeSpec) -> SpokeSpec:
    """The spec of the IMU spoke with the motion concepts of this version, which are computed after its network."""
    return replace(spec, concepts=motion_concepts.concepts_id())


def restamp(path: Path) -> None:
    """Write the id of the motion concepts into the file of the IMU spoke. The weights stay the same. Raises
    `SpaceError`."""
    state = spokes.read_state(path)
    dtype = next(iter(state.values())).dtype
    spokes.write_spoke(path, with_motion_concepts(spokes.read_spec(path)), state, dtype)


def print_epoch(epoch: EpochResult) -> None:
    """Print the loss and the held-out recall of an epoch."""
    print(
        f"epoch {epoch.number}: loss {epoch.loss:.3f}, held-out R@1 {epoch.recall:.3f} "
        f"(best {epoch.best:.3f}, chance {epoch.chance:.3f})", flush=True,
    )  # fmt: skip


@dataclass(frozen=True)
class TrainingDataCard:
    """Training data of a spoke, for its card."""

    data: str
    licence: str
    anchors: tuple[str, ...] = (VISION,)  # modalities of the hub that it was trained with


ROOMS_DATA = "random rooms of sensebind/simulation/rooms.py, with textures from scikit-image's photographs"
TRAINING_DATA = {
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
    """Train one spoke and write the file that ships with the starter space."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modality", choices=sorted(TRAINING_DATA))
    parser.add_argument("--rooms", type=int, default=600, help="random rooms to train on (default: %(default)s)")
    parser.add_argument("--surveys", type=int, default=30,
                        help="surveys that the image prototypes are made from (default: %(default)s)")  # fmt: skip
    parser.add_argument("--epochs", type=int, help="maximum number (default: 8 for images, 4 for IMU data)")
    parser.add_argument("--checkpoint", type=Path, help="file to resume from (depth and thermal)")
    parser.add_argument("-o", "--out", type=Path, help="spoke file to write (default: the shipped one)")
    parser.add_argument("--restamp", action="store_true", help="only write the id of the motion concepts (imu)")
    args = parser.parse_args()
    out = args.out or SPOKE_FOLDER / f"{args.modality}.safetensors"
    if args.restamp:
        if args.modality != IMU:
            parser.error("only imu has motion concepts")
        return restamp(out)
    hub = registry.load_without_spokes("starter")
    if args.modality == IMU:
        spoke, best = train_imu_spoke(hub, args)  # type: ignore[arg-type]
    else:
        spoke, best = train_image_spoke(args.modality, hub, args.rooms, args.epochs or 8, args.checkpoint)  # type: ignore[arg-type]
    card = TRAINING_DATA[args.modality]
    about = {
        "data": card.data, "licence": card.licence, "anchors": list(card.anchors),
        "held_out_recall": round(best.recall, 3),
    }  # fmt: skip
    spec = replace(spoke.spec, about=about)
    spoke.spec = with_motion_concepts(spec) if args.modality == IMU else spec
    spokes.save(spoke, out)
    print(f"{out}: held-out R@1 {best.recall:.3f}, chance {best.chance:.3f}")


if __name__ == "__main__":
    main()
