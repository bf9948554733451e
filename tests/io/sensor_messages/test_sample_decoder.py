"""The live node and replay convert the same messages to the same samples, calibrations and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.sample_drivers import (
    Listed,
    Result,
    at_times,
    by_rclpy,
    live,
    replayed,
    values_of,
    without_topics,
    write,
)
from helpers.sensor_messages import (
    AUDIO_DATA,
    AUDIO_STAMPED,
    BAG,
    MGONZS13_TYPES,
    NUMBERS,
    RAW_AUDIO,
    START,
    audio_info,
    audio_stamped,
    camera_info,
    colour,
    compressed_image,
    depth,
    image,
    motion,
    numbers,
    other_data,
    raw_audio,
    sound,
    sound_with_stamp,
    wave,
)
from sensebind.fusion.config.parameters import sensor_options
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import SECOND, Calibration
from sensebind.fusion.io import messages as m
from sensebind.fusion.io.recordings import Recording, typestore
from sensebind.fusion.io.sensor_messages.audio import AUDIO_INFO_TYPE
from sensebind.fusion.io.sensor_messages.images import with_camera_info
from sensebind.fusion.io.sensor_messages.sample_decoder import (
    MESSAGE_TYPES,
    SampleDecoder,
    SideTopic,
    data_topic,
    select_message_type,
)
from sensebind.fusion.io.sensor_options import AudioFormat, SensorOptions
from sensebind.fusion.stream.accounting.identity import accounts
from sensebind.replay.reader import SampleReader

# Every message type, from a bag and from subscriptions

CAMERA = ("/cam/camera_info", m.CAMERA_INFO_TYPE, camera_info(focal=7.0, tx=-0.7))
CAMERA_INFO_WITHOUT_FOCAL = ("/cam/camera_info", m.CAMERA_INFO_TYPE, camera_info(focal=0.0))
AUDIO_INFO = ("/mic/info", AUDIO_INFO_TYPE, audio_info())
CASES: dict[str, tuple[str, str, dict[str, Any], list[tuple[str, str, Any]]]] = {
    # name: (modality, topic, other parameters, messages)
    "vision raw": (
        "vision",
        "/cam/image",
        {},
        [
            ("/cam/image", m.IMAGE_TYPE, colour(0)),
            CAMERA_INFO_WITHOUT_FOCAL,
            CAMERA,
            ("/cam/image", m.IMAGE_TYPE, colour(1)),
            CAMERA,
        ],
    ),
    "vision compressed": (
        "vision",
        "/cam/image",
        {"vision__transport": "compressed"},
        [CAMERA, ("/cam/image/compressed", m.COMPRESSED_IMAGE_TYPE, compressed_image("jpeg"))],
    ),
    "depth raw": (
        "depth",
        "/cam/depth",
        {"depth__unit": 0.0005},
        [("/cam/depth", m.IMAGE_TYPE, depth(0)), CAMERA, ("/cam/depth", m.IMAGE_TYPE, depth(1))],
    ),
    "depth compressed": (
        "depth",
        "/cam/depth",
        {"depth__transport": "compressed", "depth__focal_length": 5.0},
        [CAMERA, ("/cam/depth/compressedDepth", m.COMPRESSED_IMAGE_TYPE, compressed_image("16UC1; compressedDepth"))],
    ),
    "thermal raw": (
        "thermal",
        "/heat",
        {"thermal__unit": 0.04},
        [("/heat", m.IMAGE_TYPE, image("mono16", np.full((6, 8), 30000, np.uint16)))],
    ),
    "thermal compressed": (
        "thermal",
        "/heat",
        {"thermal__transport": "compressed"},
        [("/heat/compressed", m.COMPRESSED_IMAGE_TYPE, compressed_image("png"))],
    ),
    "imu": ("imu", "/imu", {}, [("/imu", m.IMU_TYPE, motion()), ("/imu", m.IMU_TYPE, motion(unknown=True))]),
    "AudioData": (
        "audio",
        "/mic/audio",
        {},
        [("/mic/audio", AUDIO_DATA, sound()), AUDIO_INFO, *[("/mic/audio", AUDIO_DATA, sound()) for _ in range(5)]],
    ),
    "AudioData by parameters": (
        "audio",
        "/mic/audio",
        {"audio__sample_format": "S16LE", "audio__sample_rate": 16000, "audio__channels": 2},
        [AUDIO_INFO, *[("/mic/audio", AUDIO_DATA, sound()) for _ in range(3)]],
    ),
    "AudioDataStamped": (
        "audio",
        "/mic/audio",
        {},
        [
            ("/mic/audio_info", AUDIO_INFO_TYPE, audio_info()),
            ("/mic/audio", f"{AUDIO_DATA}Stamped", sound_with_stamp()),
        ],
    ),
    "AudioDataStamped, info named": (
        "audio",
        "/mic/audio",
        {"audio__info_topic": "/format"},
        [
            AUDIO_INFO,
            ("/format", AUDIO_INFO_TYPE, audio_info(16000)),
            ("/mic/audio", f"{AUDIO_DATA}Stamped", sound_with_stamp()),
        ],
    ),
    "RawAudio": ("audio", "/mic/audio", {}, [("/mic/audio", RAW_AUDIO, raw_audio())]),
    "numbers": ("smell", "/nose", {"smell__fields": ["data[1:3]"]}, [("/nose", NUMBERS, numbers())] * 2),
    "numbers with a header": (
        "push",
        "/imu",
        {"push__fields": ["linear_acceleration.x"], "push__type": m.IMU_TYPE},
        [("/imu", m.IMU_TYPE, motion())],
    ),
}


@pytest.mark.parametrize("library", ["rosbags", "rclpy"])
@pytest.mark.parametrize("case", CASES)
def test_a_bag_and_live_messages_give_the_same_results(tmp_path: Path, case: str, library: str) -> None:
    modality, topic, given, items = CASES[case]
    values = values_of([modality], **{f"{modality}__topic": topic}, **given)
    with Recording(write(tmp_path / "bag", at_times(items), typestore())) as recording:
        expected, reader = replayed(recording, values, [modality])
        messages = list(recording.messages()) if library == "rosbags" else by_rclpy(recording)
        published = {t.name: t.type for t in recording.topics}
    found, sensors = live(messages, values, [modality], published)
    assert sensors.topics == reader.topics
    assert without_topics(found, sensors.topics) == expected
    assert any(kind in ("frame", "sound", "reading") for kind, *_ in expected)
    arrived = sensors.message_counts(modality)["arrived"]
    assert sum(kind in ("frame", "sound", "reading", "error") for kind, *_ in expected) == arrived
    offline = reader.accounted_messages(modality)
    for counts in (sensors.message_counts(modality), offline):
        published, accounted = accounts(counts)[:2]
        assert not (published.unaccounted or accounted.unaccounted), accounted
    assert offline["arrived"] == arrived and not offline["messages_waiting"]
    sensors.close()
    closed = accounts(sensors.message_counts(modality))[1]
    assert not closed.unaccounted and not closed.waiting, "what waited is counted as unfinished"


def test_messages_of_the_other_audio_common_give_the_same_results(tmp_path: Path) -> None:
    values = values_of(["audio"], audio__topic="/mic")
    with Recording(
        write(tmp_path / "bag", at_times([("/mic", AUDIO_STAMPED, audio_stamped())] * 2), MGONZS13_TYPES)
    ) as bag:
        expected, reader = replayed(bag, values, ["audio"])
        found, sensors = live(list(bag.messages()), values, ["audio"], {"/mic": AUDIO_STAMPED})
    assert found == expected and len(found) == 2 and found[0][:3] == ("sound", "audio", START // SECOND * SECOND + 5)
    assert sensors.topics == reader.topics == {"audio": "/mic"}


def test_sound_without_a_stamp_is_timed_by_its_samples_until_the_error_is_large() -> None:
    decoder = SampleDecoder(SensorOptions("audio", audio_format=AudioFormat("S16LE", 8000.0, 1)), AUDIO_DATA)
    block = SECOND // 10  # a message holds 800 samples
    late = (0, 20_000_000, -30_000_000, 20_000_000, 10 * SECOND, 10 * SECOND)
    stamps = [decoder.decode(sound(), START + i * block + extra)[0].stamp - START for i, extra in enumerate(late)]
    assert stamps == [-block, 0, block, 2 * block, 3 * block + 10 * SECOND, 4 * block + 10 * SECOND]


def test_a_stamp_of_zero_is_kept_so_that_the_windower_counts_it() -> None:
    message = motion()
    message.header = m.header_message(BAG, 0, "imu")
    assert [s.stamp for s in SampleDecoder(SensorOptions("imu"), m.IMU_TYPE).decode(message, START)] == [0]


def active_for(decoder: SampleDecoder, seconds: float, warning: str) -> bool:
    """Whether it has a warning with this text, so many seconds after START."""
    return any(warning in text for text in decoder.active_warnings(START + round(seconds * SECOND)))


def test_the_warning_of_two_devices_on_a_topic_ends_some_time_after_one_of_them() -> None:
    decoder = SampleDecoder(SensorOptions("imu"), m.IMU_TYPE)
    for tenth in range(400):
        message, arrival = motion(), START + tenth * SECOND // 10
        message.header = m.header_message(BAG, arrival, "other" if tenth < 100 and tenth % 2 else "imu")
        decoder.decode(message, arrival)
        now = tenth / 10
        assert active_for(decoder, now, "frames 'imu' (the first 1) and 'other'") == (0 < now < 20), now
    assert "frames" in decoder.warnings[0], "a replay reports it"


def test_the_warning_of_a_wrong_sampling_rate_ends_some_time_after_it_is_right() -> None:
    decoder = SampleDecoder(SensorOptions("audio", audio_format=AudioFormat("S16LE", 8000.0, 1)), AUDIO_DATA)
    arrival, seen = START, []
    for number in range(400):  # of 0.1 s; the first 100 arrive in half of the time
        arrival += SECOND // 20 if number < 100 else SECOND // 10
        decoder.decode(sound(), arrival)
        seen.append(bool(decoder.active_warnings(arrival)))
    assert seen[99] and not seen[-1] and sum(seen[100:]) < 180
    assert "the sampling rate is said to be 8000 Hz" in decoder.warnings[0]


def test_empty_sounds_between_others_cost_no_sound() -> None:
    """Some drivers send them in silence."""
    decoder = SampleDecoder(SensorOptions("audio", audio_format=AudioFormat("S16LE", 8000.0, 1)), AUDIO_DATA)
    found = [
        decoder.decode(BAG.make(AUDIO_DATA, data=wave()[: 0 if n % 3 else None]), START + n * SECOND // 30)
        for n in range(90)
    ]
    assert [len(samples) for samples in found] == [1] * 90
    assert not decoder.warnings


def test_two_modalities_can_use_one_topic() -> None:
    given = {"pull__topic": "/imu", "pull__fields": ["linear_acceleration.x"], "imu__topic": "imu"}
    values, logged = values_of(["imu", "pull"], **given), at_times([("/imu", m.IMU_TYPE, motion())] * 3)
    expected, _ = replayed(Listed(logged), values, ["imu", "pull"])
    found, _ = live(logged, values, ["imu", "pull"], {"/imu": m.IMU_TYPE})
    assert found == expected and [r[1] for r in found] == ["imu", "pull"] * 3


def test_a_type_that_is_published_later_is_discovered() -> None:
    pytest.importorskip("rclpy")
    published: dict[str, str] = {}
    _, sensors = live([], values_of(["audio"]), ["audio"], published)
    assert not sensors.topics
    published["/audio"] = RAW_AUDIO
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensebind.nodes.subscriptions.message_type", lambda name: name)
        sensors.discover_topics()
    assert sensors.topics == {"audio": "/audio"}


# Side messages, in any order

CAMERA_EVENTS = {
    "data": ("/cam/depth", m.IMAGE_TYPE, depth()),
    "never calibrated": CAMERA_INFO_WITHOUT_FOCAL,
    "mono": ("/cam/camera_info", m.CAMERA_INFO_TYPE, camera_info(8, 5.0)),
    "stereo": ("/cam/camera_info", m.CAMERA_INFO_TYPE, camera_info(16, 10.0, -0.5)),
}
AUDIO_EVENTS = {
    "data": ("/mic/audio", AUDIO_DATA, sound()),
    "8 kHz": ("/mic/info", AUDIO_INFO_TYPE, audio_info(8000)),
    "rate alone": ("/mic/audio_info", AUDIO_INFO_TYPE, audio_info(16000, 0, "")),
    "stereo": ("/mic/audio/info", AUDIO_INFO_TYPE, audio_info(44100, 2)),
    "flac": ("/mic/info", AUDIO_INFO_TYPE, audio_info(coding="flac")),
}
KINDS = [(topic, kind) for topic, kind, _ in (*CAMERA_EVENTS.values(), *AUDIO_EVENTS.values())]


def both(events: Sequence[tuple[str, str, Any]], values: Mapping[str, Any], modality: str) -> list[Result]:
    """The results of replay. Asserts that the live node gives the same."""
    logged = at_times(events)
    expected, reader = replayed(Listed(logged, *KINDS), values, [modality])
    found, sensors = live(logged, values, [modality], dict(KINDS))
    assert without_topics(found, sensors.topics) == expected
    assert reader.topics == sensors.topics
    return expected


@given(st.lists(st.sampled_from(list(CAMERA_EVENTS)), max_size=12), st.sampled_from([0.0, 3.0]))
def test_a_calibration_applies_from_its_message_on(names: list[str], focal: float) -> None:
    values = values_of(["depth"], depth__topic="/cam/depth", depth__focal_length=focal)
    results = both([CAMERA_EVENTS[name] for name in names], values, "depth")
    expected: list[Any] = []
    known = Calibration(focal_length=focal, focal_width=640 if focal else 0)
    for name in names:
        before = known
        if name in ("mono", "stereo") and not known.focal_length:
            known = replace(
                known,
                focal_length=5.0 if name == "mono" else 10.0,
                focal_width=8 if name == "mono" else 16,
                principal_x=3.5 if name == "mono" else 7.5,
            )
        if name == "stereo" and not known.baseline:
            known = replace(known, baseline=0.05)
        expected += ["data"] if name == "data" else [known] if known != before else []
    assert [r[2] if r[0] == "calibration" else "data" for r in results] == expected


@given(st.lists(st.sampled_from(list(AUDIO_EVENTS)), max_size=12))
def test_an_audio_format_applies_from_its_message_on_and_to_sounds_that_wait_for_it(names: list[str]) -> None:
    names = [*names, "8 kHz", "data"]  # so that no sound waits at the end
    results = both([AUDIO_EVENTS[name] for name in names], values_of(["audio"], audio__topic="/mic/audio"), "audio")
    expected: list[Any] = []
    known, refused, waiting = AudioFormat(), False, 0
    for name in names:
        if name == "data" and known.is_complete:
            expected += [(known.sample_rate, known.channels)] * (waiting + 1)
            waiting = 0
        elif name == "data" and refused:
            expected.append("wave")
        elif name == "data":
            waiting += 1
        elif name == "flac":
            expected.append("wave")
            refused = True
        else:
            rate, channels = {"8 kHz": (8000, 1), "rate alone": (16000, 0), "stereo": (44100, 2)}[name]
            known = AudioFormat(
                known.sample_format or ("S16LE" if channels else ""),
                known.sample_rate or rate,
                known.channels or channels,
            )
            refused = False
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        if isinstance(wanted, str):
            assert result[0] == "error" and wanted in result[2]
        else:
            assert result[0] == "sound" and (result[4], result[5][1]) == wanted


def test_side_topics_are_those_that_give_missing_values() -> None:
    def beside(options: SensorOptions, kind: str, topic: str) -> tuple[SideTopic, ...]:
        return SampleDecoder(options, kind).side_topics(topic)

    assert beside(SensorOptions("depth"), m.IMAGE_TYPE, "a/image") == (SideTopic("a/camera_info", m.CAMERA_INFO_TYPE),)
    assert beside(SensorOptions("vision", camera_info_topic="/i"), m.IMAGE_TYPE, "a") == (
        SideTopic("/i", m.CAMERA_INFO_TYPE),
    )
    assert [t.name for t in beside(SensorOptions("audio"), AUDIO_DATA, "/a/mic")] == [
        "/a/info", "/a/audio_info", "/a/mic_info", "/a/mic/info"
    ]  # fmt: skip
    # audio_capture publishes audio, audio_stamped and audio_info.
    stamped = beside(SensorOptions("audio"), "audio_common_msgs/msg/AudioDataStamped", "/mic_stamped")
    assert [t.name for t in stamped] == [
        "/info", "/audio_info", "/mic_stamped_info", "/mic_stamped/info", "/mic_info"
    ]  # fmt: skip
    known = SensorOptions("audio", audio_format=AudioFormat("S16LE", 8000.0, 1))
    assert not beside(known, AUDIO_DATA, "/a/mic") and not beside(SensorOptions("audio"), RAW_AUDIO, "/a/mic")
    assert not beside(SensorOptions("thermal"), m.IMAGE_TYPE, "a") and not beside(SensorOptions("imu"), m.IMU_TYPE, "a")


# Topics and types


def test_message_types_are_those_of_the_parameters_or_else_published_ones() -> None:
    assert SensorOptions("vision", transport="compressed").message_type == m.COMPRESSED_IMAGE_TYPE
    assert SensorOptions("vision").message_type == m.IMAGE_TYPE and SensorOptions("imu").message_type == m.IMU_TYPE
    assert SensorOptions("audio").message_type == "" and SensorOptions("audio", type="a/b/C").message_type == "a/b/C"
    assert (
        select_message_type("audio", ["a/b/C", RAW_AUDIO]) == RAW_AUDIO
        and select_message_type("audio", ["a/b/C"]) == "a/b/C"
    )
    assert select_message_type("smell", ["a/b/C", RAW_AUDIO]) == "a/b/C" and select_message_type("smell", []) == ""


def test_topics_of_compressed_images_have_the_suffix_of_image_transport() -> None:
    options = SensorOptions("depth", transport="compressed")
    assert data_topic(options, "/d") == "/d/compressedDepth"
    assert data_topic(options, "/d/compressed") == "/d/compressed"
    assert data_topic(SensorOptions("depth"), "/d") == "/d"


@pytest.mark.parametrize("topic", ["", "camera/image"], ids=["found", "named"])
def test_transport_selects_raw_or_compressed_images_in_replay_and_live(topic: str) -> None:
    recording = Listed([], ("/camera/image", m.IMAGE_TYPE), ("/camera/image/compressed", m.COMPRESSED_IMAGE_TYPE))
    for transport, expected in (("raw", "/camera/image"), ("compressed", "/camera/image/compressed")):
        values = values_of(["vision"], vision__topic=topic, vision__transport=transport)
        _, sensors = live([], values, ["vision"], {})
        reader = SampleReader(recording, values, ("vision",))
        assert reader.topics == sensors.topics == {"vision": expected}
        assert ("vision.transport" in reader.topic_reasons["vision"]) == (transport == "compressed")


def test_parameters_set_the_sensor_options() -> None:
    values = values_of(["audio", "smell"], audio__sample_rate=8000, audio__info_topic="/i", smell__fields=["data"])
    audio, smell = sensor_options(values, "audio"), sensor_options(values, "smell")
    assert (audio.topic_name, audio.has_explicit_topic, audio.info_topic) == ("audio", False, "/i")
    assert audio.audio_format == AudioFormat("", 8000.0, 0)
    assert (smell.topic_name, smell.has_explicit_topic, list(smell.fields), smell.fill) == (
        "smell",
        True,
        ["data"],
        0.0,
    )


# Errors


@pytest.mark.parametrize(
    ("options", "kind", "remedy"),
    [
        *[(SensorOptions(modality), "std_msgs/msg/String", rf"std_msgs/msg/String.*{modality}\.topic")
          for modality in MESSAGE_TYPES],
        (SensorOptions("vision"), m.IMU_TYPE, r"vision\.topic"),
        (SensorOptions("smell"), NUMBERS, r"smell\.fields"),
        (SensorOptions("smell", fields=("[0]",)), NUMBERS, r"smell\.fields.*\[0\]"),
        (SensorOptions("smell", fields=("data",)), "Float32", r"Float32.*smell\.type"),
    ],
)  # fmt: skip
def test_unreadable_types_are_refused_with_the_same_remedy_in_replay_and_live(
    options: SensorOptions, kind: str, remedy: str
) -> None:
    with pytest.raises(EncodingError, match=remedy):
        SampleDecoder(options, kind)
    modality = options.modality
    values = values_of([modality], **{f"{modality}__topic": "/t"})
    if modality not in MESSAGE_TYPES:
        values |= {"smell.fields": list(options.fields)}
    logged = at_times([("/t", kind, SimpleNamespace())])
    [expected] = replayed(Listed(logged), values, [modality])[0]
    assert expected[:2] == ("error", modality) and f"{modality}." in expected[2]
    if modality in ("audio", "smell"):  # for other modalities, the node subscribes to the right type only
        found, _ = live(logged, values, [modality], {"/t": kind})
        assert found == [("error", modality, f"topic '/t': {expected[2]}")]


@pytest.mark.parametrize(
    ("options", "kind", "message", "remedy"),
    [
        (SensorOptions("audio"), AUDIO_DATA, other_data(), r"audio.*AudioData.*package.*audio\.topic"),
        (SensorOptions("smell", fields=("data[9:].x",)), NUMBERS, numbers(), r"data\[9:\]\.x.*smell\.fields"),
        (SensorOptions("smell", fields=("layout",)), NUMBERS, numbers(), r"layout.*smell\.fields"),
        (SensorOptions("vision"), m.IMAGE_TYPE, SimpleNamespace(), r"vision.*sensor_msgs/msg/Image.*vision\.topic"),
        (SensorOptions("imu"), m.IMU_TYPE, SimpleNamespace(), r"imu.*sensor_msgs/msg/Imu.*imu\.topic"),
    ],
)  # fmt: skip
def test_unreadable_messages_are_refused_with_a_remedy(
    options: SensorOptions, kind: str, message: Any, remedy: str
) -> None:
    with pytest.raises(EncodingError, match=remedy):
        SampleDecoder(options, kind).decode(message, START)


@pytest.mark.parametrize("encoding", ["rgb8", "bayer_rggb8"])
def test_colours_on_the_topic_of_a_depth_sensor_are_an_error_that_names_topic_and_parameter(encoding: str) -> None:
    pixels = np.zeros((6, 8) if "bayer" in encoding else (6, 8, 3), np.uint8)
    values = values_of(["depth"], depth__topic="/t")
    logged = at_times([("/t", m.IMAGE_TYPE, image(encoding, pixels))])
    [(_, _, text)] = replayed(Listed(logged), values, ["depth"])[0]
    assert f"'{encoding}' has colours" in text and "depth.topic" in text
    assert live(logged, values, ["depth"], {})[0] == [("error", "depth", f"topic '/t': {text}")]
    compressed = SampleDecoder(SensorOptions("depth", transport="compressed"), m.COMPRESSED_IMAGE_TYPE)
    with pytest.raises(EncodingError, match=rf"'{encoding}' has colours.*depth\.topic"):
        compressed.decode(compressed_image(f"{encoding}; jpeg compressed bgr8"), START)


def test_colours_of_a_thermal_sensor_are_levels_and_a_warning_names_topic_and_parameter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    decoder = SampleDecoder(SensorOptions("thermal", topic="/t"), m.IMAGE_TYPE)
    for _ in range(3):
        [sample] = decoder.decode(image("rgb8", np.zeros((6, 8, 3), np.uint8)), START)
        assert sample.data.encoding == "rgb8"
    [text] = [record.getMessage() for record in caplog.records]
    assert "'/t'" in text and "'rgb8' has colours" in text and "thermal.topic" in text


def test_the_forward_axis_of_a_camera_that_sends_a_region_is_counted_from_its_edge() -> None:
    info = camera_info(width=640, focal=500.0)
    info.k[2], info.roi.x_offset, info.roi.width = 320.0, 480, 160
    known = with_camera_info(Calibration(), info)
    assert (known.focal_length, known.focal_width, known.principal_x) == (500.0, 160, -160.0)
    info.roi.width = 640  # the full image
    assert with_camera_info(Calibration(), info).principal_x == 320.0
    info.k[2] = float("nan")
    assert with_camera_info(Calibration(), info).principal_x is None
    info.k[0] = float("inf")
    assert with_camera_info(Calibration(), info) == Calibration()


@pytest.mark.parametrize("wrong", [1e300, float("inf"), float("nan")])
def test_camera_info_that_no_camera_has_does_not_spoil_the_depth_for_good(wrong: float) -> None:
    bad, good = camera_info(focal=wrong), camera_info(focal=500.0)
    bad.p[0], bad.p[3] = 500.0, -wrong
    good.p[0], good.p[3] = 500.0, -50.0
    known = with_camera_info(with_camera_info(Calibration(), bad), good)
    assert (known.focal_length, known.baseline) == (500.0, 0.1)


def test_an_image_above_max_pixels_is_an_error_that_names_the_parameter() -> None:
    options = SensorOptions("vision", max_pixels=100)
    decoder = SampleDecoder(options, "sensor_msgs/msg/CompressedImage")
    for side, is_read in ((10, True), (11, False)):
        data = cv2.imencode(".png", np.zeros((side, side, 3), np.uint8))[1].reshape(-1)
        sent = SimpleNamespace(
            header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0), frame_id="camera"), format="png", data=data
        )
        if is_read:
            assert len(decoder.decode(sent, 1)) == 1
        else:
            with pytest.raises(EncodingError, match="vision.max_pixels"):
                decoder.decode(sent, 1)
