"""The command line: fuzz targets for some time or some number of inputs, and keep the inputs that fail."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import logging
import os
import random
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # for `helpers`, as pytest does
# Nodes of this process talk to each other only.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 101)))

from hypothesis import HealthCheck, given, seed, settings  # noqa: E402

from fuzz.target import HANG_TIMEOUT, Tally, Target  # noqa: E402
from fuzz.targets import LEFT_OUT, TARGETS  # noqa: E402

ROUND = 250  # inputs of each seed of Hypothesis
MOST_SAVED = 20  # failing inputs that are kept in one run
FAILED, HUNG = 3, 1  # exit statuses of the process of a target; faulthandler ends a process with 1


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
    parser.add_argument("--refusals", action="store_true", help="also list where inputs were refused")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, reason in LEFT_OUT.items():
        print(f"{name}: left out: {reason}", flush=True)
    print(
        "| target | inputs | reach | places of refusal | slowest, s | memory, GB | most work | failures |", flush=True
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    failed = [name for name in (TARGETS if args.target == "all" else [args.target]) if not fuzz(name, args)]
    return int(bool(failed))


def fuzz(name: str, args: argparse.Namespace) -> bool:
    """Fuzz one target in a process of its own. Prints one line. Returns whether no input failed.

    If the process ends or an input takes more than `HANG_TIMEOUT`, the input is kept and named.
    """
    current = args.out / f"{name}-current.bin"
    child = os.fork()
    if not child:
        status = FAILED
        try:
            status = FAILED if Run(TARGETS[name], args, current).run() else 0
        except BaseException:  # of the fuzzer itself
            traceback.print_exc(file=sys.stdout)
        finally:
            sys.stdout.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if current.exists():
        kind = "hang" if status == HUNG else "crash"
        path = args.out / f"{name}-{hashlib.sha256(current.read_bytes()).hexdigest()[:10]}.bin"
        current.rename(path)
        print(f"{name}: {kind} (exit status {status}): {path}", flush=True)
    return status == 0


class Run:
    """A run of one target. `current`: the file of the input that is being tried."""

    def __init__(self, target: Target, args: argparse.Namespace, current: Path) -> None:
        self._target, self._args, self._current = target, args, current
        self._tally, self._saved = Tally(), dict[str, Path]()
        self._began = time.monotonic()
        self._stderr = os.fdopen(os.dup(2), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders in C print about damaged images

    def run(self) -> int:
        """Try inputs until the time is up or enough are tried. Returns the number of kinds of failures."""
        number = 0
        while not self._is_over():
            quiet = settings(
                max_examples=ROUND,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            )
            seed(f"{self._args.seed} {number}")(quiet(given(self._target.strategy)(self._attempt)))()
            number += 1
        tally, name = self._tally, self._target.name
        work = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.most.items()))
        print(
            f"| {name} | {tally.inputs} | {tally.reached / max(1, tally.inputs):.0%} | {len(tally.places)} "
            f"| {tally.slowest:.2f} | {tally.memory:.2f} | {work} | {len(self._saved)} |"
        )
        if self._args.refusals:
            print("\n".join(f"  {count} {place}" for place, count in tally.places.most_common()))
        return len(self._saved)

    def _is_over(self) -> bool:
        return time.monotonic() - self._began > self._args.seconds or self._tally.inputs >= self._args.inputs

    def _attempt(self, data: bytes) -> None:
        if self._is_over():
            return
        self._current.write_bytes(data)
        faulthandler.dump_traceback_later(HANG_TIMEOUT, exit=True, file=self._stderr)
        try:
            self._tally.try_input(self._target, data)
        except Exception as error:
            self._save(data, error)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._current.unlink()

    def _save(self, data: bytes, error: Exception) -> None:
        """Keep the smallest input of each kind of failure."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        path = self._args.out / f"{self._target.name}-{hashlib.sha256(data).hexdigest()[:10]}.bin"
        known = self._saved.get(kind)
        if (known is None and len(self._saved) < MOST_SAVED) or (known and len(data) < known.stat().st_size):
            path.write_bytes(data)
            if known is None:
                print(f"{self._target.name}: {kind}: {str(error)[:300]} ({path})", flush=True)
            elif known != path:
                known.unlink()
            self._saved[kind] = path


if __name__ == "__main__":
    sys.exit(main())
