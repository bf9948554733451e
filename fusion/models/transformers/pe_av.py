"""PE-AV (Perception Encoder Audio-Visual) and PE-A: encoders of sound, of video and of text.

Only the encoders that are asked for are loaded. The encoder of video needs the packages timm and torchvision; the
others do not.

**Vectors.** The published model has one head for sound, a; one for video, v; and two for text: t_a, which is compared
with sound, and t_v, which is compared with video. Sound and video are compared directly. A space has one vector for
each phrase, so its form depends on the sensors that are loaded:

- Sound alone: the vectors are a and t_a. Video alone: v and t_v. D numbers.
- Both: three blocks of D numbers, divided by √2: sound is [a, 0, a], video [0, v, v], text [t_a, t_v, 0]. The cosine of
  each pair, a·t_a, v·t_v and a·v, is exactly half of that of the published vectors. So the logit scales are doubled.

Vectors of different forms cannot be compared. The id of the space contains the sensors, so that it differs.

**Scores.** The published score is the logistic function of (scale · dot product + bias). The published vectors do not
have unit length, but those of a space do. So a space's cosines lack the lengths of the two vectors, and its scales and
biases, which are the checkpoint's, do not give published probabilities.

**Models of frames** have a vector for each 40 ms of sound. The vector of a window has the direction of their mean: the
mean of the published scores of the frames is the score of the mean vector.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from sensebind.fusion.core.samples import AUDIO, TEXT, VISION
from sensebind.fusion.core.space import SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.transformers.cards import ModelCard
from sensebind.fusion.models.transformers.checkpoint import Checkpoint
from sensebind.fusion.models.transformers.family import (
    ModelFamily,
    RgbEncoder,
    TextEncoder,
    dtype_of,
    load_model,
    load_tokenizer,
    unit,
)
from sensebind.fusion.models.transformers.image import checkpoint_recipe, rgb_frames
from sensebind.fusion.models.transformers.sound import SoundEncoder
from sensebind.fusion.preprocess.image_recipe import ImageRecipe, apply_recipe, resize_and_normalize

LOG = logging.getLogger(__name__)

VIDEO_PACKAGES = ("timm", "torchvision")  # that the library's encoder of video imports
SOUND_WINDOW, VIDEO_WINDOW = 5.0, 2.0  # s: our choices, because no lengths are published
HOP = 1920  # samples of a frame of the audio codec
PLAIN_NAME, FILE_ARGUMENT = re.compile(r"[a-z0-9_.]+"), re.compile(r"cache|dir|file|path|url")
LIBRARY_NAMES = {AUDIO: "audio", VISION: "video"}  # sensor → its name in the library
CODEC = ("audio_encoder.embedder.dac_encoder.", "audio_encoder.embedder.bottleneck.")  # names of its weights


@dataclass(frozen=True, slots=True)
class SensorModel:
    """The library's model of one sensor and of text, in the precision of the space, and its logit scale and bias."""

    model: Any
    scale: float
    bias: float


class PeSoundEncoder(SoundEncoder):
    """Waveform → network → head. `of_frames`: whether the model has a vector for each frame. `joint`: whether vectors
    have three blocks."""

    def __init__(self, length: float, model: Any, rate: int, hop: int, of_frames: bool, joint: bool) -> None:
        super().__init__(length, rate)
        self.network, self.head = model.audio_encoder, model.audio_head
        self.hop, self.of_frames, self.joint = hop, of_frames, joint

    def prepare(self, rows: Tensor) -> Tensor:
        """float32 (B, N) → float32 (B, 1, a multiple of the hop)."""
        return reflect_to_multiple(rows, self.hop)[:, None]

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, 1, N) → float32 unit vectors (B, D), or (B, 3 D)."""
        outputs = self.network(input_values=inputs)
        if self.of_frames:
            found = unit(self.head(outputs.last_hidden_state).float().mean(1))
        else:
            found = unit(self.head(outputs.pooler_output))
        return join_blocks(found, None, found) if self.joint else found


class PeVideoEncoder(RgbEncoder):
    """The frames of a window → network → head. `joint`: whether vectors have three blocks.

    An image is a video of one frame.
    """

    def __init__(self, window: TrainedWindow, model: Any, recipe: ImageRecipe, joint: bool) -> None:
        super().__init__()
        self.window, self.recipe, self.joint = window, recipe, joint
        self.network, self.head = model.video_encoder, model.video_head

    def device_input(self, window: Window) -> Tensor:
        """The frames of a window → uint8 (frames, H, W, 3). Raises `ValueError` if their sizes differ."""
        return rgb_frames(window.samples)

    def prepare(self, rows: Tensor) -> Tensor:
        """uint8 (B, frames, H, W, 3) → float32 (B, frames, 3, *size)."""
        return prepare_video(rows, self.recipe)

    def prepare_float(self, images: Tensor) -> Tensor:
        """See `RgbEncoder`. → (B, 1 frame, 3, *size)."""
        return resize_and_normalize(images, self.recipe.size, self.recipe)[:, None]

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, frames, 3, *size) → float32 unit vectors (B, D), or (B, 3 D)."""
        outputs = self.network(pixel_values_videos=inputs.to(dtype_of(self.head)).contiguous())
        found = unit(self.head(outputs.pooler_output))
        return join_blocks(None, found, found) if self.joint else found


