"""The panels of sensor data: images, spectrograms and traces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sensebind.fusion.core.samples import IMU, SECOND
from sensebind.report.formatting import count_noun
from sensebind.report.panels import charts
from sensebind.report.panels.charts import format_number, format_time
from sensebind.report.panels.context import PageContext, Row
from sensebind.report.sensor_previews import MAX_CHANNELS, TimeBins

# Modality → (name, unit, first channel, smallest full height in the unit).
CHANNEL_GROUPS = {IMU: (("acceleration", "m/s²", 0, 0.5), ("angular velocity", "rad/s", 3, 0.1))}
IMAGES_PER_WIDTH = (17, 9, 5)  # images across a wide, a medium and a narrow page


def sensor_panels(context: PageContext) -> Row:
    """The panels of sensor data, as pieces of HTML: at most 12 cameras, 8 microphones and 8
    sensors of readings.
    Empty if there are no previews."""
    previews = context.data.previews
    strips: Row = []
    data = context.data
    films = {
        camera: charts.image_strip(data.modality_of(camera), previews.images[camera], context.axis)
        for camera in data.sort(previews.images)[:12]
    }
    every = charts.jpeg_uris([image for film in films.values() if film for image in film.images])
    for sensor, film in films.items():
        if film:
            strips += _image_strip(context, sensor, film, every[: len(film.images)])
            every = every[len(film.images) :]
    for sensor in data.sort(previews.spectra)[:8]:
        strips += _sound_panel(context, sensor)
    for sensor in data.sort(previews.traces)[:8]:
        strips += _trace_panel(context, sensor, previews.traces[sensor])
    if not strips:
        return []
    lead = (
        "Data of the sensors. The left edge of an image is at its stamp. Point at a time to see its images and values; "
        "click to keep them, and click again to release them."
    )
    return [f'<h2>Sensors</h2><p class="lead">{lead}</p>', *strips]


def _image_strip(context: PageContext, sensor: str, film: charts.ImageStrip, uris: Sequence[str]) -> Row:
    steps = np.diff([start for start, _ in film.times])
    usual = float(np.median(steps)) if len(steps) else context.axis.end - context.axis.start
    whole = (context.axis.end - context.axis.start) / max(usual, 1.0)
    every = [max(1, math.ceil(whole / fit)) for fit in IMAGES_PER_WIDTH]
    cells = []
    first = 0  # first image of a run without a gap
    for i, ((start, end), uri) in enumerate(zip(film.times, uris, strict=True)):
        first = i if i and film.times[i - 1][1] < start else first
        rest = film.times[i:]
        upto = next((n for n, (a, b) in enumerate(pairwise(rest), 1) if a[1] < b[0]), len(rest))
        classes, widths = [], []
        for name, variable, step in zip("abc", "abd", every, strict=True):
            if (i - first) % step == 0:
                classes.append(name)
                widths.append(f"--{variable}:{_width(context, start, rest[min(step, upto) - 1][1])}")
        kind = f' class="{" ".join(classes)}"' if classes else ""
        cells.append(
            f'<img{kind} alt="" src="{uri}" style="--x:{context.axis.percent(start)};{";".join(widths)}" '
            f'data-t="{context.axis.milliseconds(start)}" data-e="{context.axis.milliseconds(end)}">'
        )
    name = context.heading(sensor)
    legend = ""
    if film.scale:
        low, high, unit = film.scale
        digits = 0 if abs(high - low) >= 20 else 1
        ramp = f'<i style="background:linear-gradient(90deg,{film.gradient_css})"></i>'
        shown = f"{format_number(low, digits)}{ramp}{format_number(high, digits)} {unit}"
        legend = f'<div class="wide"><span class="scale">{shown}</span></div>'
    since, until = (
        format_time((t - context.axis.start) / SECOND, context.axis.seconds)
        for t in (film.times[0][0], film.times[-1][0])
    )
    return [
        f'<div class="row strip {context.colour_class(sensor)}"><div class="keys"><h3>{name}</h3>{legend}</div>',
        '<div class="plot">'
        f'<div class="film" data-name="{name}" role="img" aria-label="{name}: {count_noun(len(cells), "image")}, '
        f'{since} to {until}">{"".join(cells)}</div></div></div>',
    ]


def _width(context: PageContext, start: int, end: int) -> str:
    return f"{format_number((context.axis.x(end) - context.axis.x(start)) / 10, 3)}%"


def _sound_panel(context: PageContext, sensor: str) -> Row:
    spectra = context.data.previews.spectra[sensor]
    shown = charts.spectrogram(spectra, context.axis)
    if shown is None:
        return []
    name = context.heading(sensor)
    marks = "".join(
        f'<div class="pitch" style="top:{format_number(y * 96, 1)}px">{hertz}</div>'
        for hertz, y in charts.frequency_labels(spectra.max_frequency)
    )
    level = np.clip(shown.level, charts.MIN_LEVEL, 0.0)
    floor = np.full_like(level, charts.MIN_LEVEL)
    path = charts.envelope(
        shown.starts, shown.width, floor, level, context.axis, 34, charts.MIN_LEVEL / 2, -charts.MIN_LEVEL
    )
    at = context.add_cursor_series(shown.starts, shown.starts + shown.width, [shown.level], 0.1, 1)
    return [
        f'<div class="row strip {context.colour_class(sensor)}"><div class="keys" style="min-height:96px">',
        f"<h3>{name}</h3>{marks}</div>",
        f'<div class="plot frame"><div class="spectrum" role="img" aria-label="{name}: spectrogram, '
        f'up to {format_number(spectra.max_frequency / 1000, 1)} kHz" '
        f'style="--i:url({shown.image})"></div></div></div>',
        f'<div class="row strip {context.colour_class(sensor)}"><div class="keys"><div><span>level, dBFS</span>'
        f'<output data-s="{at}" data-r="0"></output></div>'
        f'<div class="wide">0 to {format_number(charts.MIN_LEVEL)}</div></div>',
        '<div class="plot frame"><svg class="wave" viewBox="0 0 1000 34" height="34" preserveAspectRatio="none" '
        f'role="img" aria-label="{name}: level"><path d="{path}" fill-opacity=".75"/></svg></div></div>',
    ]


def _trace_panel(context: PageContext, sensor: str, bins: TimeBins[Any]) -> Row:
    starts, values = bins.between(context.axis.start, context.axis.end)
    if not len(starts):
        return []
    table = np.stack(values)  # (N, 2, C)
    count = table.shape[2]
    parts = CHANNEL_GROUPS.get(context.data.modality_of(sensor), ()) if count == MAX_CHANNELS else ()
    groups = [(name, unit, range(at, at + 3), least) for name, unit, at, least in parts]
    groups = groups or [("readings", "", range(count), 1e-3 * float(np.abs(table).max()) or 1e-9)]
    at = context.add_cursor_series(starts, starts + bins.width, list(table.mean(axis=1).T), 0.001, 2)
    name = context.heading(sensor)
    rows: Row = []
    for i, (what, unit, channels, least) in enumerate(groups):
        low, high = table[:, 0], table[:, 1]
        # A minimum scale: noise at full height would look like motion.
        moved = max(float(high[:, c].max() - low[:, c].min()) for c in channels)
        scale = max(moved, least)
        about = f"each row is {_short(scale)}{f' {unit}' if unit else ''} high" if moved > 0 else "does not change"
        heading = f"<h3>{name}</h3>" if i == 0 else ""
        rows.append(
            f'<div class="panelhead {context.colour_class(sensor)}">{heading}<span class="about">{what}'
            f"{f', {unit}' if unit else ''}; {about}</span></div>"
        )
        for c in channels:
            middle = float(high[:, c].max() + low[:, c].min()) / 2
            path = charts.envelope(starts, bins.width, low[:, c], high[:, c], context.axis, 26, middle, scale)
            axis_name = "xyz"[c % 3] if parts else str(c + 1)
            rows.append(
                f'<div class="row {context.colour_class(sensor)}"><div class="keys" style="--row:28px"><div>'
                f'<span>{axis_name}</span><output data-s="{at}" data-r="{c}"></output></div></div>'
                '<div class="plot trace">'
                f'<svg class="wave" viewBox="0 0 1000 27" height="27" preserveAspectRatio="none" role="img" '
                f'aria-label="{what} {axis_name}"><path d="{path}"/></svg></div></div>'
            )
    return rows


def _short(value: float) -> str:
    """Two significant digits, without an exponent: 12, 0.5, 0.0021."""
    digits = 1 - math.floor(math.log10(value))
    return charts.format_number(value, min(max(digits, 0), 12))
