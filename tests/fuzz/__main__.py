"""The command line: fuzz a target for some seconds, and keep the inputs that fail."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import logging
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # for `helpers`, as pytest does

from hypothesis import HealthCheck, given, seed, settings  # noqa: E402

from fuzz.target import HANG_TIMEOUT, Tally, Target  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402

ROUND = 250  # inputs of each seed
MOST_SAVED = 20  # failing inputs that are kept in one run


def main() -> int:
    """Exit status 1 if an input failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS, "all"], help="entry point; all: one after another")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each target (default: %(default)s)")
    parser.add_argument("--inputs", type=int, default=2**62, help="stop after so many inputs of each target")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed makes the same inputs (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("fuzz-found"), help="folder of failing inputs")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in TARGETS if args.target == "all" else [args.target]:
        failed += fuzz(TARGETS[name], args.seconds, args.inputs, args.seed, args.out)
    return int(failed > 0)


def fuzz(target: Target, seconds: float, most: int, first_seed: int, out: Path) -> int:
    """Try inputs until the time is up or `most` are tried. Prints one line. Returns the number of kinds of failures."""
    tally, saved, began, number = Tally(), dict[str, Path](), time.monotonic(), first_seed
    current = out / f"{target.name}-current.bin"  # after a crash of the process or a hang: the input that caused it

    def attempt(data: bytes) -> None:
        if time.monotonic() - began > seconds or tally.inputs >= most:
            return
        current.write_bytes(data)
        faulthandler.dump_traceback_later(HANG_TIMEOUT, exit=True)
        try:
            tally.try_input(target, data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            path = out / f"{target.name}-{hashlib.sha256(data).hexdigest()[:10]}.bin"
            known = saved.get(kind)
            if (known is None and len(saved) < MOST_SAVED) or (known and len(data) < known.stat().st_size):
                path.write_bytes(data)
                if known is None:
                    print(f"{target.name}: {kind}: {str(error)[:300]} ({path})", flush=True)
                elif known != path:
                    known.unlink()
                saved[kind] = path
        finally:
            faulthandler.cancel_dump_traceback_later()

    while time.monotonic() - began < seconds and tally.inputs < most:
        quiet = settings(
            max_examples=ROUND, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
        )
        seed(number)(quiet(given(target.strategy)(attempt)))()
        number += 1
    current.unlink(missing_ok=True)
    work = ", ".join(f"{count} {name}" for name, count in sorted(tally.most.items()))
    print(
        f"{target.name}: {tally.inputs} inputs in {time.monotonic() - began:.0f} s, {tally.refused} refused, "
        f"{len(saved)} kinds of failures, memory +{tally.memory:.2f} GB, at most {work or 'nothing counted'}",
        flush=True,
    )
    return len(saved)


if __name__ == "__main__":
    sys.exit(main())