class PeTextEncoder(TextEncoder):
    """Tokens → the last hidden state of the first token → the heads of the sensors: one, or first sound, then video."""

    def __init__(self, card: ModelCard, tokenizer: Any, network: Any, heads: Sequence[nn.Module]) -> None:
        super().__init__(card, tokenizer, network.config.max_position_embeddings)
        self.network, self.heads = network, nn.ModuleList(heads)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """See `TextEncoder`."""
        # −1 asks for the last hidden state alone, as the library's own forward does. `last_hidden_state` may be
        # normalized once more.
        outputs = self.network(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=-1)
        first = outputs.hidden_states[-1][:, 0]
        found = [unit(head(first)) for head in self.heads]
        return found[0] if len(found) == 1 else join_blocks(found[0], found[1], None)


class PeFamily(ModelFamily):
    """A model with an encoder of text, and those encoders of sound and video that are loaded."""

    def __init__(self, checkpoint: Checkpoint, parts: Mapping[str, SensorModel], sensors: Sequence[str]) -> None:
        """`parts`: by sensor, sound first. `sensors`: those whose encoder is used; empty: only text is embedded."""
        joint, first = len(parts) == 2, next(iter(parts.values()))
        encoders = {AUDIO: _sound_encoder, VISION: _video_encoder}
        self.encoders = {name: encoders[name](checkpoint, parts[name].model, joint) for name in sensors}
        heads = [getattr(part.model, f"text_{LIBRARY_NAMES[name]}_head") for name, part in parts.items()]
        network = first.model.text_model  # each part loads the same weights of the text model
        self.text = PeTextEncoder(checkpoint.card, load_tokenizer(checkpoint), network, heads)
        self.dimension = network.config.hidden_size * (3 if joint else 1)
        factor = 2.0 if joint else 1.0
        self.logit_scales: Mapping[str, float] = {
            TEXT: factor * first.scale,
            **{name: factor * part.scale for name, part in parts.items()},
        }
        self.logit_biases: Mapping[str, float] = {name: parts[name].bias for name in sensors}
        self.variant = "+".join(parts) if _has_video(checkpoint) else ""

    @classmethod
    def load(cls, checkpoint: Checkpoint, modalities: Sequence[str] | None, dtype: torch.dtype) -> PeFamily:
        """See `ModelFamily`. Without packages for video: a warning, or `SpaceError` if `modalities` has vision."""
        offered = tuple(LIBRARY_NAMES) if _has_video(checkpoint) else (AUDIO,)
        sensors = [name for name in offered if modalities is None or name in modalities]
        if VISION in sensors and (missing := _missing_packages()):
            problem = f"the encoder of video of '{checkpoint.name}' needs {' and '.join(missing)}"
            if modalities is not None:
                raise SpaceError(f"{problem}: pip install {' '.join(missing)}")
            LOG.warning("%s, which cannot be imported: vision is not loaded", problem)
            sensors.remove(VISION)
        parts = {name: _load(checkpoint, LIBRARY_NAMES[name], dtype) for name in sensors or (AUDIO,)}
        return cls(checkpoint, parts, sensors)


def join_blocks(first: Tensor | None, second: Tensor | None, third: Tensor | None) -> Tensor:
    """Three blocks (B, D), of which one is None and becomes 0 → (B, 3 D). Two unit vectors become one unit vector.

    See the text of the module.
    """
    blocks = [first, second, third]
    present = next(block for block in blocks if block is not None)
    zero = torch.zeros_like(present)
    return torch.cat([zero if block is None else block for block in blocks], dim=-1) / 2**0.5


