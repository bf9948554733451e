"""Files of any origin are read within limits: one line says what is wrong with them, and where."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import pytest

from sensebind.cli import main
from sensebind.fusion.config.files import read_parameter_file
from sensebind.fusion.core.documents import DocumentError, parse_json, parse_yaml, read_bytes, read_yaml
from sensebind.fusion.core.errors import ConfigError, SensebindError, printable

HEAD = "/**:\n  ros__parameters:\n"
LIST_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MAPPING_BOMB = "x0: &x0 {a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7, h: 8}\n" + "".join(
    f"x{i + 1}: &x{i + 1} {{{', '.join(f'{c}: *x{i}' for c in 'abcdefgh')}}}\n" for i in range(20)
)
REFUSED = {  # YAML → what the error says
    "a: 2\n" + "b: " + "[" * 3000 + "]" * 3000: "line 2, column 43 has more than 40 levels",
    "".join("  " * i + f"a{i}:\n" for i in range(400)): "levels of nesting",
    LIST_BOMB: "values, counted with their aliases",
    MAPPING_BOMB: "values, counted with their aliases",
    "a: &a [*a]": "an alias that contains itself",
    "&a {b: *a}": "an alias that contains itself",
    "a: 1\na: 2": "line 2, column 1 has the key 'a' twice",
    "a: 1\n'a': 2": "has the key 'a' twice",
    "? [a, b]\n: 2": "a key that is a list or a mapping",
    "{[a]: 1}": "a key that is a list or a mapping",
    "a: " + "9" * 400: "more than 64 bits",
    "a: " + "9" * 5000: "a number of 5000 characters",
    "a: " + ":".join(["9"] * 3000): "a number of 5999 characters",
    "a: !!float abc": "'abc', which is not !!float",
    "a: !!int ''": "which is not !!int",
    "a: !!bool abc": "which is not !!bool",
    "a: !!timestamp abc": "the type !!timestamp",
    "a: !!binary aGVsbG8=": "the type !!binary",
    "a: !!set {b, c}": "the type !!set",
    "!!python/object/apply:os.system ['touch pwned']": "the type !!python/object/apply:os.system",
    "\tvision: 1": "is not YAML: found character",
    "a: 1\n---\nb: 2": "another document",
    "<<: 5": "expected a mapping",
    'a: "\\ud800"': "surrogate",
    "a\0b": "is not YAML",
    "a: *b": "undefined alias",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_yaml_that_is_no_data_for_here_is_refused_in_one_line(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(DocumentError) as refused:
        parse_yaml(text, "'my.yaml'")
    message = str(refused.value)
    assert message.startswith("'my.yaml'") and REFUSED[text] in message and "\n" not in message and len(message) < 300
    assert time.monotonic() - began < 20


def test_yaml_has_the_values_that_ros_reads() -> None:
    text = "\non: 1\n5: no\nday: 2020-99-99\nrate: 1e3\nnothing:\nsame: &s {a: [1, 2.5, x]}\nagain: *s\n"
    text += "more: {<<: *s, b: =}"
    assert parse_yaml(text) == {
        "on": 1, "5": False, "day": "2020-99-99", "rate": 1000.0, "nothing": None, "same": {"a": [1, 2.5, "x"]},
        "again": {"a": [1, 2.5, "x"]}, "more": {"a": [1, 2.5, "x"], "b": "="},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ((HEAD + "    vision.hop: 1.0\n").encode("utf-16"), "is UTF-16: save it as UTF-8"),
        (bytes(range(256)), "is not text in UTF-8"),
        ((HEAD + "    vision.hop: 1.0\n    vision: {hop: 2.0}\n").encode(), "sets 'vision.hop' twice in one section"),
        (b"[1, 2]", "must contain '/**:'"),
        (b"vision.hop:\n", "has no 'ros__parameters:'"),
    ],
)
def test_a_parameter_file_of_another_kind_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "p.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match="parameter file '.*p.yaml'") as refused:
        read_parameter_file(tmp_path / "p.yaml", "embedder")
    assert problem in str(refused.value)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbf" + HEAD.encode() + b"    vision.hop: 1.5\n")
    assert read_parameter_file(tmp_path / "p.yaml", "embedder") == {"vision.hop": 1.5}


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ("vision.hop: .nan", "'vision.hop' must be 0.001 to 3600 s, not nan"),
        ("vision.hop: [no]", "'vision.hop' must be a number, not [False]"),
        ("prompts: {a: [no]}", "'prompts.a' must be a list of strings"),
        ("detectors: [5]", "'detectors' must be a list of strings"),
        ('"prompts.a\\n\\e[31m": [b]', "'prompts.a\\n\\x1b[31m' has control characters"),
        (f"vision.sensors: [{','.join(f'a{i}' for i in range(5000))}]", "names 5000 sensors"),
        (f"space: [{'x, ' * 5000}]", "'space' must be a string"),
    ],
)
def test_a_wrong_value_is_one_short_line_of_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parameters: str, problem: str
) -> None:
    (tmp_path / "p.yaml").write_text(HEAD + "    " + parameters)
    assert main(["replay", "nothing", "--config", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1 and len(error) < 400


def test_a_file_without_end_costs_no_memory(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in (huge, Path("/dev/zero")):
        with pytest.raises(DocumentError, match="is larger than 2 MB"):
            read_yaml(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB
    with pytest.raises(DocumentError, match="cannot be read"):
        read_yaml(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"a: 1",))
    writer.start()
    assert read_bytes(pipe) == b"a: 1"
    writer.join()


def test_json_is_refused_in_one_line() -> None:
    for text in ("[" * 100_000, "{", "9" * 5000, ""):
        with pytest.raises(DocumentError, match="my.json"):
            parse_json(text, "'my.json'")
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}


def test_text_of_others_cannot_write_lines_or_move_the_cursor() -> None:
    hostile = "/cam\n[INFO] all is well\x1b[2J\x9b31m\u202eevil\u2028end\ud800"
    shown = printable(hostile)
    assert shown == "/cam\\n[INFO] all is well\\x1b[2J\\x9b31m\\u202eevil\\u2028end\\ud800"
    assert str(SensebindError(f"topic '{hostile}'")) == f"topic '{shown}'"
    assert printable("Straße, 音, 👩‍🚒") == "Straße, 音, 👩‍🚒"
