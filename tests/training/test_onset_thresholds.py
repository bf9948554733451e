"""`sensebind replay --suggest`: onset thresholds from the truth, scored on blocks that they were not chosen on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.patrols import record_patrol
from helpers.ros_processes import peer, ros_environment, running
from helpers.scripted_modalities import PROMPTS, ROOM, SPACE, START, ScriptedModalities, embed_text
from sensebind.cli import main
from sensebind.evaluation.matching import Counts
from sensebind.evaluation.run_recordings import StepRecorder, TrackerStep
from sensebind.evaluation.spans import Spans
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.lifecycle import LifecycleOptions
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.io.ground_truth import read_truth, write_truth
from sensebind.replay.session import Settings
from sensebind.training.onset_thresholds import (
    ThresholdSuggestion,
    best_candidate,
    block_borders,
    suggest_thresholds,
    suggestion_table,
)

OPTIONS = PromptOptions(lifecycle=LifecycleOptions(min_duration=0.0), calibration="none")


def stream(strengths: Sequence[float]) -> tuple[list[TrackerStep | None], Spans]:
    """Steps of a camera that sees a dog for 4 s after every 6 s, as clearly as the strengths say; and the truth."""
    world, rows = ScriptedModalities(noise=0.1), []
    tracker = StepRecorder([PromptDetector(PROMPTS, embed_text, OPTIONS)], SPACE)
    for strength in strengths:
        for what in [ROOM] * 12 + [{"room": 1.0, "dog": strength}] * 8:
            (tick,) = world.ticks(1)
            tracker.step(tick, {"vision": world.perceive("vision", what)})
        end = (world.tick - START) / SECOND
        rows.append((end - 3.5, end + 0.5, "dog"))
    return tracker.steps, Spans.of(rows)


def suggestion(strengths: Sequence[float], truth: Spans | None = None, **changes: Any) -> ThresholdSuggestion:
    steps, true = stream(strengths)
    options = PromptOptions(lifecycle=LifecycleOptions(min_duration=0.0, **changes), calibration="none")
    found = suggest_thresholds(
        PromptDetector(PROMPTS, embed_text, options), steps, SPACE, true if truth is None else truth, START
    )
    assert [item.label for item in found] == ["car", "dog"] and found[0].best is None and found[0].events == 0
    return found[1]


def test_a_threshold_that_finds_all_events_is_suggested_for_a_label_that_is_missed() -> None:
    strengths = [0.5] * 6
    assert suggestion(strengths).counts == Counts(6, 0, 0), "there is a threshold that works"
    found = suggestion(strengths, onset_threshold=0.97, offset_threshold=0.6, immediate_onset_threshold=0.97)
    assert found.counts.f1 == 0.0 and found.events == 6 and found.blocks == 5
    assert found.suggested is not None and found.suggested < 0.8 and found.cross_validated == Counts(6, 0, 0)


def test_the_cross_validated_figure_is_not_that_of_the_data_that_the_threshold_was_chosen_on() -> None:
    strengths = [0.3, 0.6, 0.6, 0.6, 0.6, 0.45, 0.45]  # the last two are not in the truth, and the first is weak
    _, everything = stream(strengths)
    truth = everything.select(range(5))
    found = suggestion(strengths, truth)
    assert found.best is not None and found.cross_validated.f1 is not None
    chosen_on_the_same_data = suggestion(strengths, truth, onset_threshold=found.best).counts.f1
    assert chosen_on_the_same_data is not None and found.cross_validated.f1 < chosen_on_the_same_data - 0.1
    assert found.cross_validated.hits + found.cross_validated.missed == 5, "every event is scored once"


def test_the_threshold_for_a_block_is_not_chosen_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from sensebind.training import onset_thresholds

    given: list[list[Counts]] = []

    def remember(counts: Sequence[Counts]) -> int:
        given.append(list(counts))
        return best_candidate(counts)

    monkeypatch.setattr(onset_thresholds, "best_candidate", remember)
    found = suggestion([0.5] * 5)
    *folds, whole = given
    assert len(folds) == 5 and all(one.hits + one.missed == 5 for one in whole)
    assert all(one.hits + one.missed == 4 for fold in folds for one in fold), "one event is left out of each"
    assert found.blocks == 5


def test_of_equal_candidates_the_middle_of_the_longest_run_is_best() -> None:
    good, bad = Counts(3, 0, 0), Counts(2, 1, 1)
    assert best_candidate([bad, good, bad, good, good, good, bad]) == 4
    assert best_candidate([good, good]) == 0 and best_candidate([Counts()] * 3) == 1
    truth = Spans.of([(t, t + 1.0, "dog") for t in (0.0, 10.0, 20.0, 40.0)])
    np.testing.assert_array_equal(block_borders(truth, 2), [15.0])
    np.testing.assert_array_equal(block_borders(truth, 4), [5.0, 15.0, 30.0])


def test_with_few_events_nothing_is_suggested_and_a_worse_one_is_named() -> None:
    found = suggestion([0.5] * 3)
    assert found.events == 3 and found.best is None and found.suggested is None
    text = suggestion_table([found, ThresholdSuggestion("cat", 9, 0.6, Counts(9, 0, 0), 0.3, Counts(4, 5, 5), 5)])
    few, worse = text.splitlines()[1:]
    assert "none: fewer than 4 events" in few and "3 hits" in few
    assert "the present one (0.3 is worse)" in worse and "0.44 (4 hits, 5 false, 5 missed), 5 blocks" in worse


CONFIG = """
/**:
  ros__parameters:
    space: starter
    device: cpu
    modalities: [vision]
    detectors: [prompt]
    prompt: {onset_threshold: 0.99, offset_threshold: 0.98, immediate_onset_threshold: 1.0, calibration: none}
    prompts:
      odd object: [an astronaut, a cat, a cup of coffee, a rocket launch]
      fire: [a fire]
"""


@pytest.fixture(scope="module")
def suggested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a recording, its truth, and the file that a replay suggests; and the output of that replay."""
    folder = tmp_path_factory.mktemp("suggest")
    record_patrol(folder / "bag")
    rows = [(onset, offset, "Odd_Object") for onset, offset, _ in read_truth(folder / "bag.truth.tsv")]
    write_truth(folder / "bag.truth.tsv", rows)
    (folder / "config.yaml").write_text(CONFIG)
    import contextlib
    import io

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = main(
            ["replay", str(folder / "bag"), "--config", str(folder / "config.yaml"), "--out", str(folder / "out"),
             "--suggest", str(folder / "new" / "suggested.yaml")]
        )  # fmt: skip
    assert status == 0
    return folder, output.getvalue()


def test_a_replay_prints_and_writes_a_threshold_that_a_second_replay_uses(suggested: tuple[Path, str]) -> None:
    folder, output = suggested
    row = next(line for line in output.splitlines() if line.startswith("odd object"))
    assert "0.99" in row and "4 blocks" in row and "not applied" in output
    assert "fire" in output and "none: fewer than 4 events" in output
    before, after = (Settings.read(folder / file) for file in ("config.yaml", "new/suggested.yaml"))
    threshold = after.detector["prompt.onset_thresholds.odd object"]
    assert 0.05 <= threshold < 0.99 and f"{threshold:g} " in row
    changed = {**before.changed_values(), "prompt.onset_thresholds.odd object": threshold}
    assert after.changed_values() == changed, "all other parameters are those of --config"
    config = str(folder / "new" / "suggested.yaml")
    assert main(["replay", str(folder / "bag"), "--config", config, "--out", str(folder / "again")]) == 0
    first, second = (json.loads((folder / out / "summary.json").read_text())["events"] for out in ("out", "again"))
    assert len(second) > len(first) and {event["label"] for event in second} == {"odd object"}


def test_the_suggested_file_is_a_parameter_file_of_the_nodes(suggested: tuple[Path, str]) -> None:
    from rcl_interfaces.srv import GetParameters

    folder, _ = suggested
    expected = Settings.read(folder / "new" / "suggested.yaml").detector["prompt.onset_thresholds.odd object"]
    environment = ros_environment("sensebind_msgs")
    arguments = ("--ros-args", "--params-file", str(folder / "new" / "suggested.yaml"), "-r", "__ns:=/robot1")
    with peer(environment) as me, running("detector", *arguments, environment=environment):
        client = me.node.create_client(GetParameters, "/robot1/detector/get_parameters")
        me.wait_until(client.service_is_ready, 60, "the detector")
        names = ["prompt.onset_thresholds.odd object", "prompt.onset_threshold", "prompts.odd object"]
        answer = client.call_async(GetParameters.Request(names=names))
        me.wait_until(answer.done, 30, "the parameters")
        own, common, phrases = answer.result().values
        assert own.double_value == expected and common.double_value == 0.99
        assert next(iter(phrases.string_array_value)) == "an astronaut"


def test_a_suggestion_needs_a_truth_and_overwrites_no_configuration(
    suggested: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = suggested
    (tmp_path / "bare").symlink_to(folder / "bag")
    config = str(folder / "config.yaml")
    arguments = ["--config", config, "--out", str(tmp_path / "out")]
    assert main(["replay", str(tmp_path / "bare"), *arguments, "--suggest", str(tmp_path / "s.yaml")]) == 2
    assert "bare.truth.tsv" in capsys.readouterr().err
    assert main(["replay", str(folder / "bag"), *arguments, "--suggest", config]) == 2
    assert f"the output '{config}' is the input" in capsys.readouterr().err and not (tmp_path / "out").exists()
