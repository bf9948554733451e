"""Truth files: reading and writing, and errors that name file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensebind.fusion.io.ground_truth import (
    TruthError,
    find_truth_file,
    match_truth_files,
    read_faults,
    read_truth,
    require_truth_file,
    write_faults,
    write_truth,
)
from sensebind.report.report_data import report_truth


def test_a_written_truth_file_is_read_unchanged(tmp_path: Path) -> None:
    rows = [(0.2, 6.25, "b"), (0.2, 6.5, "a person"), (7.7, 14.0, 'a "cat"')]
    write_truth(tmp_path / "t.tsv", rows)
    assert read_truth(tmp_path / "t.tsv") == rows
    assert (tmp_path / "t.tsv").read_text().splitlines()[0] == "onset\toffset\tlabel"
    with pytest.raises(TruthError, match=r"nowhere.*t\.tsv' cannot be written"):
        write_truth(tmp_path / "t.tsv" / "nowhere" / "t.tsv", rows)


def test_the_truth_of_the_recording_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_truth(tmp_path / "bag.truth.tsv", [])
    (tmp_path / "bag" / "part").mkdir(parents=True)
    for folder, name in (("bag", "."), ("bag", ""), ("bag/part", "..")):
        monkeypatch.chdir(tmp_path / folder)
        assert find_truth_file(name) == (tmp_path / "bag.truth.tsv").resolve()
    monkeypatch.chdir("/")
    assert find_truth_file(".") is None


def test_a_written_faults_file_is_read_unchanged(tmp_path: Path) -> None:
    rows = [(30.0, 40.5, "audio", "muted"), (1.0, 2.0, "imu", "frozen")]
    write_faults(tmp_path / "f.tsv", rows)
    assert (tmp_path / "f.tsv").read_bytes() == (
        b"onset\toffset\tsensor\tfault\n30.000\t40.500\taudio\tmuted\n1.000\t2.000\timu\tfrozen\n"
    )
    assert read_faults(tmp_path / "f.tsv") == rows


@pytest.mark.parametrize(
    "text",
    [
        "onset\toffset\tlabel\n0.5\t2\tdog\n",
        "0.5\t2\tdog\n",
        "filename\tonset\toffset\tevent_label\nx.wav\t0.5\t2\tdog\n",
        "\ufeffLabel\tOnset\tOffset\r\n\r\ndog\t0.5\t2.0\r\n",
    ],
)
def test_truth_files_of_public_data_sets_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.tsv").write_text(text, encoding="utf-8")
    assert read_truth(tmp_path / "t.tsv") == [(0.5, 2.0, "dog")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onset\toffset\tlabel\n0.5\t2\n", "line 2"),
        ("0.5\t0.5\tdog\n", "line 1"),
        ("0.5\tsoon\tdog\n", "line 1"),
        ("nan\t2\tdog\n", "line 1"),
        ("0.5\t2\t \n", "line 1"),
        ("onset\toffset\n0\t1\n", "label"),
        *(
            (f"onset\toffset\tlabel\n0\t1\tcat\n{line}\n", r"t\.tsv', line 3")
            for line in ("x\t1\tdog", "3\t1\tdog", "1\t2", "1\t2\t ")
        ),
    ],
)
def test_an_error_in_a_truth_file_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(TruthError, match=message) as raised:
        read_truth(tmp_path / "t.tsv")
    assert "t.tsv" in str(raised.value)
    with pytest.raises(TruthError, match="nowhere"):
        read_truth(tmp_path / "nowhere.tsv")


def test_the_truth_of_a_recording_is_the_given_file_or_the_file_beside_it(tmp_path: Path) -> None:
    bag, given = tmp_path / "bag.mcap", tmp_path / "other.tsv"
    assert find_truth_file(bag) is None and report_truth(bag) is None
    with pytest.raises(TruthError, match=r"bag\.mcap\.truth\.tsv.*--truth"):
        require_truth_file(bag)
    write_truth(tmp_path / "bag.truth.tsv", [(2.0, 3.0, "dog"), (1.0, 2.0, "cat")])
    write_faults(tmp_path / "bag.mcap.faults.tsv", [(0.5, 4.0, "imu", "frozen")])
    assert find_truth_file(bag) == require_truth_file(bag) == tmp_path / "bag.truth.tsv"
    assert require_truth_file(bag, given) == given
    assert report_truth(bag) == [(1.0, 2.0, "cat"), (2.0, 3.0, "dog"), (0.5, 4.0, "fault:imu:frozen")]
    assert match_truth_files([bag, bag], []) == [None, None] and match_truth_files([bag], [given]) == [given]
    with pytest.raises(TruthError, match="names 1 files for 2 recordings"):
        match_truth_files([bag, bag], [given])


def test_a_label_may_be_equal_to_a_column_name(tmp_path: Path) -> None:
    file = tmp_path / "t.tsv"
    file.write_text("0\t1\tstart\n2\t3\tend\n")
    assert read_truth(file) == [(0.0, 1.0, "start"), (2.0, 3.0, "end")]


def test_an_unclosed_quotation_mark_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "t.tsv"
    file.write_text('0\t1\t"dog\n2\t3\tcat\n')
    with pytest.raises(TruthError, match=r"t\.tsv' cannot be read"):
        read_truth(file)


def test_labels_match_those_of_prompts_without_regard_to_case_spaces_and_underscores(tmp_path: Path) -> None:
    names = ("Glass  Breaking", "glass_breaking", "DOG", "cat", "hot spot", "hot-spot")
    write_truth(tmp_path / "t.tsv", [(float(i), i + 1.0, name) for i, name in enumerate(names)])
    prompts = ("glass_breaking", "dog", "Hot_Spot", "hotspot")
    labels = [label for _, _, label in read_truth(tmp_path / "t.tsv", prompts)]
    assert labels == ["glass_breaking", "glass_breaking", "dog", "cat", "Hot_Spot", "hot-spot"]
    write_truth(tmp_path / "same.tsv", [(0.0, 1.0, "hotspot")])
    assert read_truth(tmp_path / "same.tsv", prompts)[0][2] == "hotspot", "an equal label takes precedence"
    assert [label for _, _, label in read_truth(tmp_path / "t.tsv")][2] == "DOG"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"1\t1e300\tdog\n", "line 1: times are seconds"),
        (b"-1e400\t1\tdog\n", "line 1: times are seconds"),
        (b"nan\t1\tdog\n", "line 1: times are seconds"),
        (b'1\t2\t"a\nb"\n', "no control characters"),
        (b"1\t2\t\x1b[31mdog\n", "no control characters"),
        (b"1\t2\t" + b"x" * 2000 + b"\n", "at most 1000 characters"),
        (b"1\t2\t" + b"x" * 200_000 + b"\n", "cannot be read"),
        ("1\t2\tdog\n".encode("utf-16"), "is UTF-16"),
        (bytes(range(256)), "not text in UTF-8"),
        (b"1\t2\tdo\0g\n", "t.tsv"),
    ],
)
def test_a_truth_of_any_content_is_read_or_refused_in_one_line(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "t.tsv").write_bytes(data)
    with pytest.raises(TruthError) as refused:
        read_truth(tmp_path / "t.tsv")
    assert problem in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_a_truth_without_end_costs_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "t.tsv").open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(TruthError, match="is larger than 64 MB"):
        read_truth(tmp_path / "t.tsv")
