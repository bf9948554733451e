"""A replay for the Rerun viewer, as a file or live: sensor data, embeddings, similarities, events on one timeline."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding, sort_sensors
from sensebind.fusion.core.encodings import EncodingError, pcm_to_float
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.events import Event, EventInterval, Score
from sensebind.fusion.core.samples import DEPTH, IMU, SECOND, Calibration, Frame, Reading, Sample, Sound
from sensebind.report.panels import charts
from sensebind.report.report_data import Similarity
from sensebind.report.score_series import ScoreSeries, empty_scores
from sensebind.report.sensor_previews import MAX_FREQUENCY, MEL_BANDS, frame_size, image_preview, mel_spectra
from sensebind.report.style import FUSED_COLOURS, colour_code, colour_names, rgb

log = logging.getLogger("sensebind")

TIME = "time"  # the timeline: stamps of the sensors
MAX_IMAGE_SIDE = 640  # px, the longer side of an image
SPECTROGRAM_DURATION = 3.0  # s in a spectrogram
SPECTROGRAM_INTERVAL = 0.25  # s from one spectrogram to the next
READINGS_PER_BATCH = 256  # readings that are written together
MAX_SCORE_VIEWS = 40  # labels with a view of their scores
IMU_CHANNEL_NAMES = ("ax", "ay", "az", "wx", "wy", "wz")


DEFAULT_ADDRESS = "rerun+http://127.0.0.1:9876/proxy"  # of a viewer on this computer
CONNECT_TIMEOUT = 3.0  # s
FLUSH_TIMEOUT = 30.0  # s to send the last data to a viewer


class RerunError(SensebindError):
    """The file cannot be written, or no viewer can be reached; the message says why, or what to install."""


def viewer_address(address: str) -> str:
    """The address of a viewer in the form of Rerun. `address`: that form, or HOST:PORT; empty: this computer. Raises
    `RerunError`, also if nothing accepts connections there."""
    url = urlsplit(address if "://" in address else f"rerun+http://{address}/proxy" if address else DEFAULT_ADDRESS)
    try:
        host, port = url.hostname, url.port
    except ValueError:  # the port is not a number
        host, port = None, None
    if url.scheme not in ("rerun", "rerun+http", "rerun+https") or not host or not port:
        raise RerunError(f"--rerun-connect must be HOST:PORT or like {DEFAULT_ADDRESS}, not '{address}'")
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT).close()
    except OSError as error:
        raise RerunError(
            f"no Rerun viewer answers at {host}:{port} ({error.strerror or error}): start one with `rerun`, or name "
            "another address"
        ) from error
    return url._replace(path="/proxy").geturl()


class RerunFile:
    """Writes a file (.rrd), or sends the same to a viewer: samples as they pass; embeddings, similarities, events and
    truth at the end. A viewer also gets scores and reports of events as they pass.

    Entities: `sensors/<camera>/image`, `sensors/<microphone>/level` and `/spectrogram`, `sensors/<imu>/…`,
    `similarity/<sensor>`, `scores/<label>/…` of all modalities together, of each sensor, and the thresholds,
    `embeddings/<sensor>` in two principal components, `events/…`, `truth/…`; live, `reports`.
    `path`: the file, or None. `address`: that of a viewer, as `viewer_address` returns it, or None. Raises `RerunError`
    if rerun-sdk is not installed, the file cannot be written or the viewer does not answer.
    """

    def __init__(self, path: str | Path | None, name: str, address: str | None = None) -> None:
        try:
            import rerun
        except ImportError as error:
            raise RerunError("this needs the Rerun SDK: pip install 'sensebind[rerun]'") from error
        self._rr: Any = rerun
        self._stream: Any = rerun.RecordingStream("sensebind", recording_id=name, send_properties=True)
        try:
            sinks = [rerun.FileSink(path)] if path else []
            sinks += [rerun.GrpcSink(address)] if address else []
            self._stream.set_sinks(*sinks)
        except (OSError, RuntimeError, ValueError) as error:
            raise RerunError(f"'{path or address}' cannot be written: {error}") from error
        self._live = address is not None
        self._shown_kinds = 0  # modalities that the layout of a live viewer has
        self._stream.send_recording_name(name)
        self._modalities: dict[str, str] = {}  # sensor → its modality
        self._data_kinds: dict[str, str] = {}  # sensor → image, sound or reading
        self._scalar_cameras: set[str] = set()  # cameras whose pixels are measurements: depth, thermal
        # sensor → end in ns, rate in Hz, the samples of the last `SPECTROGRAM_DURATION`
        self._recent_sound: dict[str, tuple[int, float, npt.NDArray[np.float32]]] = {}
        self._last_spectrogram: dict[str, int] = {}  # sensor → end of the last spectrogram in ns
        self._readings: dict[str, list[tuple[int, npt.NDArray[np.float64]]]] = {}

    def add(self, sample: Sample, calibration: Calibration | None = None) -> None:
        """Write one sample, if it has a stamp and can be decoded."""
        if sample.stamp <= 0:
            return
        self._modalities[sample.sensor] = sample.modality
        if isinstance(sample.data, Frame):
            self._frame(sample, sample.data, calibration or Calibration())
        elif isinstance(sample.data, Sound):
            self._sound(sample, sample.data)
        else:
            self._reading(sample, sample.data)
        if self._live and len(self._data_kinds) > self._shown_kinds:  # the layout needs the kinds of data
            self._shown_kinds = len(self._data_kinds)
            self._stream.send_blueprint(self._layout((), False, ()))

    def add_event(self, event: Event) -> None:
        """Send a report on an event to a live viewer. A file has them at its end."""
        if not self._live:
            return
        self._set_time(event.tick)
        modalities = ", ".join(e.modality for e in event.evidence if e.supports)
        text = f"{event.phase.name.lower()}: {event.kind.name.lower()} {event.label}, score {event.score:.2f}"
        self._stream.log("reports", self._rr.TextLog(f"{text} ({modalities})" if modalities else text, level="INFO"))

    def add_scores(self, tick: int, scores: Mapping[str, Score]) -> None:
        """Send the scores of the prompts at one tick (ns) to a live viewer. A file has them at its end."""
        if not self._live:
            return
        self._set_time(tick)
        for label, score in scores.items():
            self._stream.log(f"scores/{_entity(label)}/all", self._rr.Scalars(score.score))

    def finish(
        self,
        embeddings: Sequence[Embedding],
        similarities: Mapping[str, Similarity],
        found: Sequence[EventInterval],
        truth: Sequence[tuple[int, int, str]] = (),
        scores: ScoreSeries | None = None,
    ) -> None:
        """Write the rest and the layout of the viewer, and close the file. `truth`: (onset, offset, label), int ns."""
        for sensor in list(self._readings):
            self._flush(sensor)
        self._embeddings(embeddings)
        for sensor, similarity in similarities.items():
            self._series(f"similarity/{sensor}", similarity.ticks, similarity.scores, similarity.labels)
        scores = scores or empty_scores()
        self._scores(scores)
        self._events(found)
        for label in sorted({label for _, _, label in truth}):
            own = [(onset, offset) for onset, offset, name in truth if name == label]
            self._log_step_line(
                f"truth/{label}", [(t, v) for onset, offset in own for t, v in ((onset, 1.0), (offset, 0.0))]
            )
        scored = () if scores.is_empty else scores.labels[:MAX_SCORE_VIEWS]
        self._stream.send_blueprint(self._layout(list(similarities), bool(truth), scored))
        try:
            self._stream.flush(timeout_sec=FLUSH_TIMEOUT)
        except Exception as error:  # of the SDK, which differs between versions
            raise RerunError(f"the viewer did not receive all data: {error}") from error
        self._stream.disconnect()

    def _set_time(self, stamp: int) -> None:
        self._stream.set_time(TIME, timestamp=np.datetime64(stamp, "ns"))

    def _frame(self, sample: Sample, frame: Frame, calibration: Calibration) -> None:
        try:
            small = image_preview(sample, frame, calibration, MAX_IMAGE_SIDE)
        except EncodingError:
            return  # the pipeline counts and reports it
        self._data_kinds[sample.sensor] = "image"
        self._set_time(sample.stamp)
        if small.values.ndim == 2:
            known = small.values[np.isfinite(small.values)]
            if known.size:  # its 5th, 50th and 95th percentile too: the image shows relative values only
                unit = "celsius" if small.radiometric else "metres" if sample.modality == DEPTH else "level"
                values = np.percentile(known, [5, 50, 95]) - (273.15 if small.radiometric else 0.0)
                self._scalar_cameras.add(sample.sensor)
                self._stream.log(f"sensors/{sample.sensor}/{unit}", self._rr.Scalars(values))
        pixels = charts.false_colour(sample.modality, [small.values])[0]
        self._log_jpeg(f"sensors/{sample.sensor}/image", np.ascontiguousarray(pixels[..., ::-1]))

    def _log_jpeg(self, path: str, pixels: npt.NDArray) -> None:
        """Write uint8 (H, W, 3) in BGR order as JPEG."""
        done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])
        if done:
            self._stream.log(path, self._rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg"))

    def _sound(self, sample: Sample, sound: Sound) -> None:
        if not sound.data.size or not np.isfinite(sound.sample_rate) or sound.sample_rate < 200:
            return
        self._data_kinds[sample.sensor] = "sound"
        block = pcm_to_float(sound.data)
        block = np.nan_to_num(block.mean(axis=1) if block.ndim == 2 else block).astype(np.float32)
        level = 10 * np.log10(max(float(np.mean(np.square(block))), 1e-10))
        self._set_time(sample.end)
        self._stream.log(f"sensors/{sample.sensor}/level", self._rr.Scalars(level))
        end, rate, rest = self._recent_sound.get(sample.sensor, (0, 0.0, np.zeros(0, np.float32)))
        if rate != sound.sample_rate or abs(sample.stamp - end) > SECOND // 10:
            rest = np.zeros(0, np.float32)
        rest = np.concatenate([rest, block])[-int(SPECTROGRAM_DURATION * sound.sample_rate) :]
        self._recent_sound[sample.sensor] = sample.end, sound.sample_rate, rest
        if sample.end - self._last_spectrogram.get(sample.sensor, 0) >= SPECTROGRAM_INTERVAL * SECOND:
            self._last_spectrogram[sample.sensor] = sample.end
            self._spectrogram(sample.sensor, rest, sound.sample_rate)

    def _spectrogram(self, sensor: str, samples: npt.NDArray[np.float32], rate: float) -> None:
        """Write the spectrogram of the last `SPECTROGRAM_DURATION`: low frequencies at the bottom, -100 to -20 dB from
        dark to bright."""
        size = frame_size(rate)
        if len(samples) < size:
            return
        frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 2]
        power, _ = mel_spectra(frames, rate, min(rate / 2, MAX_FREQUENCY))
        decibels = 10 * np.log10(np.maximum(power, 1e-12))
        width = int(SPECTROGRAM_DURATION * rate) // (size // 2)
        image = np.zeros((MEL_BANDS, width), np.uint8)
        levels = np.clip((decibels.T[::-1, -width:] + 100) / 80, 0, 1)
        image[:, width - levels.shape[1] :] = np.round(levels * 255)
        large = cv2.resize(cv2.applyColorMap(image, cv2.COLORMAP_MAGMA), (width * 2, MEL_BANDS * 4))
        self._log_jpeg(f"sensors/{sensor}/spectrogram", large)

    def _reading(self, sample: Sample, reading: Reading) -> None:
        self._data_kinds[sample.sensor] = "reading"
        held = self._readings.setdefault(sample.sensor, [])
        held.append((sample.stamp, np.asarray(reading.values, np.float64).ravel()))
        if len(held) >= READINGS_PER_BATCH:
            self._flush(sample.sensor)

    def _flush(self, sensor: str) -> None:
        held, self._readings[sensor] = self._readings[sensor], []
        size = len(held[0][1]) if held else 0
        held = [(t, v) for t, v in held if len(v) == size and np.isfinite(v).all()]
        if not held:
            return
        stamps, values = np.array([t for t, _ in held], np.int64), np.stack([v for _, v in held])
        parts = {"": (range(size), [str(i + 1) for i in range(size)])}
        if self._modalities[sensor] == IMU and size == len(IMU_CHANNEL_NAMES):
            parts = {
                "acceleration": (range(3), list(IMU_CHANNEL_NAMES[:3])),
                "angular_velocity": (range(3, 6), list(IMU_CHANNEL_NAMES[3:])),
            }
        for part, (channels, names) in parts.items():
            path = f"sensors/{sensor}/{part}".rstrip("/")
            self._series(path, stamps, values[:, list(channels)], names)

    def _series(self, path: str, stamps: npt.NDArray, values: npt.NDArray, names: Sequence[str]) -> None:
        """Write values (N, K) at stamps (N,) in ns as K lines with these names."""
        if not len(stamps) or not values.shape[1]:
            return
        self._stream.log(path, self._rr.SeriesLines(names=list(names)), static=True)
        column = self._rr.TimeColumn(TIME, timestamp=stamps.astype("datetime64[ns]"))
        scalars = self._rr.Scalars.columns(scalars=np.asarray(values, np.float64).ravel())
        self._stream.send_columns(path, [column], scalars.partition([values.shape[1]] * len(values)))

    def _log_step_line(self, path: str, changes: Sequence[tuple[int, float]]) -> None:
        """Write a step line of (stamp in ns, value)."""
        stamps = np.array([t for t, _ in changes], np.int64)
        values = np.array([v for _, v in changes], np.float64)
        self._stream.log(
            path, self._rr.SeriesLines(names=[path.split("/", 1)[1]], interpolation_mode="StepAfter"), static=True
        )
        column = self._rr.TimeColumn(TIME, timestamp=stamps.astype("datetime64[ns]"))
        self._stream.send_columns(path, [column], self._rr.Scalars.columns(scalars=values))

    def _scores(self, series: ScoreSeries) -> None:
        """Write the score of each label, those of single sensors, and the thresholds."""
        if series.is_empty:
            return
        for at, label in enumerate(series.labels):
            path = f"scores/{_entity(label)}"
            if not self._live:  # a viewer has them already
                self._series(f"{path}/all", series.ticks, series.scores[:, [at]], ["all modalities"])
            for sensor, own in series.sensors.items():
                self._series(f"{path}/{sensor}", own.ticks, own.score[:, [at]], [sensor])
            if label in series.thresholds:
                ends = series.ticks[[0, -1]]
                values = np.array([series.thresholds[label]] * 2)
                self._series(f"{path}/thresholds", ends, values, ["onset threshold", "offset threshold"])

    def _embeddings(self, embeddings: Sequence[Embedding]) -> None:
        if not embeddings:
            return
        modalities = {e.source: e.modality for e in embeddings}
        names = colour_names(modalities, sort_sensors(modalities))
        places = principal_components(np.stack([e.vector for e in embeddings]))
        for sensor, (name, shade) in names.items():
            at = [i for i, e in enumerate(embeddings) if e.source == sensor]
            colour = rgb(FUSED_COLOURS[1] if name == "fused" else colour_code(name, shade, 0))
            pale = tuple(round(0.5 * part + 0.5 * 128) for part in colour)  # visible on dark and on light
            faint = self._rr.Points2D(places[at], colors=[pale] * len(at), radii=[0.006] * len(at))
            self._stream.log(f"embeddings/all/{sensor}", faint, static=True)
            for i in at:
                self._set_time(embeddings[i].tick)
                point = self._rr.Points2D([places[i]], colors=[colour], radii=[0.025], labels=[sensor])
                self._stream.log(f"embeddings/{sensor}", point)

    def _events(self, found: Sequence[EventInterval]) -> None:
        changes: dict[str, list[tuple[int, float]]] = {}
        for item in found:
            sensors = ", ".join(f"{sensor} {score:.2f}" for sensor, score in item.score_by_sensor.items())
            self._set_time(item.onset)
            text = f"{item.kind.name.lower()}: {item.label}, highest score {item.peak_score:.2f}"
            text += f" ({sensors})" if sensors else ""
            level = "WARN" if item.kind.name == "FAULT" else "INFO"
            self._stream.log("events/log", self._rr.TextLog(text, level=level))
            own = changes.setdefault(f"events/{_entity(item.label)}", [])
            own += (
                [(item.onset, item.peak_score)]
                if item.offset is None
                else [(item.onset, item.peak_score), (item.offset, 0.0)]
            )
        for path, steps in changes.items():
            self._log_step_line(path, sorted(steps))

    def _layout(self, compared: Sequence[str], truth: bool, scored: Sequence[str]) -> Any:
        import rerun.blueprint as rrb

        images = [
            rrb.Spatial2DView(origin=f"sensors/{s}/image", name=s)
            for s in sort_sensors({s: self._modalities[s] for s, kind in self._data_kinds.items() if kind == "image"})
        ]
        images += [
            rrb.Spatial2DView(origin=f"sensors/{s}/spectrogram", name=s)
            for s, kind in self._data_kinds.items()
            if kind == "sound"
        ]
        lines: list[Any] = [rrb.TimeSeriesView(origin="events", name="detected events")]
        if self._live:
            lines.append(rrb.TimeSeriesView(origin="scores", name="scores", contents="$origin/*/all"))
        lines += [rrb.TimeSeriesView(origin="truth", name="truth")] if truth else []
        numbers = [
            rrb.TimeSeriesView(
                origin=f"sensors/{s}", name=s, contents=["$origin/**", "- $origin/spectrogram", "- $origin/image"]
            )
            for s, kind in self._data_kinds.items()
            if kind != "image" or s in self._scalar_cameras
        ]
        similar = [rrb.TimeSeriesView(origin=f"similarity/{s}", name=f"similarity, {s}") for s in compared]
        scores = [rrb.TimeSeriesView(origin=f"scores/{_entity(label)}", name=f"scores, {label}") for label in scored]
        lines += [rrb.Tabs(*views) for views in (scores, similar, numbers) if views]
        return rrb.Blueprint(
            rrb.Horizontal(
                rrb.Vertical(
                    rrb.Grid(*images),
                    rrb.Horizontal(
                        rrb.Spatial2DView(origin="embeddings", name="embeddings, two principal components"),
                        rrb.TextLogView(origin="reports" if self._live else "events/log", name="events"),
                    ),
                    row_shares=[3, 2],
                ),
                rrb.Vertical(*lines),
            ),
            rrb.TimePanel(timeline=TIME, state="collapsed"),
            collapse_panels=True,
        )


def principal_components(vectors: npt.NDArray) -> npt.NDArray[np.float64]:
    """Vectors (N, D) → their first two principal components (N, 2), scaled into −1..1.

    The sign of each axis makes its largest entry positive, so the same vectors give the same result.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    # Through the (D, D) covariance: for hours of vectors, an (N, N) matrix would not fit into memory.
    _, axes = np.linalg.eigh(centred.T @ centred)
    best = axes[:, ::-1][:, :2]
    best = best * np.sign(best[np.abs(best).argmax(axis=0), range(best.shape[1])])
    flat = centred @ best
    if flat.shape[1] < 2:
        flat = np.concatenate([flat, np.zeros((len(flat), 2 - flat.shape[1]))], axis=1)
    return np.asarray(flat / max(float(np.abs(flat).max()), 1e-9))


def _entity(label: str) -> str:
    """A label as one part of an entity path."""
    return label.replace("/", "_") or "_"
