"""`sensebind evaluate sounds-in-noise`, `office-sounds`, `falls` and `false-alarms`: events on recorded data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensebind.commands.arguments import add_config, add_device, add_out, seed_number
from sensebind.fusion.core.atomic import staged

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def _finish(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """Declare the arguments that all these evaluations have, and what runs one."""
    add_config(parser)
    add_out(parser)
    add_device(parser)
    parser.set_defaults(measure=run)


def add_sounds(kinds: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `sounds-in-noise`."""
    parser = kinds.add_parser(
        "sounds-in-noise",
        help="events of recorded sounds at random times in robot noise, from the microphone alone",
        description="Join the clips FOLDER/<class>/<file> at random times in robot noise, run the streams through the "
        "pipeline with the microphone alone and the prompts 'the sound of <class name>', and score the events. Then "
        "run the streams with ten prompts of sounds that are not in them. Writes sounds.json and sounds.md to DIR. "
        "docs/evaluation.md explains streams and metrics.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="clips as <class>/<file>, for example those of ESC-10"
    )
    parser.add_argument(
        "--folds", default="", metavar="LETTERS",
        help="only files whose name begins with one of these characters: the folds of ESC-10 (default: all)",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="length of a stream (default: 5)")
    parser.add_argument(
        "--snr", type=float, default=10.0, metavar="DB",
        help="level of the audible part of a clip over that of the noise, dB (default: 10)",
    )  # fmt: skip
    parser.add_argument("--streams", type=int, default=2, metavar="N", help="number of streams (default: 2)")
    parser.add_argument(
        "--seed", type=seed_number, default=1, metavar="S", help="seed of the first stream (default: 1)"
    )
    _finish(parser, run_sounds)


def run_sounds(args: argparse.Namespace) -> int:
    """Evaluate sounds in noise. Raises `SensebindError`."""
    from sensebind.evaluation.real import sounds_in_noise as sounds
    from sensebind.evaluation.real.sound_streams import read_clips

    clips = read_clips(args.folder, args.folds)
    found = sounds.evaluate_clips(
        clips, range(args.seed, args.seed + args.streams), args.minutes * 60, args.snr, args.config, args.device
    )
    title = f"{args.folder.name}{f' {args.folds}' if args.folds else ''}, {args.snr:g} dB"
    write(args.out, "sounds", {title: found}, sounds.sound_table({title: found}))
    return 0


def add_office(kinds: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `office-sounds`."""
    parser = kinds.add_parser(
        "office-sounds",
        help="events of sounds that were recorded in office noise, by level, beside a plain YAMNet threshold",
        description="Join the clips that FOLDER/noisy.csv names into a stream for each level, with noise of the same "
        "kind and level between them, run the streams through the pipeline with the microphone alone and the prompts "
        "'the sound of <class>', and score the events. Writes office.json and office.md to DIR.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="noisy.csv and its clips (DCASE 2016, task 2)")
    parser.add_argument(
        "--baseline", type=Path, metavar="ESC10",
        help="folder of ESC-10: compare with a threshold on YAMNet's probabilities, chosen on its fold 1",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=seed_number, default=1, metavar="S", help="seed of order and pauses (default: 1)"
    )
    _finish(parser, run_office)


def run_office(args: argparse.Namespace) -> int:
    """Evaluate office sounds. Raises `SensebindError`."""
    from sensebind.evaluation.real import office_evaluation

    found = office_evaluation.evaluate_levels(args.folder, args.baseline, args.seed, args.config, args.device)
    write(args.out, "office", found, office_evaluation.office_table(found))
    return 0


def add_falls(kinds: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `falls`."""
    parser = kinds.add_parser(
        "falls",
        help="falls and other motions of people, from the IMU alone with the prompt 'a fall'",
        description="Run recordings of falls and of other motions through the pipeline with the IMU alone and the "
        "prompt 'a fall'. Writes falls.json and falls.md to DIR. docs/evaluation.md explains the files of FOLDER.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="labels.csv and the recordings, as .csv.gz")
    parser.add_argument("--subject", nargs="+", default=[], metavar="N", help="only these subjects (default: all)")
    _finish(parser, run_falls)


def run_falls(args: argparse.Namespace) -> int:
    """Evaluate falls. Raises `SensebindError`."""
    from sensebind.evaluation.real import falls

    runs = falls.run_recordings(falls.read_recordings(args.folder, args.subject), args.config, args.device)
    found = falls.fall_metrics(runs)
    write(args.out, "falls", found, falls.fall_table(found))
    return 0


def add_false_alarms(kinds: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `false-alarms`."""
    parser = kinds.add_parser(
        "false-alarms",
        help="false events in recordings with nothing to detect",
        description="Replay recordings in which no event is expected, with the prompts of the parameter file and again "
        "with prompts of objects that are not there, and list every event. Writes false_alarms.json and "
        "false_alarms.md to DIR.",
    )
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help="bags")
    _finish(parser, run_false_alarms)


def run_false_alarms(args: argparse.Namespace) -> int:
    """Count false events. Raises `SensebindError`."""
    from sensebind.evaluation.real import false_alarms

    runs = false_alarms.run_recordings(args.recordings, args.config, args.device)
    found = false_alarms.false_alarm_metrics(runs)
    write(args.out, "false_alarms", found, false_alarms.false_alarm_table(found))
    return 0


def run_all(args: argparse.Namespace) -> int:
    """All evaluations on the real data in `args.shared` that nothing was chosen on. Sets that are missing are left out.
    Exit status 1 if all are."""
    from sensebind.evaluation.real import summary

    found, table = summary.evaluate(args.shared, args.config, args.device)
    if not found:
        print(f"'{args.shared}' has none of {', '.join(summary.SETS)}: name RECORDINGs, or a folder with --shared")
        return 1
    write(args.out, "real", found, table)
    return 0


def write(folder: Path, name: str, found: Mapping[str, Any], table: str) -> None:
    """Print a table, and write it and the figures to NAME.md and NAME.json."""
    import json

    print(table)
    with staged(folder) as out:
        (out / f"{name}.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (out / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    print(f"{folder / f'{name}.json'}, {folder / f'{name}.md'}")
