"""Events of office sounds in noise, by level, beside a plain threshold on YAMNet's probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensebind.evaluation.metrics import score_run
from sensebind.evaluation.real import yamnet_threshold
from sensebind.evaluation.real.office_sounds import class_words, level_streams, read_noisy_clips
from sensebind.evaluation.real.prompt_runs import settings_for
from sensebind.evaluation.real.sound_streams import SoundStream, join_in_robot_noise, read_clips
from sensebind.evaluation.real.sounds_in_noise import class_prompts, run_stream, sound_metrics
from sensebind.evaluation.real.yamnet_threshold import ThresholdSetting
from sensebind.evaluation.spaces.sounds import ESC10, OFFICE
from sensebind.fusion.core.samples import AUDIO
from sensebind.fusion.models.starter.space import StarterSpace

CHOICE_FOLD, CHOICE_SEEDS, CHOICE_SECONDS, CHOICE_SNR = "1", (1, 2), 300.0, 10.0  # streams that choose the threshold


def evaluate_levels(
    folder: Path, baseline: Path | None, seed: int, config: Path | None = None, device: str | None = None
) -> dict[str, Any]:
    """`levels`: level ("+6 dB") → `sound_metrics`, with the prompts "the sound of <class>".

    With `baseline`, the folder of ESC-10, each has `yamnet`: `score_run` of YAMNet's probabilities of the classes of
    AudioSet, with the threshold chosen on fold 1 of ESC-10 in robot noise. `setting`: this choice. Raises
    `SoundDataError`.
    """
    clips = read_noisy_clips(folder)
    settings = settings_for([AUDIO], class_prompts([clip.name for clip in clips]), config, device)
    space = settings.space()
    streams = list(level_streams(clips, seed).values())
    found: dict[str, Any] = {"levels": {s.name: sound_metrics([run_stream(s, settings, space)]) for s in streams}}
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
        for stream in streams:
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
    lines = [
        "| level | detector | events | event F1 | precision | recall | segment F1 | onset error, s | reporting delay, s "
        "| calibration error |",
        "| --- | --- |" + " ---: |" * 8,
    ]
    for level, m in found["levels"].items():
        e = m["event"]
        cells = [e["f1"], e["precision"], e["recall"], m["segment"]["f1"], m["onset_error_s"]["median"]]
        cells += [m["reporting_delay_s"]["median"], m["calibration"]["ece_high_scores"]]
        lines.append(f"| {level} | prompts | {m['events']} | " + " | ".join(_cell(c) for c in cells) + " |")
        if y := m.get("yamnet"):
            o = y["overall"]
            cells = [o["event"]["f1"], o["event"]["precision"], o["event"]["recall"], o["segment"]["f1"]]
            cells += [o["onset_latency_s"]["stamp"]["median"], None, None]
            lines.append(
                f"| {level} | YAMNet threshold | {m['events']} | " + " | ".join(_cell(c) for c in cells) + " |"
            )
    if s := found.get("setting"):
        lines.append(
            f"\nYAMNet threshold {s['threshold']:g}, pauses up to {s['longest_pause_s']:g} s: event F1 "
            f"{s['event_f1_where_chosen']:.2f} on fold 1 of ESC-10 in robot noise, where they were chosen"
        )
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
