"""Requests the vectors of phrases from the embedder's service `embed_text`. Repeats a request without an answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node

from sensebind.fusion.io import messages
from sensebind.nodes.support.message_types import message_type

FIRST_TIMEOUT = 0.75  # s after which a request is repeated; doubled after each repetition
MAX_TIMEOUT = 48.0  # s
MAX_OPEN_CALLS = 4  # calls whose answers are still accepted
RETRY_PERIOD = 2.0  # s from a request whose answer cannot be used to the next one


class PhraseRequests:
    """The calls of one node to `embed_text`. All methods and `on_answer` run in the executor's thread.

    An answer is lost if the embedder ends, or if it discovers this node only after the request: then DDS drops the
    answer. So the request is repeated after a time. The answer to an earlier request is used too, because a slow
    embedder may answer late.

    `on_answer(phrases, response)` uses a response. It returns whether it could.
    """

    def __init__(self, node: Node, on_answer: Callable[[list[str], Any], bool]) -> None:
        self._client = node.create_client(message_type(messages.EMBED_TEXT_TYPE), "embed_text")
        self._on_answer = on_answer
        self._phrases: list[str] = []  # of the newest request
        self._timeout = FIRST_TIMEOUT
        self._next_request = 0.0  # steady time in seconds before which the same request is not repeated
        self._open_calls: deque[Any] = deque()
        self.repeated = 0  # requests that were repeated because no answer came

    def request(self, phrases: Sequence[str], now: float) -> None:
        """Request the vectors of these phrases. Call it repeatedly until they have arrived.

        Does nothing while there is no service, and while it is too early to repeat the same request. `now`: steady time
        in seconds.
        """
        is_new = list(phrases) != self._phrases
        if not self._client.service_is_ready() or (not is_new and now < self._next_request):
            return
        if is_new:
            self._phrases, self._timeout = list(phrases), FIRST_TIMEOUT
        elif self._open_calls:
            self.repeated += 1
            self._timeout = min(2 * self._timeout, MAX_TIMEOUT)
        self._next_request = now + self._timeout
        if len(self._open_calls) == MAX_OPEN_CALLS:
            self._client.remove_pending_request(self._open_calls.popleft())
        call = self._client.call_async(message_type(messages.EMBED_TEXT_TYPE).Request(texts=self._phrases))
        self._open_calls.append(call)
        requested = self._phrases
        call.add_done_callback(lambda future: self._on_done(requested, future, now))

    def restart(self) -> None:
        """Ignore the answers to earlier requests, for example because the space has changed."""
        for call in self._open_calls:
            self._client.remove_pending_request(call)
        self._open_calls.clear()
        self._phrases = []

    def close(self, node: Node) -> None:
        """Ignore all answers, and destroy the client."""
        self.restart()
        node.destroy_client(self._client)

    def _on_done(self, phrases: list[str], future: Any, requested_at: float) -> None:
        if future not in self._open_calls:
            return
        self._open_calls.remove(future)
        is_used = future.exception() is None and self._on_answer(phrases, future.result())
        if phrases == self._phrases:
            self._phrases = [] if is_used else self._phrases
            self._next_request = requested_at + RETRY_PERIOD
