"""The scores of prompts, as a user of a replay sees them: output bag, report, Rerun, layout for Foxglove."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.paths import ROOT
from helpers.patrols import record_patrol
from helpers.report_examples import START, Page, event, report
from sensebind.cli import main
from sensebind.fusion.core.events import Evidence, Score, intervals_from_events
from sensebind.fusion.core.samples import AUDIO, SECOND, VISION
from sensebind.fusion.io.messages import stamp_to_ns
from sensebind.fusion.io.recordings import Recording
from sensebind.report import render_report
from sensebind.report.foxglove_layout import foxglove_layout
from sensebind.report.score_series import ScoreCollector, ScoreSeries

THRESHOLDS = {"cat": (0.6, 0.35), "fire": (0.4, 0.2)}


def example_scores(labels: tuple[str, ...] = ("cat", "fire"), ticks: int = 18) -> ScoreSeries:
    """Vision at every tick; audio only at every second one."""
    collector = ScoreCollector(
        dict.fromkeys(labels, (0.6, 0.35)) | {k: v for k, v in THRESHOLDS.items() if k in labels}
    )
    for number in range(1, ticks):
        tick = START + number * SECOND // 2
        modalities = (VISION, AUDIO) if number % 2 else (VISION,)
        evidence = tuple(Evidence(m, 0.05 * number, True, tick - SECOND, tick, weight=0.5) for m in modalities)
        score = Score(0.05 * number, evidence, similarities=(0.2,) * len(modalities))
        collector.add(tick, {labels[0]: score, labels[-1]: replace(score, score=0.1)})
    return collector.series()


def test_scores_are_collected_by_label_and_modality() -> None:
    series = example_scores()
    assert series.labels == ("cat", "fire") and series.scores.shape == (17, 2) and not series.is_empty
    np.testing.assert_allclose(series.scores[:, 0], 0.05 * np.arange(1, 18), atol=1e-6)
    assert list(series.sensors) == [VISION, AUDIO]
    audio = series.sensors[AUDIO]
    assert len(audio.ticks) == 9 and np.allclose(audio.similarity, 0.2) and np.allclose(audio.weight, 0.5)
    np.testing.assert_array_equal(audio.ticks, series.ticks[::2])
    assert ScoreCollector({}).series().is_empty and ScoreCollector(THRESHOLDS).series().is_empty


def test_the_report_has_curves_of_fused_score_modality_scores_and_similarities_with_the_thresholds() -> None:
    text = render_report(report(scores=example_scores()))
    page = Page(text)
    assert "Scores" in page.text and "onset 0.60, offset 0.35" in page.text and "onset 0.40, offset 0.20" in page.text
    drawings = [a["aria-label"] for tag, a in page.tags if tag == "svg" and "aria-label" in a]
    for label in ("cat", "fire"):
        assert f"{label}: scores over time" in drawings
        for modality in (VISION, AUDIO):
            assert f"{label}: cosine similarity of {modality}" in drawings
    for kind, count in (("onset", 2), ("offset", 2), ("all", 2)):
        assert sum(tag == "path" and a.get("class") == kind for tag, a in page.tags) == count
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    outputs = [a for tag, a in page.tags if tag == "output"]
    rows = [data["series"][int(a["data-s"])]["v"][int(a["data-r"])] for a in outputs]
    assert [50 * n for n in range(1, 18)] in rows, "the fused score, in thousandths"
    assert [200] * 9 in rows and [200] * 17 in rows, "similarities, only where there are any"


def test_the_report_of_many_prompts_is_of_limited_size_and_escapes_their_labels() -> None:
    labels = tuple(f"<b>{number:02}</b>" for number in range(60))
    text = render_report(report(scores=example_scores(labels, 4000), end=START + 2000 * SECOND))
    assert len(text) < 5_000_000 and "<b>00" not in text and "&lt;b&gt;00" in text
    assert "Only the 24 prompts with the highest scores are shown, of 60." in Page(text).text
    assert "Scores" not in Page(render_report(report())).text, "a run without scores has no such section"


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a replay of the patrol."""
    folder = tmp_path_factory.mktemp("scores")
    record_patrol(folder / "bag", duration=9.0)
    config = str(ROOT / "config" / "demo.yaml")
    assert main(["replay", str(folder / "bag"), "--config", config, "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_the_output_bag_has_the_scores_of_every_tick(replayed: Path) -> None:
    with Recording(replayed / "outputs") as bag:
        types = {topic.name: topic.type for topic in bag.topics}
        found = [message for _, _, _, message in bag.messages(["/prompt_scores"])]
        fused = [stamp_to_ns(m.header.stamp) for _, _, _, m in bag.messages(["/embeddings/fused"])]
        events = [m for _, _, _, m in bag.messages(["/events"]) if m.kind == 0 and m.phase == 0]
    assert types["/prompt_scores"] == "sensebind_msgs/msg/PromptScores"
    assert [stamp_to_ns(m.header.stamp) for m in found] == fused and [m.sequence for m in found] == list(
        range(len(fused))
    )
    labels = ["car", "cat", "coffee", "dog", "fire", "person", "rocket"]
    assert all([p.label for p in m.prompts] == labels and m.space.startswith("starter@") for m in found)
    by_tick = {stamp_to_ns(m.header.stamp): {p.label: p for p in m.prompts} for m in found}
    assert events
    for one in events:
        prompt = by_tick[stamp_to_ns(one.header.stamp)][one.label]
        assert prompt.score == one.score
        assert [(m.modality, m.sensor, m.score, m.weight, m.competence) for m in prompt.modalities] == [
            (e.modality, e.sensor, e.score, e.weight, e.competence) for e in one.evidence
        ]
        assert all(-1 <= m.similarity <= 1 and m.similarity for m in prompt.modalities)


PATH = re.compile(
    r"""(/[a-z_/]+)(\{label==(?:"[^"]*"|'[^']*')\})?((?:\.[a-z_]+(?:\[:\])?(?:\{[a-z_]+==(?:"[^"]*"|'[^']*')\})?)*)"""
)


def panels_in(node: Any, configurations: dict[str, Any]) -> list[str]:
    """The ids of the panels in a layout, also those in tabs."""
    if isinstance(node, str):
        tabs = configurations[node].get("tabs", []) if node.startswith("Tab!") else []
        return [node, *(name for tab in tabs for name in panels_in(tab["layout"], configurations))]
    assert set(node) == {"direction", "first", "second", "splitPercentage"} and node["direction"] in ("row", "column")
    assert 0 < node["splitPercentage"] < 100
    return panels_in(node["first"], configurations) + panels_in(node["second"], configurations)


def test_the_layout_for_foxglove_shows_the_topics_and_labels_of_the_outputs(replayed: Path) -> None:
    layout = json.loads((replayed / "foxglove_layout.json").read_text())
    assert set(layout) == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    configurations = layout["configById"]
    assert sorted(panels_in(layout["layout"], configurations)) == sorted(configurations), "each panel is there once"
    with Recording(replayed / "outputs") as bag:
        topics = {topic.name for topic in bag.topics}
        message = next(m for _, _, _, m in bag.messages(["/prompt_scores"]) if len(m.prompts[0].modalities) == 5)
    for modality in ("vision", "depth", "thermal"):
        image = configurations[f"Image!{modality}"]["imageMode"]
        assert image["imageTopic"] in topics and set(image["annotations"]) <= topics
    paths = [path["value"] for own in configurations.values() for path in own.get("paths", ())]
    assert "0.6" in paths and "0.35" in paths, "lines of the thresholds"
    for path in (path for path in paths if not re.fullmatch(r"[0-9.]+", path)):
        found = PATH.fullmatch(path)
        assert found and found[1] in topics, path
        if found[1] == "/prompt_scores":
            assert isinstance(value_at(message, found[3]), float), path
    assert '/prompt_scores.prompts[:]{label=="person"}.score' in paths
    assert '/prompt_scores.prompts[:]{label=="person"}.modalities[:]{modality=="audio"}.similarity' in paths
    assert '/events{label=="coffee"}.phase' in paths
    assert {own["topicPath"] for own in configurations.values() if "topicPath" in own} == {
        "/events", "/prompt_scores.prompts[:]",
    }  # fmt: skip


def value_at(message: Any, path: str) -> Any:
    """The value of a message at a path with filters that select one element of each list."""
    value = message
    for name, several, field, _, wanted in re.findall(
        r"""\.([a-z_]+)(\[:\])?(?:\{([a-z_]+)==(["'])(.*?)\4\})?""", path
    ):
        value = getattr(value, name)
        if several:
            (value,) = (item for item in value if getattr(item, field) == wanted)
    return value


def test_labels_with_quotation_marks_are_written_as_message_paths_allow() -> None:
    thresholds = {'the "box"': (0.6, 0.35), "it's": (0.6, 0.35), '"it\'s"': (0.6, 0.35)}
    layout = foxglove_layout(thresholds, [VISION], [])
    paths = [path["value"] for path in layout["configById"]["Plot!scores"]["paths"]]
    assert paths[:2] == [
        "/prompt_scores.prompts[:]{label=='the \"box\"'}.score", '/prompt_scores.prompts[:]{label=="it\'s"}.score',
    ]  # fmt: skip
    assert len([path for path in paths if path.startswith("/")]) == 2, "there is no way to write the third"
    empty = foxglove_layout({}, [], [])
    assert sorted(panels_in(empty["layout"], empty["configById"])) == sorted(empty["configById"])


def test_the_shipped_layout_is_that_of_the_shipped_prompts(tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("layout", ROOT / "docs" / "foxglove_layout.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.write_layout(tmp_path / "layout.json")
    shipped = ROOT / "config" / "foxglove_layout.json"
    assert (tmp_path / "layout.json").read_text() == shipped.read_text(), "run `make docs`"


def test_a_rerun_file_has_the_scores_and_thresholds_of_each_label(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    from sensebind.report.rerun_file import RerunFile

    file = RerunFile(tmp_path / "x.rrd", "x")
    file.finish([], {}, intervals_from_events(event("cat", 2, 5)), (), example_scores(("a/b", "cat")))
    data = (tmp_path / "x.rrd").read_bytes()
    for name in ("cat/all", "cat/vision", "cat/audio", "cat/thresholds", "a_b/all", "a_b/thresholds"):
        assert f"scores/{name}".encode() in data, name
