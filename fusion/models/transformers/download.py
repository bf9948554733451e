"""Downloads models of Hugging Face. Only `sensebind weights fetch` calls this; a node never does."""

from __future__ import annotations

from pathlib import Path

from sensebind.fusion.core.space import SpaceError

FILES = ("model.safetensors", "model-*.safetensors", "*.json", "*.txt", "*.model")  # weights, settings, tokenizer
TIMEOUT = 10.0  # s: to wait for the first answer


def fetch(name: str, revision: str = "") -> Path:
    """Download the model `name` (owner/model) at `revision` (empty: the newest), with a progress bar.

    Returns its folder. Files that are there already are not downloaded again. No code and no pickled weights are
    downloaded. Raises `SpaceError` if the package huggingface_hub, the connection or the model is missing.
    """
    try:
        from huggingface_hub import HfApi, snapshot_download
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
        HfApi().model_info(name, revision=revision or None, timeout=TIMEOUT)
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(FILES), etag_timeout=TIMEOUT)
        )
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
