"""A hub with its spokes, as one space."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.space import Encoder, Hub, Preparation, Space, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.spokes import joined
from sensebind.fusion.models.spokes import spoke as spokes
from sensebind.fusion.models.spokes.joined import JoinedSpoke, SourceLoader
from sensebind.fusion.models.spokes.spoke import IMAGE, JOINED, SpokeSpec


class LoadedSpoke(Protocol):
    """What a bound space uses of a spoke: `Spoke` and `JoinedSpoke`."""

    @property
    def is_compiled(self) -> bool: ...

    @property
    def graph_capturable(self) -> bool: ...

    def tensor(self, window: Window) -> Tensor: ...

    def device_input(self, window: Window) -> Tensor: ...

    def preparation(self) -> Preparation | None: ...

    def embed(self, batch: Tensor) -> Tensor: ...

    def embed_async(self, batch: Tensor) -> EmbeddingFuture: ...

    def embed_on_device(self, batch: Tensor) -> Tensor: ...


class BoundSpace(Space):
    """A hub with its spokes. A spoke embeds its modality in place of the hub; the hub embeds all others.

    The id identifies the hub and the files of all spokes, also of those that are not loaded. `files`: spoke files; of
    several for one modality the last is used. `modalities`: spokes to load (None: all). `load_source` loads the spaces
    of joined spokes.

    Spokes of other kinds need a `Hub`.
    """

    id: str

    def __init__(
        self,
        hub: Space,
        files: Sequence[Path],
        modalities: Iterable[str] | None = None,
        device: str = "cpu",
        load_source: SourceLoader | None = None,
    ) -> None:
        self.hub, self._load_source = hub, load_source
        self._spoke_files: dict[str, Path] = {}
        self.specs: dict[str, SpokeSpec] = {}
        for path in files:
            spec = spokes.read_spec(path)
            self._spoke_files[spec.modality], self.specs[spec.modality] = path, spec
        total, name = hashlib.sha256(hub.id.encode()), hub.id.partition("@")[0]
        self._spoke_ids: dict[str, str] = {}  # modality → id of the encoder in its spoke file
        for modality in sorted(self._spoke_files):
            digest = spokes.sha256_of_spoke(self._spoke_files[modality])
            self._spoke_ids[modality] = f"{name}-{modality}@{digest[:12]}"
            total.update(digest.encode())
        self.id = f"{name}@{total.hexdigest()[:12]}"
        self.device, self.dtype = torch.device(device), hub.dtype
        self._load_lock = threading.Lock()  # one spoke is loaded at a time
        self._spokes: Mapping[str, LoadedSpoke] = {}  # replaced, never changed, so it can be read without the lock
        for modality in self._spoke_files if modalities is None else set(modalities) & set(self._spoke_files):
            self.load_spoke(modality)

    @property
    def dimension(self) -> int:
        return self.hub.dimension

    @property
    def licence(self) -> str:
        """The licence of the hub, and those of the sources of joined spokes."""
        sources = [spoke.source.licence for spoke in self._spokes.values() if isinstance(spoke, JoinedSpoke)]
        return "; ".join(dict.fromkeys([self.hub.licence, *sources]))

    @property
    def modalities(self) -> tuple[str, ...]:
        return (*(m for m in self.hub.modalities if m not in self._spokes), *sorted(self._spokes))

    @property
    def logit_scales(self) -> Mapping[str, float]:
        return {**self.hub.logit_scales, **{m: s.logit_scale for m, s in self.specs.items()}}

    @property
    def logit_biases(self) -> Mapping[str, float]:
        """See `core.space.Space`. A spoke has none."""
        return {m: bias for m, bias in self.hub.logit_biases.items() if m not in self.specs}

    @property
    def trained_windows(self) -> Mapping[str, TrainedWindow]:
        return {**self.hub.trained_windows, **{m: s.trained_window for m, s in self.specs.items()}}

    def tensor(self, window: Window) -> Tensor:
        """See `core.space.Space`."""
        spoke = self._spokes.get(window.modality)
        return spoke.tensor(window) if spoke else self.hub.tensor(window)

    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """See `core.space.Space`."""
        spoke = self._spokes.get(modality)
        return spoke.embed(batch) if spoke else self.hub.embed(modality, batch)

    def embed_async(self, modality: str, batch: Tensor) -> EmbeddingFuture:
        """See `core.space.Space`."""
        spoke = self._spokes.get(modality)
        return spoke.embed_async(batch) if spoke else self.hub.embed_async(modality, batch)

    @property
    def compiled_modalities(self) -> frozenset[str]:
        """See `core.space.Space`."""
        of_spokes = {m for m, spoke in self._spokes.items() if spoke.is_compiled}
        return (self.hub.compiled_modalities - self._spokes.keys()) | of_spokes

    def device_input(self, window: Window) -> Tensor:
        """See `core.space.Space`."""
        spoke = self._spokes.get(window.modality)
        return spoke.device_input(window) if spoke else self.hub.device_input(window)

    def preparation(self, modality: str) -> Preparation | None:
        """See `core.space.Space`."""
        spoke = self._spokes.get(modality)
        return spoke.preparation() if spoke else self.hub.preparation(modality)

    def encoder(self, modality: str) -> Encoder:
        """See `core.space.Space`."""
        spoke = self._spokes.get(modality)
        return spoke.embed_on_device if spoke else self.hub.encoder(modality)

    def graph_capturable(self, modality: str) -> bool:
        """See `core.space.Space`."""
        spoke = self._spokes.get(modality)
        return spoke.graph_capturable if spoke else self.hub.graph_capturable(modality)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """See `core.space.Space`."""
        return self.hub.embed_text(texts)

    def encoder_id(self, modality: str) -> str:
        """See `core.space.Space`. A spoke's id identifies its file, which names its hub or source; the other encoders
        have the hub's ids."""
        return self._spoke_ids.get(modality) or self.hub.encoder_id(modality)

    def competence(self, modality: str, phrases: Sequence[str]) -> Tensor:
        """See `core.space.Space`. Of a joined spoke: the source's. Of a spoke for images: the hub's, because the spoke
        was trained to match the hub's images. Of a spoke for sounds or series that does not ship with the hub: 1, not
        known. Of all others: the hub's."""
        space = self._judge(modality)
        return space.competence(modality, phrases) if space else super().competence(modality, phrases)

    def limits_classifiers(self, modality: str) -> bool:
        """See `core.space.Space`. Stated by the same space as the competence; False if it is not known."""
        space = self._judge(modality)
        return space.limits_classifiers(modality) if space else super().limits_classifiers(modality)

    def nearest_phrases(self, modality: str, phrase: str) -> list[str]:
        """See `core.space.Space`. Stated by the same space as the competence; none if it is not known."""
        space = self._judge(modality)
        return space.nearest_phrases(modality, phrase) if space else super().nearest_phrases(modality, phrase)

    def _judge(self, modality: str) -> Space | None:
        """The space that states which phrases a modality can recognise. None: it is not known."""
        spoke = self._spokes.get(modality)
        if isinstance(spoke, JoinedSpoke):
            return spoke.source
        shipped = self.hub.shipped_spokes if isinstance(self.hub, Hub) else ()
        file = self._spoke_files.get(modality)
        if file is None or file in shipped or self.specs[modality].kind == IMAGE:
            return self.hub
        return None

    def object_names(self, modality: str) -> tuple[str, ...]:
        """See `core.space.Space`. Spokes locate no objects."""
        return () if modality in self._spokes else self.hub.object_names(modality)

    def named_objects(self, phrases: Sequence[str]) -> list[str]:
        """See `core.space.Space`."""
        return self.hub.named_objects(phrases)

    def load_spoke(self, modality: str) -> LoadedSpoke:
        """The spoke of a modality, loaded by the first call. Raises `SpaceError`, and `KeyError` if there is none."""
        with self._load_lock:
            if modality not in self._spokes:
                self._spokes = {**self._spokes, modality: self._read_spoke(modality)}
            return self._spokes[modality]

    def _read_spoke(self, modality: str) -> LoadedSpoke:
        path = self._spoke_files[modality]
        if self.specs[modality].kind == JOINED:
            return joined.load(path, self.hub, self.device, self._load_source)
        if not isinstance(self.hub, Hub):
            raise SpaceError(
                f"space {self.hub.id} has no image encoder and cannot use the spoke '{path}': leave it out"
            )
        return spokes.load(path, self.hub, self.device, self.hub.compiled)


def bind_spokes(
    hub: Space,
    files: Sequence[str | Path],
    modalities: Iterable[str] | None = None,
    device: str = "cpu",
    load_source: SourceLoader | None = None,
) -> Space:
    """`hub` with the spokes that it ships and those in `files`; `hub` itself if there are none.

    Raises `SpaceError` if files are missing, damaged or made for another hub, or if a file needs a `Hub` and `hub` is
    none. A joined spoke needs only the hub's text; `load_source` loads its source.
    """
    shipped = hub.shipped_spokes if isinstance(hub, Hub) else ()
    paths = [*shipped, *(Path(file) for file in files)]
    if not paths:
        return hub
    if not isinstance(hub, Hub) and any(spokes.read_spec(path).kind != JOINED for path in paths):
        raise SpaceError(f"space {hub.id} has no image encoder and cannot use spokes: leave out 'spokes'")
    return BoundSpace(hub, paths, modalities, device, load_source)
