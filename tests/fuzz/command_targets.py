"""Targets: arguments of the command line, and values of parameters as they are set in a launch file or by ROS."""

from __future__ import annotations

import contextlib
import io
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from fuzz.hostile_values import INTEGERS, NAMES, NUMBERS, TEXTS
from fuzz.target import READ, Target, Work
from helpers.field_recordings import imu_rows, record
from sensebind import cli
from sensebind.fusion.core.errors import SensebindError

SEPARATOR = "\x1e"  # between the arguments of an input
NUMBER_TEXTS = st.one_of(
    NUMBERS.map(str),
    INTEGERS.map(str),
    st.sampled_from(["nan", "-nan", "inf", "1e400", "", " 1", "1_0", "٣", "0x10", "1,5", "--", "-", "1e-320", "½"]),
)
WORDS = st.one_of(st.sampled_from(NAMES), TEXTS, st.sampled_from(["/imu", "imu", "vision", "text", "auto", "BAG", "."]))
FAULT_PARTS = st.one_of(NUMBER_TEXTS, st.sampled_from(["vision", "dark", "imu", "frozen", "x"]))
FAULTS = st.lists(FAULT_PARTS, max_size=5).map(":".join)
# Option → its values. No command here works long if its arguments are accepted.
COMMANDS = {
    ("topics", "BAG"): {"--start": NUMBER_TEXTS, "--duration": NUMBER_TEXTS, "--topics": WORDS},
    ("simulate", "--list"): {"--seed": NUMBER_TEXTS, "--duration": NUMBER_TEXTS, "--fault": FAULTS},
    ("simulate", "--scenario", "MISSING"): {"--seed": NUMBER_TEXTS, "--duration": NUMBER_TEXTS, "--fault": FAULTS},
    ("simulate", "--scenario", "kitchen.yaml"): {
        "--fault": FAULTS, "--duration": st.sampled_from(["nan", "inf", "-1", "0"]),
    },
    ("weights", "inspect", "BAG"): {},
    ("replay", "MISSING"): {
        "--config": WORDS, "--start": NUMBER_TEXTS, "--duration": NUMBER_TEXTS, "--namespace": WORDS,
    },
    ("embed", "MISSING", "--modality", "imu", "--space", "none"): {
        "--batch-size": NUMBER_TEXTS, "--channel": WORDS, "--dtype": WORDS, "-o": st.just("OUT/a.npz"),
    },
    ("evaluate", "activity", "MISSING"): {"--hours": NUMBER_TEXTS},
}  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> bytes:
    """A command with options that have hostile values, some twice, some without a value."""
    begin = draw(st.sampled_from(sorted(COMMANDS)))
    words = list(begin)
    options = COMMANDS[begin]
    for name in draw(st.lists(st.sampled_from(sorted(options)), max_size=4)) if options else []:
        words += [name, draw(options[name])]
    if draw(st.integers(0, 7)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(WORDS))
    return SEPARATOR.join(words).encode("utf-8", "replace")


@cache
def small_bag() -> Path:
    """A recording of a second, in a folder that lasts as long as the process."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    _FOLDERS.append(folder)
    return record(Path(folder.name) / "bag", imu_rows("/imu", 1.0))


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def run_command(data: bytes) -> Work:
    """Run a command line. Its status must be one of those that are documented, and nothing may print a traceback."""
    bag, words = small_bag(), data.decode("utf-8", "replace").replace("\0", "").split(SEPARATOR)
    places = {"BAG": str(bag), "MISSING": str(bag.parent / "missing")}
    with tempfile.TemporaryDirectory() as out, contextlib.chdir(out), _quiet() as (printed, errors):
        try:
            status = cli.main([places.get(word, word.replace("OUT/", f"{out}/")) for word in words])
        except SystemExit as stop:  # of argparse: 0 after --help, 2 for wrong arguments
            status = int(stop.code or 0)
            return {READ: 0, "characters": len(printed.getvalue()) + len(errors.getvalue())} if status in (0, 2) else {}
        assert status in (0, 1, 2), f"exit status {status}"
        assert "Traceback" not in errors.getvalue(), errors.getvalue()
        written = sum(file.stat().st_size for file in Path(out).rglob("*") if file.is_file())
        if status == 2:
            assert errors.getvalue().count("\n") <= 1, f"several lines: {errors.getvalue()}"
            raise SensebindError(errors.getvalue().strip()[:2000])
    return {"characters": len(printed.getvalue()), "bytes_written": written}


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        yield printed, errors


TARGETS = [
    Target("command_lines", command_lines(), run_command, {"characters": 100_000, "bytes_written": 10_000_000}),
]
