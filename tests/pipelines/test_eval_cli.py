"""The contract of ``wsol-eval``: choices, exit codes, what is printed, and what imports torch."""

import re
from pathlib import Path

import pytest

from evaluation.names import PROTOCOL_NAMES
from evaluation.protocols import PROTOCOLS
from pipelines.eval_cli import main
from tests.integration.eval_command import evaluate, evaluated, make_listed_data, result_of
from tests.integration.prep_command import subprocess_run
from tests.pipelines.test_prep_cli import plain

BOX = (4.0, 2.0, 35.0, 17.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with a box and one without."""
    return make_listed_data(tmp_path_factory.mktemp("contract") / "data", {"a": [BOX], "b": [BOX], "c": []})


@pytest.fixture
def anything(tmp_path: Path) -> Path:
    """A file that exists, for errors that are found before it is read."""
    path = tmp_path / "anything"
    path.write_bytes(b"no checkpoint")
    return path


# --- choices and defaults


@pytest.mark.parametrize(
    ("names", "definition"),
    [
        (PROTOCOL_NAMES, PROTOCOLS),
        (
            # A sweep of all contours has no one box, and a crop shows no whole image.
            next(option for option in main.commands["predict"].params if option.name == "protocol").type.choices,
            [name for name, one in PROTOCOLS.items() if name != "wsoleval-v2" and not one.crops_centre],
        ),
    ],
    ids=["protocols", "protocols of predict"],
)
def test_the_choices_are_what_is_defined(names: tuple[str, ...], definition: object) -> None:
    assert tuple(names) == tuple(definition)  # type: ignore[arg-type]


def test_torch_is_imported_by_networks_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    program = (
        "import sys; import numpy as np; from pipelines.eval_cli import main\n"
        "folder, data, out = sys.argv[1:]\n"
        "np.save(folder + '/a.npy', np.eye(9)); np.save(folder + '/b.npy', np.eye(9))\n"
        "for words in (['run', '-h'], ['maps', folder, '--data', data, '--out', out], ['baseline', '--data', data]):\n"
        "    try: main([*words, '--protocol', 'cam'] if len(words) > 2 else words, standalone_mode=False)\n"
        "    except SystemExit as end: assert not end.code\n"
        "    print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess_run(program, tmp_path / "maps", data, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line in ("True", "False")] == ["False"] * 3


# --- what is printed and written


def test_a_baseline_is_a_table_and_writes_nothing_without_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = evaluate("baseline", "--data", data)
    assert result.exit_code == 0
    assert "baseline (baseline): 3 images asked for = 2 scored + 1 skipped (1 no boxes)\n" in result.output
    for protocol in PROTOCOLS:
        for name in ("centred-gaussian", "whole-frame"):
            assert re.search(rf"^{protocol} +{name} \* ", result.output, re.MULTILINE), (protocol, name)
    assert list(tmp_path.iterdir()) == []


def test_options_reach_the_result(data: Path, tmp_path: Path) -> None:
    (tmp_path / "blacklist.txt").write_text("val/b.png\n")
    words = "--protocol psol-crop --protocol cam --protocol cam --seed 5 --bootstrap-samples 0 --name mine".split()
    metrics = evaluated(
        tmp_path / "out", "baseline", "--data", data, *words, "--blacklist", tmp_path / "blacklist.txt", "--limit", 2
    )
    assert (metrics["name"], metrics["kind"]) == ("mine", "baseline")
    assert metrics["config"]["protocols"] == ["cam", "psol-crop"], "in the table's order, each once"
    assert metrics["config"]["bootstrap"] == {"samples": 0, "seed": 5}
    assert metrics["counts"] == {"asked": 2, "scored": 1, "failed": {}, "skipped": {"blacklisted": 1}, "notes": {}}
    # The frame of 40 x 20 against the box of 32 x 16 in the middle: 512 / 800.
    whole = result_of(metrics, "whole-frame", "cam")
    assert whole["gt_known_loc"]["correct"] == 1
    assert whole["gt_known_loc"]["interval"] is None


def test_the_name_of_the_folder_is_the_name_unless_one_is_given(data: Path, tmp_path: Path) -> None:
    metrics = evaluated(tmp_path / "of the folder", "baseline", "--data", data, "--protocol", "cam")
    assert metrics["name"] == "of the folder"


def test_first_box_only(tmp_path: Path) -> None:
    # The second box is the one that the whole frame finds.
    data = make_listed_data(tmp_path / "data", {"a": [(0, 0, 9, 9), (0, 0, 39, 19)]})
    for boxes, right in (("all", 1), ("first", 0)):
        metrics = evaluated(
            tmp_path / boxes, "baseline", "--data", data, "--boxes", boxes, "--protocol", "cam", "--limit", 1
        )
        assert result_of(metrics, "whole-frame", "cam")["gt_known_loc"]["correct"] == right
        assert metrics["config"]["boxes"] == boxes


# --- bad usage is exit 2, failed work exit 1, both in one line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "Usage"),
        ("measure", "No such command"),
        ("baseline", "--data"),
        ("baseline --data DATA --protocol cam-v2", "--protocol"),
        ("baseline --data DATA --split valid", "--split"),
        ("baseline --data DATA --boxes second", "--boxes"),
        ("baseline --data DATA --limit 0", "--limit"),
        ("baseline --data DATA --jobs 0", "--jobs 0: expected a number of at least 1, or -1"),
        ("baseline --data DATA --jobs -2", "--jobs -2"),
        ("baseline --data DATA --seed -1", "--seed"),
        ("baseline --data DATA --bootstrap-samples -1", "--bootstrap-samples"),
        ("baseline --data DATA --blacklist no/such/file", "--blacklist"),
        ("baseline --data DATA --out FILE", "is a file"),
        ("baseline --data DATA --panels 3", "--panels"),
        ("maps no/such/folder --data DATA", "no/such/folder"),
        ("maps FILE --data DATA", "is a file"),
        ("run no/such/file --data DATA", "no/such/file"),
        ("run FILE --data DATA --localizer gradcam", "--localizer"),
        ("run FILE --data DATA --device cuda:77", "--device 'cuda:77'"),
        ("run FILE --data DATA --device abacus", "--device 'abacus'"),
        ("run FILE --data DATA --device ,", "--device ',': expected auto, cpu"),
        ("run FILE --data DATA --ten-crop --flip", "ten crops"),
        ("run FILE --data DATA --scale -1", "scales (-1.0,)"),
        ("predict FILE FILE --device abacus", "--device 'abacus'"),
        ("run FILE --data DATA --batch-size 0", "--batch-size"),
        ("run FILE --data DATA --workers -1", "--workers"),
        ("predict FILE --out OUT", "Missing argument"),
        ("predict FILE FILE --out OUT --protocol wsoleval-v2", "--protocol"),
        ("predict FILE FILE --out OUT --threshold 1", "--threshold"),
        ("export FILE", "--out"),
        ("export FILE --out model.pth", "expected a name that ends in .onnx or .pt2"),
        ("report --out page.html", "Missing argument"),
        ("report FILE --out report.txt", "report.txt: expected a name that ends in .html or .htm"),
    ],
)
def test_bad_usage_is_exit_2_and_names_the_option(
    data: Path, anything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"DATA": data, "FILE": anything, "OUT": tmp_path / "out"}
    result = evaluate(*(places.get(word, word) for word in words.split()))
    assert result.exit_code == 2, result.output
    assert named in plain(result.output) and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == [anything]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("baseline --data EMPTY", "empty"),
        ("baseline --data DATA --split train", "train"),
        ("baseline --data DATA --layout clsloc", "data"),
        (
            "maps EMPTY --data DATA",
            "expected shards named val-00000-of-....h5 or files of maps (.npy, .npz, .png, .tif, .tiff), found neither",
        ),
        ("run FILE --data DATA --device cpu", "anything"),
        ("run EMPTY --data DATA --device cpu", "a folder without checkpoint-<step>.pt"),
        ("predict FILE FILE --out OUT --device cpu", "anything"),
        ("export FILE --out model.onnx", "anything"),
        ("report EMPTY --out page.html", "/empty/evaluation/metrics.json; give a folder that wsol-eval wrote"),
    ],
)
def test_failed_work_is_exit_1_in_one_line(
    data: Path, anything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"DATA": data, "FILE": anything, "EMPTY": tmp_path / "empty", "OUT": tmp_path / "out"}
    result = evaluate(*(places.get(word, word) for word in words.split()))
    assert result.exit_code == 1, result.output
    *_, last = result.output.strip().splitlines()
    assert last.startswith("wsol-eval: error: ") and named in last
    assert "Traceback" not in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anything", "empty"]


def test_an_introduction_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_bytes("# Für alle".encode("latin-1"))
    result = evaluate("report", tmp_path, "--introduction", text, "--out", tmp_path / "page.html")
    assert result.exit_code == 1
    assert result.output.startswith(f"wsol-eval: error: {text}: expected UTF-8 text") and result.output.count("\n") == 1
