"""Files, modules and links in the documentation exist, and its examples run."""

from __future__ import annotations

import re
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from helpers.paths import ROOT
from sensebind.fusion.stream.statistics import SAMPLE_DROPS, SAMPLES_WITHOUT_WINDOW, WINDOW_DROPS

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("fusion/**/*.md")])
FILE = re.compile(r"\b((?:fusion|nodes|tests|docs|launch)/[\w/.-]*\w)")
MODULE = re.compile(r"\bsensebind\.((?:fusion|nodes|[a-z]+)(?:\.[a-z_]+)*)")
LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]*))?\)")


def is_module(name: str) -> bool:
    """Whether a dotted name below `sensebind` is a package, a module, or a name in a module."""
    path = ROOT / "sensebind" / name.replace(".", "/")
    return path.is_dir() or any(p.with_suffix(".py").is_file() for p in (path, path.parent, path.parent.parent))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    texts = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_modules_and_links_in_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("this is not a git checkout")
    known = {ROOT / name for name in listed.splitlines()}
    known |= {parent for path in known for parent in path.parents}
    named = [name for name in FILE.findall(text) if "." in Path(name).name or (ROOT / name).parent not in known]
    missing = [name for name in named if ROOT / name not in known and (ROOT / name).with_suffix(".py") not in known]
    for name, anchor in LINK.findall(text):
        target = page.parent / name if name else page
        if not target.exists():
            missing.append(name)
        elif anchor and anchor not in anchors(target):
            missing.append(f"{name}#{anchor}")
    modules = set(MODULE.findall(text)) - {"models", "launch.py"}  # an entry-point group and the launch file
    missing += [f"sensebind.{name}" for name in sorted(modules) if not is_module(name)]
    assert not missing, f"{page.relative_to(ROOT)} names {', '.join(missing)}"


@pytest.mark.parametrize("cause", [*SAMPLE_DROPS, *SAMPLES_WITHOUT_WINDOW, *WINDOW_DROPS])
def test_the_guide_to_recordings_explains_each_cause_for_which_data_are_not_used(cause: str) -> None:
    guide = (ROOT / "docs/guides/reading-recordings.md").read_text(encoding="utf-8")
    assert f"`{cause}`" in guide.partition("## What is not used")[2]


def printed_by(program: str) -> str:
    """What a program prints. It runs in this process, which has the libraries loaded, with a namespace of its own."""
    with redirect_stdout(StringIO()) as output:
        exec(compile(program, "docs/python.md", "exec"), {"__name__": "__main__"})
    return output.getvalue()


def test_the_examples_in_the_python_page_run(survey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(survey.parent)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    recording, own, phrases = map(printed_by, blocks)
    onsets = dict(re.findall(r"ONSET  (\w+) +since +(\d+\.\d) s", recording))
    assert onsets == {"unknown": "3.5", "drums": "3.5"}, "docs/python.md states and explains the onsets"
    assert "OFFSET" in recording
    assert own.count("[") > 3 and phrases.strip() == "True"
