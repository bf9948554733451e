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
from sensebind.fusion.models.spokes.spoke import Spoke, SpokeSpec, sound_features
from sensebind.fusion.models.starter.space import SPOKES
from sensebind.fusion.preprocess import depth as depth_frontend
from sensebind.fusion.preprocess import thermal as thermal_frontend
from sensebind.fusion.preprocess.image import levels_tensor
from sensebind.simulation import rooms
from sensebind.simulation.captioned_sounds import QUIET, robot_noise
from sensebind.simulation.catalogue import KINDS
from sensebind.simulation.imitations import imitations
from sensebind.simulation.record import IMU_RATE, Plan, hear, see
from sensebind.simulation.survey import tour
from sensebind.training.data import motions
from sensebind.training.data.activities import activity_pairs, read_activities
from sensebind.training.data.pairs import Pairs, joined, split
from sensebind.training.data.sounds import Floats, noise_pairs, read_esc10, sound_pairs
from sensebind.training.fitting import Epoch, Settings, fit

TOURS_FROM = 100  # seed of the first tour of those that are not recorded
NOISES = 1200  # windows with nothing but a robot's noise
LOOKS = (1.2, 2.5, 3.8)  # s from the start of a station
VIEWS = 6  # of a room


def room_pairs(modality: str, hub: Hub, count: int, seed: int = 0) -> Pairs:
    """Pictures of `count` random rooms by a depth or thermal camera, beside the hub's vectors of the colour camera's;
    a block is a room."""
    trunk = hub.image_encoder()
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    for number in tqdm(range(count), desc="rooms", unit="room", disable=None):
        noise = np.random.default_rng([seed, number])
        views = rooms.look(rooms.furnish(noise), noise, VIEWS)
        inputs += [levels_tensor(_levels(modality, view, noise)) for view in views]
        with torch.inference_mode():
            colours = torch.stack([levels_tensor(view.colour.astype(np.float32) / 255) for view in views])
            targets.append(trunk(colours))
    rows = torch.arange(count * VIEWS)
    return Pairs(
        torch.stack(inputs), torch.cat(targets).clone(), rows, rows // VIEWS, torch.stack([rows, rows + 1], dim=1),
        torch.zeros_like(rows), torch.empty(0),
    )  # fmt: skip


def _levels(modality: str, view: rooms.View, noise: np.random.Generator) -> npt.NDArray[np.float32]:
    if modality == DEPTH:
        return depth_frontend.relief(view.depth)
    kelvin = view.kelvin + noise.normal(0, noise.uniform(0.02, 0.2), view.kelvin.shape)
    return thermal_frontend.contrast(ThermalImage(kelvin.astype(np.float32), True))


def picture_spoke(modality: str, hub: Hub, count: int, epochs: int, checkpoint: Path | None) -> tuple[Spoke, Epoch]:
    """Depth or thermal: LoRA on a copy of the image encoder, from rooms."""
    torch.manual_seed(0)
    spoke = Spoke(SpokeSpec(modality, "image", hub.id, hub.dimension, method="lora", rank=8), hub)
    training, held = split(room_pairs(modality, hub, count), share=0.1)
    settings = Settings(
        epochs=epochs, batch=60, chunk=60, learning_rate=2e-3, temperature=1 / 15, bank=0, views=1, by_block=True,
        inverted=0.15 if modality == THERMAL else 0.0, patience=epochs,
    )  # fmt: skip
    return spoke, fit(spoke, hub, training, held, settings, on_epoch=report, checkpoint=checkpoint)


def sights(hub: Hub, seed: int) -> Tensor:
    """What the hub says of the colour camera's view at three moments of each station of a tour: (stations, 3, D)."""
    trunk, plan, noise = hub.image_encoder(), tour(seed), np.random.default_rng([seed, 18])
    vectors = []
    for happening in plan.happenings:
        moments = happening.onset + np.array(LOOKS) + noise.uniform(-0.3, 0.3, len(LOOKS))
        colours = [see(plan, float(t), noise).colour.astype(np.float32) / 255 for t in moments]
        with torch.inference_mode():
            vectors.append(trunk(torch.stack([levels_tensor(colour) for colour in colours])).clone())
    return torch.stack(vectors)


def motors(seed: int) -> Floats:
    """30 s of a simulated robot's own noise, with turns between one to three places: float32 at 16 kHz."""
    noise = np.random.default_rng([seed, 41])
    starts = [0.0, *sorted(noise.uniform(4, 26, int(noise.integers(0, 3))).tolist())]
    plan = Plan(30.0, tuple((start, "carpet") for start in starts), (), seed)
    return hear(plan).astype(np.float32) / np.float32(32767)


def sound_spoke(hub: Hub, args: argparse.Namespace) -> tuple[Spoke, Epoch, Pairs]:
    """A small network on the frozen trunk, from captioned sounds, from what the things that make them look like, and
    from a robot's noise alone."""
    torch.manual_seed(0)
    spec = SpokeSpec(AUDIO, "sound", hub.id, hub.dimension, length=2.0, frames=0)
    features = torch.inference_mode()(sound_features())
    own = [motors(seed) for seed in range(40)]

    def describe(pieces: Tensor) -> Tensor:
        return torch.cat([features(part).clone() for part in pieces.split(16)])

    def disturb(noise: np.random.Generator, count: int) -> Floats:
        if noise.random() < 0.4:
            return robot_noise(noise, count)
        wave = own[int(noise.integers(len(own)))]
        first = int(noise.integers(len(wave) - count))
        return wave[first : first + count]

    tours = tqdm(range(TOURS_FROM, TOURS_FROM + args.felt), desc="sights", unit="tour", disable=None)
    looks = motions.prototypes({seed: sights(hub, seed) for seed in tours})
    by_sound = {KINDS[kind].sound: look for kind, look in looks.items()}
    clips = read_esc10(args.esc10, "123", args.without or ())
    made = [item for item in imitations(8) if item.phrases != QUIET and item.phrases[0] not in (args.without or ())]
    pairs = joined([
        sound_pairs(clips, hub, cuts=24, describe=describe, disturb=disturb),
        sound_pairs(made, hub, seed=1, cuts=4, describe=describe, disturb=disturb, looks=by_sound),
        noise_pairs(hub, NOISES, disturb, describe),
    ], share_groups=True)  # fmt: skip
    training, held = split(pairs, share=0.15)
    return Spoke(spec, hub), _twice(spec, hub, pairs, training, held, args), pairs


