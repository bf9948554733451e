"""The precisions of encoders, by the names that parameters and the command line use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensebind.fusion.core.space import SpaceError

if TYPE_CHECKING:
    import torch

AUTO = "auto"  # each space decides
PRECISIONS = ("float32", "bf16", "fp16")


def dtypes() -> dict[str, torch.dtype]:
    """Name → PyTorch's type, of all `PRECISIONS`."""
    import torch

    return dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))


def dtype_of(name: str) -> torch.dtype:
    """The type that `name` stands for; `AUTO` is float32 here. Raises `SpaceError` for other names."""
    known = dtypes()
    known[AUTO] = known["float32"]
    if name not in known:
        raise SpaceError(f"dtype '{name}' is not one of {AUTO}, {', '.join(PRECISIONS)}")
    return known[name]
