"""A data set on disk: killed and continued, run twice at once, read by `datasets`, wrong requests refused."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from spatial_nb.core import content_hash
from spatial_nb.items import from_dataset
from spatial_nb.reproduce import main
from spatial_nb.spatialite import SPLITS, split_of
from spatial_nb.synthesis import Recipe, load, synthesize

RECIPE = Recipe("cube_rolling", 60, 6, modality="VTQA", size=200, per_shard=4)
WORDS = "spatialite --task cube_rolling --n 60 --held-out 6 --size 200 --per-shard 4 --workers 2 --out".split()


def state(folder) -> dict:
    return {
        p.relative_to(folder).as_posix(): content_hash(p.read_bytes().hex())
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def start(folder):
    code = "import sys; from spatial_nb.reproduce import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "synthesize", *WORDS, str(folder)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "set"
    synthesize(RECIPE, folder, workers=1)
    return state(folder)


def test_a_killed_synthesis_goes_on_and_ends_with_the_same_bytes(tmp_path, whole):
    folder = tmp_path / "set"
    for files in (1, 9):
        job = start(folder)
        for _ in range(600):
            if len(list(folder.glob("data/*.parquet"))) >= files:
                break
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        assert job.returncode == -signal.SIGKILL and len(list(folder.glob("data/*.parquet"))) < 19
    assert start(folder).wait() == 0
    kept = {name: h for name, h in state(folder).items() if ".part" not in name}
    assert kept == whole


def test_two_at_once_make_one_data_set(tmp_path, whole):
    jobs = [start(tmp_path / "set") for _ in range(2)]
    assert [j.wait() for j in jobs] == [0, 0]
    assert state(tmp_path / "set") == whole


def test_a_folder_where_another_process_is_about_to_write_the_recipe_is_no_stranger(tmp_path):
    recipe = Recipe("move_box", 2, 0, difficulty="easy", size=80)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / ".recipe.1.part.json").write_text("")
    assert len(synthesize(recipe, tmp_path / "boxes", workers=1)) == 1


def test_it_loads_as_a_dataset_dict_with_every_item_in_its_split(tmp_path):
    recipe = Recipe("move_box", 8, 3, difficulty="easy", size=120, per_shard=5)
    synthesize(recipe, tmp_path / "boxes", workers=1)
    loaded = load(tmp_path / "boxes")
    assert {k: len(v) for k, v in loaded.items()} == dict(train=8, validation=3, test=3)
    for split, items in from_dataset(loaded).items():
        assert items == list(recipe.items(split))
        assert {split_of(i.metadata["canonical"]) for i in items} == {split} <= set(SPLITS)


def test_a_folder_that_was_made_again_is_not_loaded_from_a_cache(tmp_path):
    for seed in (0, 1):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        recipe = Recipe("cube_rolling", 3, 1, seed=seed, modality="TQA")
        synthesize(recipe, tmp_path / "set", workers=1)
        assert load(tmp_path / "set")["train"]["id"][0] == recipe.items("train")[0].id


@pytest.mark.parametrize(
    "words, says",
    [
        (["--task", "sokoban"], "task is 'sokoban'"),
        (["--task", "move_box", "--difficulty", "insane"], "difficulty is 'insane'"),
        (["--task", "move_box", "--modality", "text"], "modality is 'text'"),
        (["--task", "move_box", "--n", "0"], "n is 0"),
        (["--task", "move_box", "--per-shard", "0"], "per_shard is 0"),
        (["--task", "move_box", "--workers", "-1"], "workers is -1"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_no_item(tmp_path, capsys, words, says):
    assert main(["synthesize", "spatialite", *words, "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["synthesize", *WORDS, str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(FileNotFoundError, match="no finished data set"):
        load(tmp_path)
