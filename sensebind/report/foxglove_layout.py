"""A layout for Foxglove that shows the output bag of a replay: annotated images, scores of prompts, and events.

The form is that of layouts which Foxglove exports to a file: panels by id in `configById`, and a tree of splits in
`layout`. Message paths have filters, such as ``/prompt_scores.prompts[:]{label=="person"}.score``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sensebind.fusion.core.atomic import write_text
from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION
from sensebind.report.style import colour_code, colour_names

SCORES_TOPIC, EVENTS_TOPIC = "/prompt_scores", "/events"
CAMERAS = (VISION, DEPTH, THERMAL)
MAX_LABELS = 16  # labels with plots of their own
LABEL_COLOURS = ("#4e98e2", "#f5774d", "#f7df71", "#5cd6a9", "#a395e2", "#e26fa6", "#9ed65c", "#c98d5e")
THRESHOLD_COLOUR = "#9aa3ad"

Node = str | dict[str, Any]  # the id of a panel, or a split of two nodes


def write_foxglove_layout(
    path: Path,
    thresholds: Mapping[str, tuple[float, float]],
    sensors: Sequence[str],
    cameras: Sequence[str],
    modalities: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write `foxglove_layout` as JSON."""
    text = json.dumps(foxglove_layout(thresholds, sensors, cameras, modalities), indent=2, ensure_ascii=False)
    write_text(path, text + "\n")