def reflect_to_multiple(samples: Tensor, hop: int) -> Tensor:
    """Sounds (B, N) → (B, M), M the next multiple of `hop`. The end is reflected without its last sample, and again
    at the start if the sound is shorter than what is missing."""
    length = samples.shape[-1]
    total = -(-length // hop) * hop
    if total == length:
        return samples
    period = max(2 * (length - 1), 1)
    places = torch.arange(total, device=samples.device) % period
    return samples[:, torch.where(places < length, places, period - places)]


def prepare_video(rows: Tensor, recipe: ImageRecipe) -> Tensor:
    """RGB videos uint8 (B, frames, H, W, 3) on any device → float32 (B, frames, 3, *size) on that device."""
    images = apply_recipe(rows.flatten(0, 1).permute(0, 3, 1, 2), recipe)
    return images.unflatten(0, rows.shape[:2])


def _sound_encoder(checkpoint: Checkpoint, model: Any, joint: bool) -> PeSoundEncoder:
    settings, card = checkpoint.processor_settings("feature_extractor"), checkpoint.card.audio
    rate, hop = settings.get("sampling_rate") or card["sampling_rate"], settings.get("hop_length") or HOP
    of_frames = "PeAudioFrameLevelModel" in (checkpoint.config.get("architectures") or ())
    length = float(card["window"] or SOUND_WINDOW)
    return PeSoundEncoder(length, model, int(rate), int(hop), of_frames, joint)


def _video_encoder(checkpoint: Checkpoint, model: Any, joint: bool) -> PeVideoEncoder:
    """Raises `SpaceError` if the settings of the video processor cannot be followed."""
    card = checkpoint.card.vision
    recipe = checkpoint_recipe(checkpoint, "video_processor", int(card["size"]["default"]))
    frames = int(checkpoint.processor_settings("video_processor").get("num_frames") or card["frames"])
    return PeVideoEncoder(TrainedWindow(VIDEO_WINDOW, frames), model, recipe, joint)


def _load(checkpoint: Checkpoint, part: str, dtype: torch.dtype) -> SensorModel:
    """The library's model of sound or video with text, from a checkpoint of it or of PE-AV. `part`: audio or video.

    In a checkpoint of PE-AV, the names of its weights begin with ``audio_model.`` or ``video_model.``. The library
    removes that, because it is the prefix of the class. The text model is stored once, as ``text_model.``. Weights of
    other parts are not read.
    """
    from huggingface_hub.errors import StrictDataclassError

    name = "PeAudioModel" if part == "audio" else "PeVideoModel"
    try:
        config = _library_config(checkpoint, part)
    except (ValueError, TypeError, KeyError, ImportError, AttributeError, StrictDataclassError) as error:
        message = " ".join(str(error).split())
        raise SpaceError(f"'{checkpoint.folder}': config.json is wrong: {message}") from error
    model = load_model(checkpoint, name, torch.float32 if part == "audio" else dtype, partial=True, config=config)
    scale, bias = (float(getattr(model, f"text_{part}_logit_{what}")) for what in ("scale", "bias"))
    if part == "audio":
        _convert_all_but_codec(model, dtype)
    return SensorModel(model, scale, bias)


def _library_config(checkpoint: Checkpoint, part: str) -> Any:
    """The configuration of the library's model of sound or video with text, from that of it or of PE-AV."""
    from transformers import PeAudioConfig, PeVideoConfig

    settings = checkpoint.config
    parts = settings.get("audio_video_config") or {} if _has_video(checkpoint) else settings
    text, own = settings.get("text_config"), dict(parts.get(f"{part}_config") or {})
    if part == "audio":
        return PeAudioConfig(text_config=text, audio_config=own)
    own["vision_config"] = _image_config(own.get("vision_config") or {})
    return PeVideoConfig(text_config=text, video_config=own)


def _image_config(settings: Mapping[str, Any]) -> Any:
    """The configuration of the encoder of images. Its number of outputs is `num_classes`, which transformers 5.24 does
    not read in a configuration inside another one. Raises `ValueError` for settings with which timm would download or
    read other files, which it may unpickle."""
    from transformers import PeVideoEncoderConfig, TimmWrapperConfig

    complete = {**PeVideoEncoderConfig.sub_configs_defaults["vision_config"].init_kwargs, **settings}
    if not PLAIN_NAME.fullmatch(str(complete.get("architecture"))):
        raise ValueError(f"architecture {complete.get('architecture')!r} is not the name of a model of timm")
    for name, value in (complete.get("model_args") or {}).items():
        number = value is None or isinstance(value, bool | int | float | list | tuple)
        word = isinstance(value, str) and PLAIN_NAME.fullmatch(value) and not FILE_ARGUMENT.search(name)
        if name.startswith(("pretrained", "checkpoint")) or not (number or word):
            raise ValueError(f"model_args.{name} is not allowed")
    config = TimmWrapperConfig.from_dict(complete)
    config.num_labels = int(complete["num_classes"])
    return config


def _convert_all_but_codec(model: Any, dtype: torch.dtype) -> None:
    """Convert the weights of a model of sound to `dtype`, but not its audio codec, where bf16 would lose most."""
    for name, weight in model.named_parameters():
        if not name.startswith(CODEC):
            weight.data = weight.data.to(dtype)
    layer = model.audio_encoder.embedder.data_proj  # the first one after the codec
    layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0].to(layer.weight.dtype),))


def _missing_packages() -> list[str]:
    """Those of `VIDEO_PACKAGES` that cannot be imported."""
    missing = []
    for name in VIDEO_PACKAGES:
        try:
            import_module(name)
        except (ImportError, OSError, RuntimeError):  # also one that was built for another PyTorch
            missing.append(name)
    return missing


def _has_video(checkpoint: Checkpoint) -> bool:
    return str(checkpoint.config["model_type"]) == "pe_audio_video"
