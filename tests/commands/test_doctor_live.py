"""`sensebind doctor --live`: the accounting identity of running nodes, from diagnostics of any content."""

from __future__ import annotations

import sys
import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensebind.cli import main
from sensebind.commands.doctor import live
from sensebind.fusion.stream.accounting.identity import COUNTERS

GOOD = {
    **dict.fromkeys(COUNTERS, 0),
    "arrived": 90,
    "lost": 10,
    "decoded": 88,
    "undecodable": 2,
    "samples": 88,
    "used": 80,
    "superseded": 8,
    "windows": 20,
    "embedded": 15,
    "overload": 4,
    "in_flight": 1,
    "fused": 14,
    "unfused": 1,
}


def array(*statuses: tuple[Any, Any]) -> SimpleNamespace:
    """A message for `/diagnostics`: names and values of its statuses."""
    found = [
        SimpleNamespace(name=name, values=[SimpleNamespace(key=k, value=str(v)) for k, v in values])
        for name, values in statuses
    ]
    return SimpleNamespace(status=found)


def run(monkeypatch: pytest.MonkeyPatch, *messages: SimpleNamespace) -> int:
    found = live.LiveStatuses()
    for message in messages:
        found.add(message)
    monkeypatch.setattr(live, "received_statuses", lambda seconds: found.statuses)
    return main(["doctor", "--live"])


def test_each_sensor_has_its_lines_by_cause_with_lost_as_an_estimate_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = array(("motors", {"arrived": 3}.items()))  # of another program
    assert run(monkeypatch, other, array(("robot1/embedder: vision", GOOD.items()))) == 0
    text = capsys.readouterr().out
    assert "robot1/embedder: vision" in text and "motors" not in text and "UNACCOUNTED" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "published 100 = arrived 90 + lost (estimate) 10" in lines
    assert "windows 20 = embedded 15 + overload 4 + waiting 1" in lines
    assert "embedded 15 = fused 14 + unfused 1" in lines
    assert any(line.startswith("overload: the device is too slow") for line in lines), "a large loss"
    assert not any(line.startswith("undecodable:") for line in lines), "a small one"


TOPIC = {"arrived": 60, "lost": 4, "earlier": 0, "waiting": 3, "used.in_tick": 40, "dropped.late": 7}
TOPIC |= {"refused.not_unit": 10}


def of_topic(counts: dict[str, int], topic: str = "embeddings/front") -> Any:
    return {f"{topic}: {name}": count for name, count in counts.items()}.items()


def test_each_topic_of_a_detector_bridge_or_recorder_has_its_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = array(("detector: events", [("lost", 4), *of_topic(TOPIC), *of_topic(TOPIC, "embedding_space")]))
    assert run(monkeypatch, messages) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "detector: events, embedding_space" and "detector: events, embeddings/front" in lines
    assert lines.count("published 64 = arrived 60 + lost (estimate) 4") == 2
    assert lines.count("messages 60 = in_tick 40 + refused.not_unit 10 + late 7 + waiting 3") == 2
    assert any(line.startswith("late: embeddings come after their tick") for line in lines)
    assert any(line.startswith("refused.not_unit: other programs") for line in lines)
    assert run(monkeypatch, array(("bridge: clients", of_topic({**TOPIC, "waiting": 2})))) == 1
    assert "UNACCOUNTED 1" in capsys.readouterr().out


def test_what_is_unaccounted_and_the_lack_of_an_answer_are_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, array(("embedder: imu", {**GOOD, "used": 79}.items()))) == 1
    assert "UNACCOUNTED 1" in capsys.readouterr().out
    assert run(monkeypatch) == 1
    assert "no node of Sensebind answered" in capsys.readouterr().out


def test_without_ros_the_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "rclpy", None)
    assert main(["doctor", "--live", "--seconds", "0.1"]) == 2
    error = capsys.readouterr().err.strip()
    assert "needs ROS 2" in error and "\n" not in error


@pytest.mark.parametrize("arguments", [["--seconds", "3"], ["--live", "--security"]])
def test_options_that_do_not_fit_together_are_refused(arguments: list[str]) -> None:
    assert main(["doctor", *arguments]) == 2


VALUES = st.one_of(st.text(max_size=30), st.integers(), st.floats(), st.sampled_from(["9" * 400, "\x1b[2J", "٣", "-1"]))


KEYS = st.one_of(
    st.sampled_from(COUNTERS),
    st.builds(
        "{}: {}".format, st.text(max_size=9) | st.just("events"), st.text(max_size=9) | st.sampled_from([*TOPIC])
    ),
)


@given(st.lists(st.tuples(st.text(max_size=20), st.dictionaries(KEYS, VALUES)), max_size=4))
def test_no_content_of_diagnostics_stops_it_or_reaches_the_terminal_as_it_is(statuses: list[Any]) -> None:
    found, topic = live.LiveStatuses(), dict(of_topic(TOPIC, "events"))
    found.add(array(*((f"{name}\x1b[2J\n: x", {**GOOD, **topic, **values}.items()) for name, values in statuses)))
    text, _ = live.report(found.statuses)
    assert not any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for line in text for char in line)
    assert all(0 <= n < live.MAX_COUNT for counts in found.statuses.values() for n in counts.values())
    for number in range(live.MAX_STATUSES + 10):
        found.statuses.setdefault(str(number), GOOD)
    found.add(array(("one more", GOOD.items())))
    assert "one more" not in found.statuses, "any process can publish: what is kept is bounded"


def test_a_status_with_very_many_topics_and_causes_takes_bounded_memory() -> None:
    found = live.LiveStatuses()
    letters = [f"{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"]
    many = [pair for number in range(2 * live.MAX_STATUSES) for pair in of_topic(TOPIC, f"t{number}")]
    found.add(
        array(("bridge: clients", [*of_topic(TOPIC, "one"), *((f"one: dropped.{a}", 0) for a in letters), *many]))
    )
    assert len(found.statuses) == live.MAX_STATUSES
    assert len(found.statuses["bridge: clients, one"]) == live.MAX_ENDS
