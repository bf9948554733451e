"""All evaluations of events on real data, with data and seeds that no parameter was chosen on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sensebind.evaluation.real import falls, false_alarms, office_evaluation
from sensebind.evaluation.real.office_sounds import TABLE
from sensebind.evaluation.real.sound_streams import read_clips
from sensebind.evaluation.real.sounds_in_noise import evaluate_clips, sound_table

SETS = ("evaluation/esc10", "evaluation/dcase2016_office", "evaluation/imu_falls", "recordings")
FOLDS = ("2", "3")
SEEDS = {"2": (1001, 1002), "3": (1003, 1004)}  # fold → seeds of its streams. Choices use fold 1 and seeds from 1 on
SECONDS, SNR = 300.0, 10.0  # of each stream of ESC-10; dB
OFFICE_SEED = 1001
SUBJECTS = ("3", "4")
BAG_SUFFIXES = (".mcap", ".db3", ".bag")


def evaluate(shared: Path, config: Path | None = None, device: str | None = None) -> tuple[dict[str, Any], str]:
    """The figures of each set that `shared` has, and their tables as Markdown. Sets are named in `SETS`."""
    esc10, office, motions, bags = (shared / name for name in SETS)
    found: dict[str, Any] = {}
    tables = []
    if esc10.is_dir():
        found["sounds"] = sounds = {
            f"ESC-10 fold {fold}, {SNR:g} dB": evaluate_clips(
                read_clips(esc10, fold), SEEDS[fold], SECONDS, SNR, config, device
            )
            for fold in FOLDS
        }
        tables.append(f"## Sounds in robot noise\n\n{sound_table(sounds)}")
    if (office / TABLE).is_file():
        baseline = esc10 if esc10.is_dir() else None
        found["office"] = office_evaluation.evaluate_levels(office, baseline, OFFICE_SEED, config, device)
        tables.append(f"## Office sounds\n\n{office_evaluation.office_table(found['office'])}")
    if motions.is_dir():
        runs = falls.run_recordings(falls.read_recordings(motions, SUBJECTS), config, device)
        found["falls"] = falls.fall_metrics(runs)
        tables.append(f"## Falls\n\n{falls.fall_table(found['falls'])}")
    if recordings := sorted({path.parent for path in bags.glob("*/*") if path.suffix in BAG_SUFFIXES}):
        found["false_alarms"] = false_alarms.false_alarm_metrics(
            false_alarms.run_recordings(recordings, config, device)
        )
        table = false_alarms.false_alarm_table(found["false_alarms"])
        tables.append(f"## Recordings with nothing to detect\n\n{table}")
    return found, "\n\n".join(tables)
