"""Writes the tables of parameters and of models in the documentation from their declarations: `make docs`.

A page marks the place of a table with ``<!-- parameters NODE [GROUP] -->`` and ``<!-- end -->``. GROUP is `sensor`, the
name of a detector, or `lifecycle`; without it the table has the parameters whose names have no dot. NODE `renamed` is
the table of old and new names; NODE `models` that of the model cards.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sensebind.fusion.config.parameters import DETECTOR_TYPES, NODE_PARAMETERS, modality_parameters
from sensebind.fusion.core.parameters import USER_DEFINED, Parameter, parameters_of
from sensebind.fusion.core.samples import SENSOR_MODALITIES
from sensebind.fusion.events.lifecycle import LifecycleOptions
from sensebind.fusion.models.transformers.cards import KnownModel, all_cards

PAGES = sorted([*Path(__file__).parent.rglob("*.md"), Path(__file__).parents[1] / "README.md"])
MARK_START = "<!-- parameters"
MARKED_TABLE = re.compile(rf"({MARK_START} (\w+)(?: (\w+))? -->\n)(?:(?!{MARK_START}).)*?(<!-- end -->)", re.DOTALL)
LIFECYCLE_PARAMETERS = {parameter.name for parameter in parameters_of(LifecycleOptions())}


def update_tables(page: str) -> str:
    """A page with updated tables of parameters. Raises `ValueError` for a mark without a table."""
    if len(MARKED_TABLE.findall(page)) != page.count(MARK_START):
        raise ValueError(f"a mark has the wrong form: write {MARK_START} NODE [GROUP] -->, a table, and <!-- end -->")
    return MARKED_TABLE.sub(lambda found: f"{found[1]}{table(found[2], found[3] or '')}\n{found[4]}", page)


def table(node: str, group: str) -> str:
    """The Markdown table of a group of a node's parameters. Raises `ValueError` if there are none."""
    if group == "sensor":
        return sensor_table()
    if node == "renamed":
        return renamed()
    if node == "models":
        return models()
    if node not in NODE_PARAMETERS:
        raise ValueError(f"'{node}' is not one of {', '.join(NODE_PARAMETERS)}")
    parameters = NODE_PARAMETERS[node]()
    if group == "lifecycle":
        return lifecycle_table(parameters)
    prefix = f"{group}." if group else ""
    own = [p for p in parameters if p.name.startswith(prefix) and "." not in p.name[len(prefix) :]]
    rows = [p for p in own if not group or p.name.removeprefix(prefix) not in LIFECYCLE_PARAMETERS]
    if not rows:
        raise ValueError(f"{node} has no parameters '{prefix}*'")
    head = ("parameter", "default", "range", "takes effect", "meaning")
    return parameter_table(head, [parameter_columns(p) for p in rows])


def sensor_table() -> str:
    """The parameters of sensors; modalities with the same parameter share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for modality in (*SENSOR_MODALITIES, USER_DEFINED):
        for parameter in modality_parameters(modality):
            name, *rest = parameter_columns(parameter)
            rows.setdefault((name.replace(f"{modality}.", "<modality>."), *rest), []).append(modality)
    count = len(SENSOR_MODALITIES) + 1
    return parameter_table(
        ("parameter", "modalities", "default", "range", "takes effect", "meaning"),
        [(row[0], "all" if len(m) == count else ", ".join(m), *row[1:]) for row, m in rows.items()],
    )


def renamed() -> str:
    """Old and new names of parameters; modalities or detectors with the same names share a row."""
    rows = []
    for node, parameters in NODE_PARAMETERS.items():
        for parameter in parameters():
            if parameter.formerly:
                old, new = parameter.formerly, parameter.name
                part = new.partition(".")[0]
                of_all = "<detector>" if new.endswith(tuple(LIFECYCLE_PARAMETERS)) else part
                group = "<modality>" if part in SENSOR_MODALITIES else of_all
                rows.append((f"`{node}`", *(f"`{name.replace(part + '.', group + '.')}`" for name in (old, new))))
    return markdown_table(("executable", "old name", "new name"), list(dict.fromkeys(rows)))


def models() -> str:
    """The known models of Hugging Face, from their cards."""
    rows = []
    for card in all_cards():
        for model in card.models:
            sensors = [
                m for m in card.modalities if m in ("vision", "audio") and not (m == "vision" and _no_images(model))
            ]
            work = ", ".join(f"{m} {model.gflop[m]:.0f}" if model.gflop.get(m) else f"{m} ?" for m in sensors)
            size = model.memory_mb.get("bf16")
            licence = model.licence or card.licence
            rows.append(
                (
                    f"`{model.id}`{'' if model.revision else ' (no revision)'}",
                    card.title,
                    str(model.dimension),
                    f"{model.parameters / 1e6:.0f} M",
                    work,
                    f"{size:.0f}" if size else "",
                    f"{licence.id}{'' if licence.is_verified else ' (unverified)'}",
                )
            )
    return markdown_table(
        ("model", "family", "vector length", "parameters", "GFLOP for one input", "weights in bf16, MB", "licence"),
        rows,
    )


def _no_images(model: KnownModel) -> bool:
    """Whether a checkpoint of a family with images has none: it states the cost of other modalities, and no vision."""
    return bool(model.gflop) and "vision" not in model.gflop


def lifecycle_table(parameters: Sequence[Parameter]) -> str:
    """The parameters of the event lifecycle: one row each, with the most common default and those that differ."""
    rows = []
    for name in (p.name for p in parameters_of(LifecycleOptions())):
        columns = {p.name.partition(".")[0]: parameter_columns(p) for p in parameters if p.name.endswith(f".{name}")}
        defaults = {detector: columns[detector][1] for detector in DETECTOR_TYPES}
        usual = max(defaults.values(), key=list(defaults.values()).count)
        others = ", ".join(f"{detector} {value}" for detector, value in defaults.items() if value != usual)
        shown = f"{usual} ({others})" if others else usual
        rows.append((f"`<detector>.{name}`", shown, *columns["prompt"][2:]))
    return parameter_table(("parameter", "default", "range", "takes effect", "meaning"), rows)


def parameter_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of parameters. If all take effect at the same time, a sentence says so instead of a column."""
    column = head.index("takes effect")
    effects = {row[column] for row in rows}
    if len(effects) > 1:
        return markdown_table(head, rows)
    shorter = [(*row[:column], *row[column + 1 :]) for row in (head, *rows)]
    return f"{markdown_table(shorter[0], shorter[1:])}\n\nA new value takes effect {effects.pop()}."


def parameter_columns(parameter: Parameter) -> tuple[str, str, str, str, str]:
    """Name, default, range, time of effect and meaning, as Markdown."""
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
    effect = parameter.effect.value if parameter.effect else ""
    return f"`{parameter.name}`", shown, parameter.allowed_values_text, effect, meaning


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def main() -> int:
    """Rewrite the pages whose tables are out of date. Exit status 1 for a page with a wrong mark."""
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        try:
            new = update_tables(page)
        except ValueError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        if new != page:
            path.write_text(new, encoding="utf-8")
            print(f"updated {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
