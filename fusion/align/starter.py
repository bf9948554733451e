"""How the starter space's own spokes were made: `python -m sensebind.fusion.align.starter MODALITY`.

Each recipe uses simulated or permissively licensed data alone and runs on two CPU cores.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from sensebind.fusion.align.pairs import Pairs, split
from sensebind.fusion.align.sounds import Captioned, read_esc10, sound_pairs
from sensebind.fusion.align.training import Epoch, Settings, fit
from sensebind.fusion.encodings import ThermalImage
from sensebind.fusion.frontends import depth as depth_frontend
from sensebind.fusion.frontends import thermal as thermal_frontend
from sensebind.fusion.frontends.image import levels_tensor
from sensebind.fusion.models import registry
from sensebind.fusion.models import spoke as spokes
from sensebind.fusion.models.registry import Hub
from sensebind.fusion.models.spoke import Spoke, SpokeSpec, sound_features
from sensebind.fusion.models.starter import SPOKES
from sensebind.fusion.samples import AUDIO, DEPTH, THERMAL
from sensebind.fusion.simulation import rooms

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


def sound_spoke(hub: Hub, clips: list[Captioned], epochs: int, checkpoint: Path | None) -> tuple[Spoke, Epoch]:
    """A small network on the frozen trunk, from captioned sounds; the last block is held out to tell when to stop,
    then all are trained on for as long."""
    torch.manual_seed(0)
    spec = SpokeSpec(AUDIO, "sound", hub.id, hub.dimension, length=2.0, frames=0)
    describe = torch.inference_mode()(sound_features())
    pairs = sound_pairs(clips, hub, describe=lambda pieces: describe(pieces).clone())
    training, held = split(pairs, share=0.3)
    settings = Settings(
        epochs=epochs, batch=128, chunk=128, learning_rate=1e-3, weight_decay=1e-2, temperature=0.1, bank=0,
        patience=epochs,
    )  # fmt: skip
    best = fit(Spoke(spec, hub), hub, training, held, settings, on_epoch=report)
    spoke = Spoke(spec, hub)
    fit(spoke, hub, pairs, held, replace(settings, epochs=max(best.number, 1), keep_last=True), checkpoint=checkpoint)
    return spoke, best


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


RECIPES = {
    AUDIO: Recipe("ESC-10 (K. J. Piczak), folds 1 to 3, with simulated noise", "CC BY 3.0"),
    DEPTH: Recipe("random rooms of fusion/align/rooms.py, with patterns cut from scikit-image's photographs", "CC0"),
    THERMAL: Recipe("random rooms of fusion/align/rooms.py, with patterns cut from scikit-image's photographs", "CC0"),
}


def main() -> None:
    """Train one spoke and write it to where the starter space looks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modality", choices=sorted(RECIPES))
    parser.add_argument("--rooms", type=int, default=600, help="random rooms to train on (default: %(default)s)")
    parser.add_argument("--esc10", type=Path, default=Path("../shared/evaluation/esc10"), metavar="DIR",
                        help="folder of ESC-10, of which folds 1 to 3 are used (default: %(default)s)")  # fmt: skip
    parser.add_argument("--without", action="append", metavar="CLASS", help="class of ESC-10 to leave out")
    parser.add_argument("--epochs", type=int, help="default: 8 for pictures, 30 for sounds")
    parser.add_argument("--checkpoint", type=Path, help="file to go on from")
    parser.add_argument("-o", "--out", type=Path, help="spoke file (default: the one that is shipped)")
    args = parser.parse_args()
    hub = registry.hub_of("starter")
    if args.modality == AUDIO:
        clips = read_esc10(args.esc10, "123", args.without or ())
        spoke, best = sound_spoke(hub, clips, args.epochs or 30, args.checkpoint)  # type: ignore[arg-type]
    else:
        spoke, best = picture_spoke(args.modality, hub, args.rooms, args.epochs or 8, args.checkpoint)  # type: ignore[arg-type]
    recipe = RECIPES[args.modality]
    about = {"data": recipe.data, "licence": recipe.licence, "held_out_recall": round(best.recall, 3)}
    spoke.spec = SpokeSpec(**{**vars(spoke.spec), "about": about})
    out = args.out or SPOKES / f"{args.modality}.safetensors"
    spokes.save(spoke, out)
    print(f"{out}: held-out R@1 {best.recall:.3f}, chance {best.chance:.3f}")


if __name__ == "__main__":
    main()
