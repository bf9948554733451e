"""Downloads models of Hugging Face. Only `sensebind weights fetch` calls this; a node never does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sensebind.fusion.core.space import SpaceError

FILES = ("model.safetensors", "model-*.safetensors", "*.json", "*.txt", "*.model")  # weights, settings, tokenizer
TIMEOUT = 10.0  # s: to wait for the first answer


def fetch(name: str, revision: str = "", bar_class: type[Any] | None = None) -> Path:
    """Download the model `name` (owner/model) at `revision` (empty: the newest). `bar_class`: a subclass of tqdm that
    shows the progress; None: that of huggingface_hub, which shows nothing outside of a terminal.

    Returns its folder. Files that are there already are not downloaded again, unless their size is wrong. No code and
    no pickled weights are downloaded. Raises `SpaceError` if the package huggingface_hub, the connection or the model
    is missing.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_download, snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise SpaceError("downloads need the package huggingface_hub: pip install huggingface_hub") from error
    try:
        # Asked first, because this fails at once where `snapshot_download` tries again for 20 s.
        commit = HfApi().model_info(name, revision=revision or None, timeout=TIMEOUT).sha
        wanted = {"revision": revision or None, "allow_patterns": list(FILES), "etag_timeout": TIMEOUT}
        folder = Path(snapshot_download(name, tqdm_class=bar_class, **wanted))
        for damaged in _files_of_wrong_size(folder, HfApi().list_repo_tree(name, revision=commit, recursive=True)):
            hf_hub_download(name, damaged, revision=commit, etag_timeout=TIMEOUT, force_download=True)
    except HFValidationError as error:
        raise SpaceError(f"'{name}' is not the name of a model: write owner/model") from error
    except GatedRepoError as error:
        raise SpaceError(
            f"'{name}' is only for users who accepted its licence: accept it on its page, then run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise SpaceError(f"'{name}' has no revision '{revision}'") from error
    except RepositoryNotFoundError as error:
        raise SpaceError(f"Hugging Face has no model '{name}', or it is private: check the name") from error
    except HfHubHTTPError as error:
        raise SpaceError(f"'{name}' cannot be downloaded; the server answered: {str(error).splitlines()[0]}") from error
    except Exception as error:  # of the HTTP library, which differs between versions of huggingface_hub
        raise SpaceError(
            f"'{name}' cannot be downloaded ({str(error).splitlines()[0]}). On a computer with a connection, run: "
            f"sensebind weights fetch {name}, then copy its folder here and set space to transformers:<folder>"
        ) from error
    if not any(folder.glob("model*.safetensors")):
        raise SpaceError(f"'{name}' has no weights in safetensors, and pickled weights are not loaded: choose another")
    return folder


def _files_of_wrong_size(folder: Path, entries: Iterable[Any]) -> Iterator[str]:
    """The files in `folder` that have another size than on the server (`entries` of its tree), as after a full disk."""
    for entry in entries:
        size, file = getattr(entry, "size", None), folder / entry.path
        if size is not None and file.is_file() and file.stat().st_size != size:
            yield entry.path
