"""The contrastive loss, and its gradients for batches that do not fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def info_nce(
    spoke: Tensor, hub: Tensor, scale: Tensor | float, class_ids: Tensor, negatives: Tensor | None = None,
    negative_groups: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Symmetric InfoNCE (van den Oord et al., arXiv 1807.03748; both directions as in ImageBind, section 3.1).

    `spoke` and `hub` are unit vectors (B, D). `scale` is one over the temperature. `groups` (B,): pairs of the same
    group are never negatives of each other; the probability of a group is the sum over its members. `negatives` (N, D)
    with their `negative_groups` (N,) are further vectors of the hub, used as negatives from spoke to hub. The hub is
    frozen, so they are never out of date. Returns the mean loss of both directions.
    """
    same = class_ids[:, None] == class_ids[None, :]
    logits = scale * spoke @ hub.T
    forward, positive = logits, same
    if negatives is not None and negative_groups is not None and len(negatives):
        other = class_ids[:, None] != negative_groups[None, :]
        more = (scale * spoke @ negatives.T).masked_fill(~other, float("-inf"))
        forward = torch.cat([logits, more], dim=1)
        positive = torch.cat([same, torch.zeros_like(other)], dim=1)
    return (_cross_entropy(forward, positive) + _cross_entropy(logits.T, same)) / 2


def _cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    """Mean over the rows of minus the log of the summed probability of the positives, both (B, N)."""
    positives = logits.masked_fill(~positive, float("-inf")).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - positives).mean()


def gradient_cached_backward(
    encode: Callable[[Tensor], Tensor], inputs: Tensor, loss: Callable[[Tensor], Tensor], chunk: int
) -> float:
    """Gradients of `loss(encode(inputs))` with only `chunk` inputs in memory (Gao et al., arXiv 2101.06983).

    It computes all vectors without a graph, then the loss and its gradient for each vector. Then it encodes each chunk
    again with a graph and propagates these gradients. `encode` must return the same vectors both times; the state of
    the random numbers is restored for dropout. Returns the loss.
    """
    if len(inputs) <= chunk:
        value = loss(encode(inputs))
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())
    states: list[Tensor] = []
    parts: list[Tensor] = []
    with torch.no_grad():
        for piece in inputs.split(chunk):
            states.append(torch.get_rng_state())
            parts.append(encode(piece))
    vectors = torch.cat(parts).requires_grad_()
    value = loss(vectors)
    value.backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    for piece, state, gradient in zip(inputs.split(chunk), states, vectors.grad.split(chunk), strict=True):
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        encode(piece).backward(gradient)  # type: ignore[no-untyped-call]
        torch.set_rng_state(after)
    return float(value.detach())
