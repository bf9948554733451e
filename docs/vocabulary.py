"""Finds words that this project no longer uses, in everything that a person reads: part of `make lint`.

One word for one idea: docs/architecture.md has the glossary. The check reads names, comments, docstrings, messages and
documents. An underscore or a change of case separates the words of a name.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".msg", ".srv", ".yaml", ".xml", ".toml", ".cfg", ".sh", ""}
RETIRED = {  # words, as a regular expression → what to write instead
    "tells?|told|telling": "detect, report, publish, return or log",
    "hears? of|heard of": "receive or notice",
    "taught|lessons?": "trained; training scenario",
    "senses?": "modality (kind of data) or sensor (device)",
    "event ?lines?": "event tracker",
    "outlets?": "ZeroMQ publisher",
    "happenings?": "simulated event",
    "tours?": "survey",
    "standings?": "background z-score",
    "yielding": "competition",
    "departures?": "deviation from baseline",
    "strangeness": "out-of-distribution residual",
    "doubts?": "maximum negative evidence",
    "rivalry|maturity|staleness": "competition, baseline warm-up, maximum age",
    "things?": "object, value, or what it is",
    "pictures?": "image",
    "gives? up|given up|makes? room": "drop",
    "as it should be": "OK",
    "whatever": "any",
}
RETIRED_NAMES = {  # names of classes → what to write instead
    "Outlet|Later|Pending|Station|Lane|Taken|Life|Level|Telling|Course|Happening": "the noun for what the class is",
}
ALLOWED = (  # file, as a glob → text around the word, as a regular expression
    ("*", r"mak(es?|ing) (no )?sense|common sense|RealSense"),
    ("*", r'formerly="\w+"'),  # names of parameters in version 0.1.0
    ("parameters.md", r"^\| `\w+` \| `[\w.<>]+` \| `[\w.<>]+` \|$"),
    ("test_parameters.py", r"trust|silence|maturity|staleness|rivalry"),
    ("*calibration.py", r'"(doubt|senses)": '),  # keys of calibration files of version 0.1.0
    ("test_prompt_classifiers.py", r'"(doubt|senses)": '),
    ("*", r"a picture|type: picture|\"type\": \"picture\"|['\"`]picture['\"`]"),  # a phrase; a simulated object
    ("activities.py", r"[Ss]tanding"),  # an activity
    ("prompts.md", r"standing"),
    ("test_motion_competence.py", r"standing still"),
    ("evaluation.md", r"`told_s`"),  # a key of result files of version 0.1.0
    ("images.py", r"largest_person_share_of_picture"),  # a column of a data set
    ("*vocabulary.py", r".*"),
)
WORD = r"(?<![A-Za-z])(?:{})(?![a-z])|(?<=[a-z])(?:{})(?![a-z])"


class Finding(NamedTuple):
    """A retired word in a line."""

    file: str
    line: int
    word: str
    instead: str


def findings(file: str, text: str) -> Iterator[Finding]:
    """The retired words in the text of a file, except where they are allowed."""
    allowed = [re.compile(pattern) for glob, pattern in ALLOWED if Path(file).match(glob)]
    for number, line in enumerate(text.splitlines(), 1):
        rest = line
        for pattern in allowed:
            rest = pattern.sub("", rest)
        for words, instead in RETIRED.items():
            capitals = "|".join(word[0].upper() + word[1:] for word in words.split("|"))
            for found in re.finditer(WORD.format(f"{words}|{capitals}", capitals), rest):
                yield Finding(file, number, found[0], instead)
        for names, instead in RETIRED_NAMES.items():
            if found := re.search(rf"^\s*class ({names})\b", rest):
                yield Finding(file, number, found[1], instead)


def main() -> int:
    """Print all findings. Exit status 1 if there are any."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = []
    for file in listed.stdout.split("\0"):
        path = ROOT / file
        if file and path.suffix in SUFFIXES and path.is_file() and not path.is_symlink():
            found += findings(file, path.read_text(encoding="utf-8", errors="replace"))
    for finding in found:
        print(f"{finding.file}:{finding.line}: '{finding.word}': write {finding.instead}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
