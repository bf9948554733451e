"""What comes from other programs is checked when it arrives: each kind of wrong message is refused with its cause."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers import poison_messages as poison
from helpers.poison_messages import EMBEDDINGS, EVENTS, SPACE, SPACES, Change
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.errors import printable
from sensebind.fusion.core.samples import AUDIO, SECOND, TEXT, VISION
from sensebind.fusion.io import messages
from sensebind.fusion.io.received.embeddings import received_embedding
from sensebind.fusion.io.received.events import received_event
from sensebind.fusion.io.received.phrases import (
    MAX_PHRASE_LENGTH,
    MAX_PHRASES,
    checked_phrases,
    received_phrases,
)
from sensebind.fusion.io.received.refusals import LOG_PERIOD, WARNING_PERIOD, Refusals
from sensebind.fusion.io.received.spaces import received_space
from sensebind.fusion.io.received.values import RefusedMessage, checked_text
from sensebind.fusion.io.recordings import RosbagsMessageFactory

MAKE = RosbagsMessageFactory()
KNOWN = received_space(poison.good_space(MAKE))


def ids(changes: list[Change]) -> list[str]:
    return [name for name, _, _ in changes]


def test_good_messages_pass_unchanged() -> None:
    assert KNOWN.sensors == {VISION: VISION, AUDIO: AUDIO} and KNOWN.dimension == SPACE.dimension
    assert KNOWN.longest_hop == 0.5 and KNOWN.topics == {VISION, AUDIO, FUSED}
    event = poison.good_event(MAKE)
    assert received_event(event) == messages.event_from_message(event)
    for modality in (VISION, FUSED):
        message = poison.good_embedding(MAKE, modality)
        found, sent = received_embedding(message, KNOWN, modality), messages.embedding_from_message(message)
        assert np.array_equal(found.vector, sent.vector) and found.sources == sent.sources and found.tick == sent.tick


def test_the_first_windows_of_a_simulation_whose_clock_begins_at_0_are_used() -> None:
    message = poison.good_embedding(MAKE, tick=SECOND // 2)
    assert received_embedding(message, KNOWN, VISION).start == -SECOND // 2
    event = messages.event_from_message(poison.good_event(MAKE))
    evidence = replace(event.evidence[0], start=-SECOND // 2, tick=SECOND // 2)
    early = replace(event, tick=SECOND // 2, onset=-SECOND // 4, evidence=(evidence,))
    assert received_event(messages.event_message(MAKE, early)) == early
    with pytest.raises(RefusedMessage):
        received_event(messages.event_message(MAKE, replace(early, tick=poison.START)))


ALONE = [change for change in EMBEDDINGS if change[0] not in poison.OTHER_TIMES]


@pytest.mark.parametrize("change", ALONE, ids=ids(ALONE))
def test_a_wrong_embedding_is_refused_with_its_cause(change: Change) -> None:
    name, cause, apply = change
    message = poison.good_embedding(MAKE)
    apply(message, MAKE)
    with pytest.raises(RefusedMessage) as refused:
        received_embedding(message, KNOWN, VISION)
    assert refused.value.cause == cause, name
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500


@pytest.mark.parametrize("change", EVENTS, ids=ids(EVENTS))
def test_a_wrong_event_is_refused_with_its_cause(change: Change) -> None:
    name, cause, apply = change
    message = poison.good_event(MAKE)
    apply(message, MAKE)
    with pytest.raises(RefusedMessage) as refused:
        received_event(message)
    assert refused.value.cause == cause, name
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500


@pytest.mark.parametrize("change", SPACES, ids=ids(SPACES))
def test_a_wrong_space_is_refused_with_its_cause(change: Change) -> None:
    name, cause, apply = change
    message = copy.deepcopy(poison.good_space(MAKE))
    apply(message, MAKE)
    with pytest.raises(RefusedMessage) as refused:
        received_space(message)
    assert refused.value.cause == cause, name
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500


def test_an_embedding_of_another_space_is_checked_for_itself() -> None:
    message = poison.good_embedding(MAKE)
    message.space, message.vector = "other@1", np.array([0.6, 0.8], np.float32)
    assert received_embedding(message, KNOWN, VISION).vector.size == 2
    message.vector[0] = np.nan
    with pytest.raises(RefusedMessage):
        received_embedding(message, KNOWN, VISION)


def test_only_the_bridge_accepts_vectors_of_a_modality_that_their_space_has_no_encoder_for() -> None:
    message = poison.good_embedding(MAKE, "radar")
    assert received_embedding(message, KNOWN, "radar", any_modality=True).modality == "radar"
    with pytest.raises(RefusedMessage, match="'radar' is not one of the space"):
        received_embedding(message, KNOWN, "radar")
    message.vector = np.array([0.6, 0.8], np.float32)  # the vectors of a space have one dimension
    with pytest.raises(RefusedMessage, match="vector has 2 numbers"):
        received_embedding(message, KNOWN, "radar", any_modality=True)
    message = poison.good_embedding(MAKE)
    message.modality = "radar"  # the space says that this sensor measures vision
    with pytest.raises(RefusedMessage, match="modality of sensor 'vision' is 'radar'"):
        received_embedding(message, KNOWN, VISION, any_modality=True)


def test_texts_of_any_language_pass_and_lines_are_not_forged() -> None:
    for text in ("Kühlschrank offen", "می‌خواهم", "👩‍🚒 feuer", "犬が吠える"):
        assert checked_text(text, "label") == text
    for text in ("a\nb", "a\rb", "a\x1b[31mb", "a\u2028b", "\udc00"):
        with pytest.raises(RefusedMessage):
            checked_text(text, "label")
        assert printable(text).isprintable()
    assert len(printable("x" * 10**6, 200)) < 250


# --- embed_text


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        ([], "no phrases"),
        (["a dog", ""], "phrase 2 of 2 is empty"),
        (["a dog", " \n "], "phrase 2 of 2 is empty"),
        (["a dog"] * (MAX_PHRASES + 1), "several requests"),
        (["a" * (MAX_PHRASE_LENGTH + 1)], "shorten"),
    ],
)
def test_a_request_that_cannot_be_served_gets_an_answer_that_says_what_to_do(texts: list[str], what: str) -> None:
    with pytest.raises(RefusedMessage, match=what):
        checked_phrases(texts)


def answer(space: ToySpace, phrases: list[str]) -> Any:
    vectors = space.embed_text(phrases).numpy()
    return SimpleNamespace(
        success=True,
        message="",
        embeddings=[messages.embedding_message(MAKE, Embedding(TEXT, 0, 0, space.id, 1.0, v)) for v in vectors],
        objects=["Person", ""],
        competences=messages.competence_messages(
            MAKE, {VISION: np.array([1.0, 0.25], np.float32)}, {VISION: [[], ["a cat"]]}
        ),
    )


def test_an_answer_is_used_only_if_it_fits_the_request() -> None:
    phrases = ["a person", "a tiger"]
    person, tiger = received_phrases(answer(SPACE, phrases), 2, KNOWN)
    assert (person.object, tiger.object) == ("Person", "") and tiger.nearest == {VISION: ["a cat"]}
    assert (person.competences, tiger.competences) == ({VISION: 1.0}, {VISION: 0.25})
    wrong: list[Any] = []
    for _ in range(6):
        wrong.append(answer(SPACE, phrases))
    wrong[0].embeddings.pop()
    wrong[1].embeddings[1].vector = np.full(SPACE.dimension, np.nan, np.float32)
    wrong[2].embeddings[1].modality = VISION
    wrong[3].objects = ["Person"]
    wrong[4].competences[0].competences = np.ones(1, np.float32)
    wrong[5].competences[0].competences = np.array([0.5, np.nan], np.float32)
    for item in wrong:
        with pytest.raises(RefusedMessage):
            received_phrases(item, 2, KNOWN)


# --- counts


def test_a_thousand_refusals_of_a_kind_are_counted_exactly_and_logged_once() -> None:
    refusals, lines = Refusals(), []
    for number in range(1000):
        for kind in ("embedding.not_finite", "event.kind"):
            lines.append(refusals.add(kind, f"text {number}", 0.01 * number))
    assert [line for line in lines if line] == ["text 0", "text 0"]
    assert refusals.values() == {
        "refused_messages": 2000,
        "refused.embedding.not_finite": 1000,
        "refused.event.kind": 1000,
    }
    assert "event.kind 1000" in refusals.warning(10.0) and refusals.warning(10.0 + WARNING_PERIOD) == ""
    assert refusals.add("event.kind", "again", 1.0 + LOG_PERIOD).startswith("again; 1000 of this kind since")
