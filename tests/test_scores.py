

@pytest.fixture(scope="module")
def patrol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the simulated robot, its truth, a fault that it does not have, and a configuration."""
    from sensebind.fusion.simulation import simulate

    folder = tmp_path_factory.mktemp("patrol")
    small = {"image_size": (160, 120), "depth_size": (80, 60), "thermal_size": (80, 60)}
    simulate(folder / "bag", duration=9.0, **small)
    (folder / "bag.faults.tsv").write_text("onset\toffset\tsensor\tfault\n2\t3\timu\tfrozen\n")
    (folder / "config.yaml").write_text(
        "embedder:\n  ros__parameters:\n    space: starter\n    device: cpu\n    modalities: [vision, audio]\n"
        "detector:\n  ros__parameters:\n    prompts: {person: [an astronaut], dog: [a dog]}\n"
    )
    return folder


def test_what_is_observed_does_not_depend_on_how_many_work_at_it(patrol: Path) -> None:
    from sensebind.observation import Settings, observe_all

    settings = Settings.read(patrol / "config.yaml")
    one, two = observe_all([(patrol / "bag", None)] * 2, settings, jobs=2)
    (alone,) = observe_all([(patrol / "bag", patrol / "bag.truth.tsv")], settings)
    for other in (two, alone):
        assert list(one.ways) == [ALL, VISION, AUDIO, LATE]
        for name, way in one.ways.items():
            assert way.spans.rows() == other.ways[name].spans.rows()
            np.testing.assert_array_equal(way.course.edges, other.ways[name].course.edges)
            np.testing.assert_allclose(way.course.scores, other.ways[name].course.scores, atol=1e-4)
        np.testing.assert_allclose(one.activity[1][AUDIO], other.activity[1][AUDIO])
    assert one.truth.labels[0] == "person" and one.prompts == ("dog", "person")
    assert one.faults is not None and one.faults.causes == ("frozen",)
    assert set(one.activity[1]) == {VISION, AUDIO}
    best = np.maximum(one.ways[VISION].course.scores, one.ways[AUDIO].course.scores)
    np.testing.assert_allclose(one.ways[LATE].course.scores, best)
    assert one.ways[VISION].spans.labels == one.ways[LATE].spans.labels == ("person",)
    assert (one.ways[VISION].told >= one.ways[VISION].spans.onsets).all()


def test_evaluate_events_writes_figures_a_table_and_plots(
    patrol: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sensebind.cli import main

    config = ["--config", str(patrol / "config.yaml")]
    assert main(["evaluate", "events", str(patrol / "bag"), *config, "--out", str(tmp_path / "o")]) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "o" / "events.json").read_text())
    assert list(found["ways"]) == [ALL, VISION, AUDIO, LATE, MODEL_FREE, ONE_LABEL]
    assert found["recordings"][0]["name"] == "bag" and found["faults"]["faults"] == 1
    assert "| late fusion |" in said and "dog" in said
    assert said.startswith((tmp_path / "o" / "events.md").read_text())
    assert (tmp_path / "o" / "events.png").stat().st_size > 10_000
    truth = str(patrol / "bag.truth.tsv")
    assert main(["evaluate", "events", str(patrol / "bag"), "--truth", truth, truth]) == 2
    assert "2 files for 1 recordings" in capsys.readouterr().err
    (tmp_path / "bare").symlink_to(patrol / "bag")
    assert main(["evaluate", "events", str(tmp_path / "bare"), *config]) == 2
    assert "bare.truth.tsv" in capsys.readouterr().err


def test_replay_takes_the_truth_beside_the_recording_and_shows_it(patrol: Path, tmp_path: Path) -> None:
    from sensebind.cli import main
    from sensebind.fusion.recordings import Recording

    config = ["--config", str(patrol / "config.yaml")]
    assert main(["replay", str(patrol / "bag"), *config, "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Truth told" in page and "<h1><bdi>bag</bdi></h1>" in page and "fault:imu:frozen" in page
    assert 'alt="person at ' in page
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"onset": 0.2, "offset": 6.5, "label": "person"} in summary["truth"]
    with Recording(tmp_path / "outputs") as bag:
        told = [text.text for _, _, _, m in bag.messages(["/annotated/vision/annotations"]) for text in m.texts]
    assert any(text.startswith("person (vision ") for text in told)
