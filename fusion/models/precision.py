"""The names of the encoders' precisions in parameters and on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensebind.fusion.core.space import SpaceError

if TYPE_CHECKING:
    import torch

AUTO_DTYPE = "auto"  # each space decides
DTYPE_NAMES = ("float32", "bf16", "fp16")


def torch_dtypes() -> dict[str, torch.dtype]:
    """Name → PyTorch dtype, for all `DTYPE_NAMES`."""
    import torch

    return dict(zip(DTYPE_NAMES, (torch.float32, torch.bfloat16, torch.float16), strict=True))


def torch_dtype(name: str) -> torch.dtype:
    """The PyTorch dtype called `name`; `AUTO_DTYPE` is float32 here. Raises `SpaceError` for other names."""
    known = torch_dtypes()
    known[AUTO_DTYPE] = known["float32"]
    if name not in known:
        raise SpaceError(f"dtype '{name}' is not one of {AUTO_DTYPE}, {', '.join(DTYPE_NAMES)}")
    return known[name]
