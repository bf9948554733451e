"""Events of office sounds in noise, by level, beside a plain threshold on YAMNet's probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensebind.evaluation.metrics import score_run, table_cell
from sensebind.evaluation.real import yamnet_threshold
from sensebind.evaluation.real.office_sounds import class_words, level_streams, read_noisy_clips
from sensebind.evaluation.real.prompt_runs import settings_for
from sensebind.evaluation.real.sound_streams import SoundStream, join_in_robot_noise, read_clips
from sensebind.evaluation.real.sounds_in_noise import class_prompts, run_stream, sound_metrics
from sensebind.evaluation.real.yamnet_threshold import ThresholdSetting
from sensebind.evaluation.spaces.sounds import ESC10, OFFICE
from sensebind.fusion.core.samples import AUDIO
from sensebind.fusion.models.starter.space import StarterSpace
from sensebind.replay.progress import track

CHOICE_FOLD, CHOICE_SEEDS, CHOICE_SECONDS, CHOICE_SNR = "1", (1, 2), 300.0, 10.0  # streams that choose the threshold


def evaluate_levels(
    folder: Path, baseline: Path | None, seed: int, config: Path | None = None, device: str | None = None
) -> dict[str, Any]:
    """`levels`: level ("6 dB") → `sound_metrics`, with the prompts "the sound of <class>".

    With `baseline`, the folder of ESC-10, each has `yamnet`: `score_run` of YAMNet's probabilities of the classes of
    AudioSet, with the threshold chosen on fold 1 of ESC-10 in robot noise. `setting`: this choice. Raises
    `SoundDataError`.
    """
    clips = read_noisy_clips(folder)
    settings = settings_for([AUDIO], class_prompts([clip.name for clip in clips]), config, device)
    space = settings.space()
    streams = list(level_streams(clips, seed).values())
    found: dict[str, Any] = {
        "levels": {
            s.name: sound_metrics([run_stream(s, settings, space)]) for s in track(streams, "office sounds", "levels")
        }
    }
    if baseline is not None:
        network = StarterSpace.load(modalities=["audio", "text"], device="cpu")
        setting, f1 = choose_setting(baseline, network)
        found["setting"] = {
            "threshold": setting.threshold,
            "longest_pause_s": setting.longest_pause,
            "event_f1_where_chosen": round(f1, 4),
        }
        names = {class_words(name): own for name, (_, own) in OFFICE.items()}
        present = {name: names[name] for name in sorted({clip.name for clip in clips}) if name in names}
        for stream in track(streams, "YAMNet threshold", "levels"):
            found["levels"][stream.name]["yamnet"] = yamnet_metrics(stream, present, setting, network)
    return found


def choose_setting(folder: Path, network: StarterSpace) -> tuple[ThresholdSetting, float]:
    """The setting that is best on fold 1 of ESC-10 in robot noise, and its event F1 there. Raises `SoundDataError`."""
    clips = read_clips(folder, CHOICE_FOLD)
    streams = [join_in_robot_noise(clips, CHOICE_SECONDS, CHOICE_SNR, seed) for seed in CHOICE_SEEDS]
    return yamnet_threshold.choose(streams, {name.lower(): own for name, (_, own) in ESC10.items()}, network)


def yamnet_metrics(
    stream: SoundStream, classes: Mapping[str, Sequence[str]], setting: ThresholdSetting, network: StarterSpace
) -> dict[str, Any]:
    """`score_run` of the plain detector on a stream."""
    spans = yamnet_threshold.detections(yamnet_threshold.probabilities(stream, classes, network), setting)
    return score_run([stream.truth], [spans], [stream.seconds], [np.array(spans.offsets)], None)


def office_table(found: Mapping[str, Any]) -> str:
    """Markdown: a row for each level and detector."""
    titles = ["events", "event F1", "precision", "recall", "segment F1", "onset error, s", "reporting delay, s"]
    titles.append("calibration error")
    lines = [f"| level | detector | {' | '.join(titles)} |", "| --- | --- |" + " ---: |" * len(titles)]
    for level, m in found["levels"].items():
        rows = [("prompts", m, m["onset_error_s"]["median"])]
        if y := m.get("yamnet"):
            rows.append(("YAMNet threshold", y["overall"], y["overall"]["onset_latency_s"]["stamp"]["median"]))
        for name, own, error in rows:
            e = own["event"]
            cells = [m["events"], e["f1"], e["precision"], e["recall"], own["segment"]["f1"], error]
            if own is m:
                cells += [m["reporting_delay_s"]["median"], m["calibration"]["ece_high_scores"]]
            else:  # it has no reports and no calibrated scores
                cells += [None, None]
            lines.append(f"| {level} | {name} | {' | '.join(map(table_cell, cells))} |")
    if s := found.get("setting"):
        lines.append(
            f"\nYAMNet threshold {s['threshold']:g}, pauses up to {s['longest_pause_s']:g} s: event F1 "
            f"{s['event_f1_where_chosen']:.2f} on fold 1 of ESC-10 in robot noise, where they were chosen"
        )
    return "\n".join(lines)
