"""Writes the tables of parameters into the documentation, from the parameters' declarations: `make docs`.

A page marks the place of a table with ``<!-- parameters NODE [GROUP] -->`` and ``<!-- end -->``. GROUP is `sensor`, the
name of a detector, or `lifecycle`; without it the table has the parameters whose names have no dot. NODE `renamed` is
the table of old and new names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sensebind.fusion.config.parameters import DETECTORS, NODES, sensor_parameters
from sensebind.fusion.core.parameters import USER_DEFINED, Parameter, parameters_of
from sensebind.fusion.core.samples import SENSOR_MODALITIES
from sensebind.fusion.events.lifecycle import LifeOptions

PAGES = sorted([*Path(__file__).parent.glob("*.md"), Path(__file__).parents[1] / "README.md"])
START = "<!-- parameters"
MARKED = re.compile(rf"({START} (\w+)(?: (\w+))? -->\n)(?:(?!{START}).)*?(<!-- end -->)", re.DOTALL)
LIFECYCLE = {parameter.name for parameter in parameters_of(LifeOptions())}


def updated(page: str) -> str:
    """A page with all its tables of parameters written anew. Raises `ValueError` for a mark without a table."""
    if len(MARKED.findall(page)) != page.count(START):
        raise ValueError(f"write {START} NODE [GROUP] -->, a table, and <!-- end -->: a mark is not of this form")
    return MARKED.sub(lambda found: f"{found[1]}{table(found[2], found[3] or '')}\n{found[4]}", page)


def table(node: str, group: str) -> str:
    """The Markdown table of a group of a node's parameters. Raises `ValueError` where there are none."""
    if group == "sensor":
        return sensors()
    if node == "renamed":
        return renamed()
    if node not in NODES:
        raise ValueError(f"'{node}' is none of {', '.join(NODES)}")
    parameters = NODES[node]()
    if group == "lifecycle":
        return lifecycle(parameters)
    prefix = f"{group}." if group else ""
    own = [p for p in parameters if p.name.startswith(prefix) and "." not in p.name[len(prefix) :]]
    rows = [p for p in own if not group or p.name.removeprefix(prefix) not in LIFECYCLE]
    if not rows:
        raise ValueError(f"{node} has no parameters '{prefix}*'")
    return markdown(("parameter", "default", "range", "meaning"), [columns(p) for p in rows])


def sensors() -> str:
    """One row for all modalities whose sensors have the same parameter."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for modality in (*SENSOR_MODALITIES, USER_DEFINED):
        for parameter in sensor_parameters(modality):
            name, *rest = columns(parameter)
            rows.setdefault((name.replace(f"{modality}.", "<modality>."), *rest), []).append(modality)
    everything = len(SENSOR_MODALITIES) + 1
    return markdown(
        ("parameter", "modalities", "default", "range", "meaning"),
        [(row[0], "all" if len(m) == everything else ", ".join(m), *row[1:]) for row, m in rows.items()],
    )


def renamed() -> str:
    """Old and new names, one row for all modalities or detectors that have them."""
    rows = []
    for node, parameters in NODES.items():
        for parameter in parameters():
            if parameter.formerly:
                old, new = parameter.formerly, parameter.name
                part = new.partition(".")[0]
                of_all = "<detector>" if new.endswith(tuple(LIFECYCLE)) else part
                group = "<modality>" if part in SENSOR_MODALITIES else of_all
                rows.append((f"`{node}`", *(f"`{name.replace(part + '.', group + '.')}`" for name in (old, new))))
    return markdown(("executable", "old name", "new name"), list(dict.fromkeys(rows)))


def lifecycle(parameters: Sequence[Parameter]) -> str:
    """One row for all detectors, with the defaults of those that differ from most."""
    rows = []
    for name in (p.name for p in parameters_of(LifeOptions())):
        ours = {p.name.partition(".")[0]: columns(p) for p in parameters if p.name.endswith(f".{name}")}
        defaults = {detector: ours[detector][1] for detector in DETECTORS}
        usual = max(defaults.values(), key=list(defaults.values()).count)
        others = ", ".join(f"{detector} {value}" for detector, value in defaults.items() if value != usual)
        _, _, allowed, meaning = ours["prompt"]
        rows.append((f"`<detector>.{name}`", f"{usual} ({others})" if others else usual, allowed, meaning))
    return markdown(("parameter", "default", "range", "meaning"), rows)


def columns(parameter: Parameter) -> tuple[str, str, str, str]:
    """Name, default, range and meaning, as Markdown."""
    unit = f" {parameter.unit}" if parameter.unit else ""
    default = parameter.default
    if isinstance(default, str | list):
        text = default if isinstance(default, str) else ", ".join(default)
        shown = f"`{text}`" if text else ""
    elif isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = f"{default:.12g}{unit}"
    meaning = parameter.description.replace("|", "\\|").replace("<", "&lt;")
    return f"`{parameter.name}`", shown, parameter.allowed, meaning


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def main() -> int:
    """Rewrite the pages whose tables are out of date. Exit status 1 for a page with a wrong mark."""
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        try:
            new = updated(page)
        except ValueError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        if new != page:
            path.write_text(new, encoding="utf-8")
            print(f"updated {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
