"""Trains a spoke by InfoNCE against the frozen hub. A training resumed from a checkpoint has the same result."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sensebind.evaluation.spaces.retrieval import recall_at_k
from sensebind.fusion.core.atomic import staged_file
from sensebind.fusion.core.space import Hub
from sensebind.fusion.models.spokes.spoke import Spoke
from sensebind.training.data.augmentation import apply_crops, jitter_brightness, random_crops
from sensebind.training.data.pairs import AlignError, Pairs
from sensebind.training.losses import gradient_cached_backward, info_nce

IMAGE_SPOKE = "image"


@dataclass(frozen=True)
class TrainingOptions:
    """How a spoke is trained.

    Attributes:
        epochs: maximum number of epochs.
        batch: number of pairs that are compared with each other.
        chunk: number of pairs that are in memory at once.
        temperature: of InfoNCE (ImageBind's τ); the initial value if `learn_temperature`.
        bank: number of vectors of the hub that are negatives, beside those of the batch.
        views: random crops of each image, if the hub's images are kept; 0: no crops, no change of brightness.
        inverted_fraction: fraction of images that are inverted, for cameras with other palettes.
        patience: epochs without a better held-out recall after which the training ends.
        precision: of the encoder, float32 or bf16.
        by_block: fill batches block by block, because the pairs of a block are the most similar.
    """

    epochs: int = 40
    batch: int = 64
    chunk: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    temperature: float = 0.07
    learn_temperature: bool = False
    bank: int = 1024
    views: int = 2
    inverted_fraction: float = 0.0
    patience: int = 10
    precision: str = "float32"
    by_block: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "chunk", "patience"):
            if getattr(self, name) < 1:
                raise AlignError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 < self.temperature <= 10 or self.learning_rate <= 0:
            raise AlignError(
                f"temperature must be more than 0 and at most 10, and learning rate more than 0; they are "
                f"{self.temperature:g} and {self.learning_rate:g}"
            )
        if self.precision not in ("float32", "bf16"):
            raise AlignError(f"precision '{self.precision}' is not one of float32, bf16")


@dataclass(frozen=True)
class EpochResult:
    """The result of an epoch: its mean loss, its held-out R@1 (mean of both directions), the best R@1 so far, and the
    R@1 of random vectors."""

    number: int
    loss: float
    recall: float
    best: float
    chance: float


def train_spoke(
    spoke: Spoke,
    hub: Hub,
    training: Pairs,
    held_out: Pairs,
    settings: TrainingOptions,
    *,
    on_epoch: Callable[[EpochResult], None] = lambda epoch: None,
    checkpoint: Path | None = None,
    stop_after: int | None = None,
    progress: Callable[[float], None] = lambda epochs: None,
) -> EpochResult:
    """Train the encoder of `spoke` in place. It keeps the weights of the best epoch on the held-out pairs.

    `checkpoint`: a file that is written after each epoch. If it exists, the training resumes from it, with the same
    result as without interruption. `stop_after`: the training is interrupted after that many epochs. `progress` is
    called with the number of epochs so far, with fractions. Returns the best epoch. Raises `AlignError` if there are
    too few pairs, or if the checkpoint has other settings.
    """
    if len(training.class_ids.unique()) < 2:
        raise AlignError("InfoNCE needs pairs with at least two different targets")
    torch.manual_seed(settings.seed)
    inputs, targets, groups = _prepare_inputs(spoke, hub, training, settings)
    _fit_normalization(spoke, inputs)
    encoder = spoke.encoder
    log_scale = nn.Parameter(torch.tensor(1 / settings.temperature).log(), requires_grad=settings.learn_temperature)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    parts: list[dict[str, Any]] = [{"params": trained}, {"params": [log_scale], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(
        parts,
        lr=settings.learning_rate, weight_decay=settings.weight_decay,
    )  # fmt: skip
    state = _TrainingState(encoder, optimiser, log_scale, settings)
    state.resume(checkpoint)
    chance = _chance_recall(held_out.class_ids)
    best = EpochResult(0, float("nan"), state.best, state.best, chance)
    if state.epoch == 0:  # an untrained image spoke is the hub's image encoder: training must not make it worse
        state.update_best(held_out_recall(spoke, held_out))
    for number in range(state.epoch, settings.epochs):
        if number - state.best_epoch >= settings.patience or (stop_after is not None and number >= stop_after):
            break
        torch.manual_seed(settings.seed + 1000 + number)  # a resumed training draws the same numbers
        loss = _train_epoch(
            spoke, inputs, targets, groups, training.blocks, optimiser, log_scale, settings, number, progress
        )
        state.epoch = number + 1
        state.update_best(held_out_recall(spoke, held_out))
        state.save(checkpoint)
        on_epoch(EpochResult(number + 1, loss, state.last, state.best, chance))
        progress(number + 1)
    encoder.load_state_dict(state.best_state, strict=False)
    encoder.eval()
    best = EpochResult(state.best_epoch, float("nan"), state.best, state.best, chance)
    spoke.spec = type(spoke.spec)(**{**asdict(spoke.spec), "logit_scale": float(log_scale.detach().exp())})
    return best


def held_out_recall(spoke: Spoke, pairs: Pairs, chunk: int = 64) -> float:
    """R@1 between the spoke's vectors and the hub's, mean of both directions."""
    vectors = torch.cat([spoke.embed(batch) for batch in pairs.inputs.split(chunk)])
    scores = vectors @ pairs.targets.T
    return (recall_at_k(scores, pairs.class_ids)[0] + recall_at_k(scores.T, pairs.class_ids)[0]) / 2


def _chance_recall(groups: Tensor) -> float:
    """Expected R@1 of random vectors."""
    same = groups[:, None] == groups[None, :]
    return float(same.float().mean())


def _train_epoch(
    spoke: Spoke, inputs: Tensor, targets: Tensor, groups: Tensor, blocks: Tensor, optimiser: torch.optim.Optimizer,
    log_scale: nn.Parameter, settings: TrainingOptions, number: int, progress: Callable[[float], None],
) -> float:  # fmt: skip
    """Train one epoch. Returns the mean loss of its batches."""
    generator = torch.Generator().manual_seed(settings.seed * 7919 + number)
    order = torch.randperm(len(groups), generator=generator)
    if settings.by_block:
        names = blocks.unique()
        place = torch.empty(int(names.max()) + 1, dtype=torch.long)
        place[names] = torch.randperm(len(names), generator=generator)
        order = order[place[blocks[order]].argsort(stable=True)]
    for group in optimiser.param_groups:
        group["lr"] = settings.learning_rate * _learning_rate_factor(number, settings.epochs)
    encoder = spoke.encoder.train()
    losses = []
    batches = order.split(settings.batch)
    for at, rows in enumerate(batches):
        progress(number + at / len(batches))
        if len(groups[rows].unique()) < 2:
            continue
        view = int(torch.randint(inputs.shape[1], (1,), generator=generator))
        batch, hub = inputs[rows, view], targets[rows, view]
        if spoke.spec.kind == IMAGE_SPOKE and settings.views:
            batch = jitter_brightness(batch, generator, settings.inverted_fraction)
        chosen = torch.randint(len(groups), (settings.bank,), generator=generator)
        bank, bank_groups = targets[chosen, 0], groups[chosen]

        def loss(vectors: Tensor, hub: Tensor = hub, rows: Tensor = rows, bank: Tensor = bank,
                 bank_groups: Tensor = bank_groups) -> Tensor:  # fmt: skip
            return info_nce(vectors, hub, log_scale.exp().clamp(max=100), groups[rows], bank, bank_groups)

        def encode(part: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
                vectors: Tensor = encoder(part)
            return vectors.float()

        optimiser.zero_grad()
        losses.append(gradient_cached_backward(encode, batch, loss, settings.chunk))
        optimiser.step()
    encoder.eval()
    return sum(losses) / max(len(losses), 1)


def _learning_rate_factor(number: int, epochs: int) -> float:
    """Factor of the learning rate in an epoch: 0.5 in the first, then a cosine from 1 to 0."""
    return 0.5 if number == 0 else 0.5 + 0.5 * math.cos(math.pi * number / epochs)


def _prepare_inputs(spoke: Spoke, hub: Hub, pairs: Pairs, settings: TrainingOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (N, V, …), targets (N, V, D) and groups (N,).

    The V views are the input itself and, of images, `views` random crops. The frozen encoders run here once, not in
    each epoch.
    """
    if spoke.spec.kind == "sound":
        extractor = spoke.encoder.features
        assert isinstance(extractor, nn.Module)
        with torch.no_grad():
            features = torch.cat([extractor(batch) for batch in pairs.inputs.split(32)])
        return features[:, None], pairs.targets[:, None], pairs.class_ids
    inputs, targets = [pairs.inputs], [pairs.targets]
    if spoke.spec.kind == IMAGE_SPOKE and len(pairs.hub_images):
        trunk = hub.target_encoder()
        generator = torch.Generator().manual_seed(settings.seed)
        for _ in range(settings.views):
            maps = random_crops(len(pairs), generator)
            inputs.append(
                torch.cat([apply_crops(x, m) for x, m in zip(pairs.inputs.split(32), maps.split(32), strict=True)])
            )
            with torch.inference_mode():
                parts = [
                    trunk(apply_crops(x, m)) for x, m in zip(pairs.hub_images.split(32), maps.split(32), strict=True)
                ]
            targets.append(torch.cat(parts).clone())
    return torch.stack(inputs, dim=1), torch.stack(targets, dim=1), pairs.class_ids


def _fit_normalization(spoke: Spoke, inputs: Tensor) -> None:
    fit_normalization = getattr(spoke.encoder, "fit_normalization", None)
    if fit_normalization is not None:
        fit_normalization(inputs[:, 0])


class _TrainingState:
    """The state that a checkpoint stores: weights, optimiser, epoch, and the best weights so far."""

    def __init__(
        self, encoder: nn.Module, optimiser: torch.optim.Optimizer, log_scale: nn.Parameter, settings: TrainingOptions
    ) -> None:
        self._encoder, self._optimiser, self._log_scale, self._settings = encoder, optimiser, log_scale, settings
        self.epoch, self.best_epoch, self.best, self.last = 0, 0, -1.0, -1.0
        self.best_state: dict[str, Tensor] = self._trained()

    def _trained(self) -> dict[str, Tensor]:
        names = {name for name, p in self._encoder.named_parameters() if p.requires_grad}
        return {n: copy.deepcopy(t) for n, t in self._encoder.state_dict().items() if n in names}

    def update_best(self, value: float) -> None:
        self.last = value
        if value > self.best:
            self.best, self.best_epoch, self.best_state = value, self.epoch, self._trained()

    def save(self, path: Path | None) -> None:
        if path is None:
            return
        content: dict[str, Any] = {
            "settings": asdict(self._settings), "epoch": self.epoch, "best_epoch": self.best_epoch, "best": self.best,
            "best_state": self.best_state, "trained": self._trained(), "optimiser": self._optimiser.state_dict(),
            "log_scale": self._log_scale.detach().clone(),
        }  # fmt: skip
        # An interrupted write keeps the previous checkpoint. A file that PyTorch opens itself hides a full disk.
        with staged_file(path) as part, part.open("wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # PyTorch complains that the file has too few bytes
                    raise error.__context__ from None
                raise

    def resume(self, path: Path | None) -> None:
        if path is None or not path.is_file():
            return
        try:
            content = torch.load(path, weights_only=True)
            if content["settings"] != asdict(self._settings):
                raise AlignError(f"checkpoint '{path}' has other settings: remove it, or train with those settings")
            if not self._trained().keys() == content["trained"].keys() == content["best_state"].keys():
                raise ValueError("its weights are not those of this spoke")
            self._encoder.load_state_dict(content["trained"], strict=False)
            self._optimiser.load_state_dict(content["optimiser"])
            with torch.no_grad():
                self._log_scale.copy_(content["log_scale"])
            self.best_state, self.best = content["best_state"], content["best"]
            self.epoch, self.best_epoch = int(content["epoch"]), int(content["best_epoch"])
        except AlignError:
            raise
        except Exception as error:  # damaged bytes can raise anything
            text = " ".join(str(error).split())[:200]
            raise AlignError(
                f"checkpoint '{path}' cannot be read: remove it ({type(error).__name__}: {text})"
            ) from error