def foxglove_layout(
    thresholds: Mapping[str, tuple[float, float]],
    sensors: Sequence[str],
    cameras: Sequence[str],
    modalities: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The layout as a JSON document.

    `thresholds`: label → onset and offset threshold; only the first `MAX_LABELS` labels have plots. `sensors`: those
    with scores, sorted. `cameras`: the sensors with annotated images. `modalities`: sensor → its modality, for sensors
    with a name of their own. A label that contains both kinds of quotation marks cannot be in a message path, and is
    left out.
    """
    labels = [label for label in thresholds if _literal(label)][:MAX_LABELS]
    panels: dict[str, dict[str, Any]] = {}
    images: list[Node] = []
    for camera in cameras:
        panels[f"Image!{camera}"] = _image(camera)
        images.append(f"Image!{camera}")
    panels["Plot!scores"] = _plot(
        "score of each prompt",
        [
            _series(f"{_prompt(label)}.score", label, LABEL_COLOURS[i % len(LABEL_COLOURS)])
            for i, label in enumerate(labels)
        ]
        + _threshold_lines([thresholds[label] for label in labels]),
    )
    panels["StateTransitions!events"] = _event_phases(labels)
    panels["RawMessages!event"] = _newest_message("newest event", EVENTS_TOPIC)
    panels["Table!scores"] = {"foxglovePanelTitle": "scores now", "topicPath": f"{SCORES_TOPIC}.prompts[:]"}
    tabs = []
    for number, label in enumerate(labels):
        score, similarity = f"Plot!score{number}", f"Plot!similarity{number}"
        panels[score], panels[similarity] = _label_plots(label, thresholds[label], sensors, modalities)
        tabs.append({"title": label, "layout": _split("column", [score, similarity])})
    scores: list[Node] = ["Plot!scores"]
    if tabs:
        panels["Tab!labels"] = {"activeTabIdx": 0, "tabs": tabs}
        scores.append("Tab!labels")
    events = _split("row", ["RawMessages!event", "Table!scores"])
    left = _split("column", [*([_split("row", images)] if images else []), "StateTransitions!events", events])
    return {
        "configById": panels,
        "globalVariables": {},
        "userNodes": {},
        "playbackConfig": {"speed": 1},
        "layout": _split("row", [left, _split("column", scores)]),
    }


def _literal(text: str) -> str:
    """A string in a message path, which has no escapes; empty if it cannot be written."""
    if '"' not in text:
        return f'"{text}"'
    return f"'{text}'" if "'" not in text else ""


def _prompt(label: str) -> str:
    return f"{SCORES_TOPIC}.prompts[:]{{label=={_literal(label)}}}"


def _label_plots(
    label: str, thresholds: tuple[float, float], sensors: Sequence[str], modalities: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plots of one label: the scores with its thresholds, and the raw similarities."""
    of_all = {sensor: modalities.get(sensor, sensor) for sensor in sensors if sensor != FUSED}
    colours = {sensor: colour_code(*name, 1) for sensor, name in colour_names(of_all, list(of_all)).items()}
    scores = [_series(f"{_prompt(label)}.score", "all modalities", "#ffffff", width=3)]
    similarities = []
    for sensor, colour in colours.items():
        field = "modality" if of_all[sensor] == sensor else "sensor"
        path = f"{_prompt(label)}.modalities[:]{{{field}=={_literal(sensor)}}}"
        scores.append(_series(f"{path}.score", sensor, colour))
        similarities.append(_series(f"{path}.similarity", sensor, colour))
    similarity = _plot(f"{label}: cosine similarity", similarities)
    del similarity["minYValue"], similarity["maxYValue"]
    return _plot(f"{label}: scores", [*scores, *_threshold_lines([thresholds])]), similarity


def _threshold_lines(thresholds: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """A horizontal line for each value: a path that is a number is drawn as a line."""
    onsets, offsets = ({round(pair[at], 4) for pair in thresholds} for at in (0, 1))
    return [
        _series(f"{value:g}", f"{name} threshold", THRESHOLD_COLOUR, width=1)
        for name, values in (("onset", onsets), ("offset", offsets))
        for value in sorted(values)
    ]


def _series(path: str, label: str, colour: str, width: float = 1.5) -> dict[str, Any]:
    return {
        "value": path,
        "enabled": True,
        "timestampMethod": "headerStamp",
        "label": label,
        "color": colour,
        "showLine": True,
        "lineSize": width,
    }


def _plot(title: str, paths: list[dict[str, Any]]) -> dict[str, Any]:
    """A plot of scores from 0 to 1."""
    return {
        "foxglovePanelTitle": title,
        "paths": paths,
        "minYValue": 0,
        "maxYValue": 1,
        "showXAxisLabels": True,
        "showYAxisLabels": True,
        "showLegend": True,
        "legendDisplay": "floating",
        "showPlotValuesInLegend": True,
        "isSynced": True,
        "xAxisVal": "timestamp",
        "sidebarDimension": 240,
    }


def _event_phases(labels: Sequence[str]) -> dict[str, Any]:
    """A panel with a lane for each label: the phase of the newest report on its event."""
    return {
        "foxglovePanelTitle": "events",
        "isSynced": True,
        "paths": [
            {
                "value": f"{EVENTS_TOPIC}{{label=={_literal(label)}}}.phase",
                "timestampMethod": "headerStamp",
                "label": label,
                "enabled": True,
            }
            for label in labels
        ],
    }


def _newest_message(title: str, topic: str) -> dict[str, Any]:
    return {
        "foxglovePanelTitle": title,
        "topicPath": topic,
        "diffEnabled": False,
        "diffMethod": "custom",
        "diffTopicPath": "",
        "showFullMessageForDiff": False,
    }


def _image(camera: str) -> dict[str, Any]:
    return {
        "foxglovePanelTitle": camera,
        "cameraState": {
            "distance": 20,
            "perspective": True,
            "phi": 60,
            "target": [0, 0, 0],
            "targetOffset": [0, 0, 0],
            "targetOrientation": [0, 0, 0, 1],
            "thetaOffset": 45,
            "fovy": 45,
            "near": 0.5,
            "far": 5000,
        },
        "followMode": "follow-pose",
        "scene": {},
        "transforms": {},
        "topics": {},
        "layers": {},
        "publish": {
            "type": "point",
            "poseTopic": "/move_base_simple/goal",
            "pointTopic": "/clicked_point",
            "poseEstimateTopic": "/initialpose",
            "poseEstimateXDeviation": 0.5,
            "poseEstimateYDeviation": 0.5,
            "poseEstimateThetaDeviation": 0.26179939,
        },
        "imageMode": {
            "imageTopic": f"/annotated/{camera}/image",
            "annotations": {f"/annotated/{camera}/annotations": {"visible": True}},
            # Annotation messages without events have no stamp to match, so the newest message is shown.
            "synchronize": False,
        },
    }


def _split(direction: str, nodes: Sequence[Node]) -> Node:
    """Nodes of equal size beside (`row`) or below (`column`) each other."""
    if len(nodes) == 1:
        return nodes[0]
    share = round(100 / len(nodes), 2)
    return {
        "direction": direction,
        "first": nodes[0],
        "second": _split(direction, nodes[1:]),
        "splitPercentage": share,
    }