def motion_spoke(hub: Hub, args: argparse.Namespace) -> tuple[Spoke, Epoch]:
    """A small network of its own: from what was seen when the robot felt something, from words for it and for feeling
    nothing, and from captioned activities."""
    torch.manual_seed(0)
    spec = SpokeSpec(
        IMU, "series", hub.id, hub.dimension, length=motions.LENGTH, frames=0, rate=IMU_RATE, channels=6
    )  # fmt: skip
    tours = range(TOURS_FROM, TOURS_FROM + args.felt)
    seen = motions.prototypes({seed: sights(hub, seed) for seed in tqdm(tours, desc="sights", disable=None)})
    felt = motions.felt_pairs(hub, range(2 * args.felt), tours, range(args.felt), seen)
    done = activity_pairs(read_activities(), hub, training=True)
    spoke = Spoke(spec, hub)
    training, held = split(joined([felt, done], share_groups=True), share=0.06)
    settings = Settings(
        epochs=args.epochs or 4, batch=192, chunk=192, learning_rate=1e-3, weight_decay=1e-2, temperature=0.1, bank=0,
        patience=100, seed=1,
    )  # fmt: skip
    return spoke, fit(spoke, hub, training, held, settings, on_epoch=report)


def _twice(spec: SpokeSpec, hub: Hub, pairs: Pairs, training: Pairs, held: Pairs, args: argparse.Namespace) -> Epoch:
    """How long to train, told by what is held out."""
    settings = Settings(
        epochs=args.epochs or 12, batch=192, chunk=192, learning_rate=1e-3, weight_decay=1e-2, temperature=0.1, bank=0,
        patience=6, seed=1,
    )  # fmt: skip
    return fit(Spoke(spec, hub), hub, training, held, settings, on_epoch=report)


def on_all(spoke: Spoke, hub: Hub, pairs: Pairs, epochs: int) -> None:
    """Train on all pairs for as long as was best with some held out."""
    settings = Settings(
        epochs=max(epochs, 2), batch=192, chunk=192, learning_rate=1e-3, weight_decay=1e-2, temperature=0.1, bank=0,
        patience=10**6, keep_last=True, seed=1,
    )  # fmt: skip
    fit(spoke, hub, pairs, pairs.take(torch.arange(0, len(pairs), 41)), settings)


def report(epoch: Epoch) -> None:
    """Print how an epoch went."""
    print(
        f"epoch {epoch.number}: loss {epoch.loss:.3f}, held-out R@1 {epoch.recall:.3f} "
        f"(best {epoch.best:.3f}, chance {epoch.chance:.3f})", flush=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What a card says of how a spoke was made."""

    data: str
    licence: str
    anchors: tuple[str, ...] = (VISION,)  # the hub's senses that it was bound to


ROOMS = "random rooms of sensebind/simulation/rooms.py, with patterns cut from scikit-image's photographs"
RECIPES = {
    AUDIO: Recipe(
        "ESC-10 (K. J. Piczak), folds 1 to 3, with text; imitations, with text and the looks of things on simulated "
        "tours; a robot's noise, with text",
        "CC BY 3.0",
        (TEXT, VISION),
    ),
    IMU: Recipe(
        "simulated robots, with text and vision; seglearn's shoulder exercises of subjects 1 to 7 and half of aeon's "
        "BasicMotions, with text",
        "BSD-3-Clause packages",
        (VISION, TEXT),
    ),
    DEPTH: Recipe(ROOMS, "mostly CC0"),
    THERMAL: Recipe(ROOMS, "mostly CC0"),
}


def main() -> None:
    """Train one spoke and write it to where the starter space looks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modality", choices=sorted(RECIPES))
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
    hub = registry.hub_of("starter")
    if args.modality == AUDIO:
        spoke, best, pairs = sound_spoke(hub, args)  # type: ignore[arg-type]
        on_all(spoke, hub, pairs, best.number)  # type: ignore[arg-type]
    elif args.modality == IMU:
        spoke, best = motion_spoke(hub, args)  # type: ignore[arg-type]
    else:
        spoke, best = picture_spoke(args.modality, hub, args.rooms, args.epochs or 8, args.checkpoint)  # type: ignore[arg-type]
    recipe = RECIPES[args.modality]
    about = {
        "data": recipe.data, "licence": recipe.licence, "anchors": list(recipe.anchors),
        "held_out_recall": round(best.recall, 3),
    }  # fmt: skip
    spoke.spec = SpokeSpec(**{**vars(spoke.spec), "about": about})
    out = args.out or SPOKES / f"{args.modality}.safetensors"
    spokes.save(spoke, out)
    print(f"{out}: held-out R@1 {best.recall:.3f}, chance {best.chance:.3f}")


if __name__ == "__main__":
    main()
