"`spatial-nb traces`: nothing is begun on a bad request, and whatever happens after that, nothing is lost or uncounted."

import csv
import errno
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import KEY, body, error
from PIL import Image
from pyarrow.parquet import read_table

from spatial_nb import chat, core, tools
from spatial_nb import spatialtracegen as stg
from spatial_nb.core import read_json, read_jsonl, rng, write_json, write_jsonl
from spatial_nb.items import Item, gold
from spatial_nb.questions import questions
from spatial_nb.render import render
from spatial_nb.reproduce import main
from spatial_nb.scenes import sample_scene
from spatial_nb.trace_exports import VIEWS
from spatial_nb.trace_runs import EXPORTS, Question, make_traces, prices_from, read_questions, tools_from
from spatial_nb.traces import read_traces

KINDS = ["count", "exist", "query_color", "query_shape", "compare_integer", "extreme"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Three rendered pictures, twelve questions about them, and what the tools see in them."
    home, rows = tmp_path_factory.mktemp("home"), []
    for k in range(3):
        scene = sample_scene(rng("test trace runs", k), n=5)
        render(scene, (480, 320)).image.save(home / f"{k}.png")
        for q in questions(scene, rng("test trace runs", k, "q"), KINDS, 4):
            known = gold(Item("x", q.text, [], q.answer, q.kind, q.options and list(q.options)))
            rows.append({"image_filename": f"{k}.png", "question": q.text, "answer": known, "kind": q.kind})
    write_rows(home / "questions.csv", rows)
    return home


def write_rows(path, rows):
    with open(path, "w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def command(home, out, *more, **options):
    "The words of a command; `cache=None`: tools look anew."
    told = dict(input=home / "questions.csv", images=home, out=out, tau=0, tool_cache=home / "seen") | options
    words = [f"--{k.replace('_', '-')}={v}" for k, v in told.items() if v is not None]
    return ["traces", *words, *more]


def counts(text) -> dict:
    "The table in what the command has said."
    return {m[1].strip(): int(m[2]) for m in re.finditer(r"^([a-z][a-z _]*[a-z]) +(\d+)$", text, re.M)}


@pytest.fixture(scope="module")
def whole(home):
    "The traces of a run that nobody disturbed."
    assert main(command(home, home / "whole", generator="policy:error=0.3")) == 0
    return home / "whole"


# --- what it makes ------------------------------------------------------------------------------------------------


def test_questions_about_rendered_pictures_are_solved_and_exported(home, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(home, out, "--export", ",".join(EXPORTS))) == 0
    said = capsys.readouterr().out
    table, made = counts(said), read_traces(out)
    assert table["asked"] == table["answered"] == len(made) == table["right or wrong is known"] == 12
    assert table["right"] == sum(t.correct for t in made) >= 11 and "12 questions, 0 of them done before" in said
    sft, steps = read_table(out / "sft.parquet").to_pylist(), read_table(out / "transitions.parquet").num_rows
    assert len(sft) == 12 and steps == sum(len(t.attempts) for t in made) and (out / "README.md").is_file()
    assert sft[0]["messages"][0]["role"] == "system" and "segment" in sft[0]["messages"][0]["content"][0]["text"]
    assert len(list(out.glob("official/*/complete_trace.json"))) == 12
    assert {t.settings["generator"] for t in made} == {read_json(out / "run.json")["generator"]}


def test_exports_are_chosen(home, tmp_path, capsys):
    for k, (said, files) in enumerate((("none", set()), ("prm", {"prm.parquet"}), ("official", set()))):
        assert main(command(home, tmp_path / str(k), "--limit=1", export=said)) == 0
        assert {p.name for p in (tmp_path / str(k)).glob("*.parquet")} == files
    assert (tmp_path / "2/official").is_dir() and counts(capsys.readouterr().out)["asked"] == 1


def test_a_program_of_ones_own_is_a_tool(home, tmp_path):
    one = read_questions(home / "questions.csv")[:1]
    said = 'clevr,depth=none,top_down=external:"cp {image} {out}"'
    made = make_traces(one, tmp_path, tools=said, tau=0, cache=home / "seen")
    assert made.traces[0].settings["tools"] == ["segment", "top_down"] and made.complete


def test_an_answer_is_right_as_people_would_say_it():
    q = lambda answer: Question("x", "How?", Path("none.png"), answer)
    right = [("5", "5 things"), ("yes", "Yes."), ("no", "No, there is none."), ("red", "the Red"), ("5", "five")]
    assert all(stg.right_answer(q(known), said) for known, said in right)
    wrong = [("5", "6"), ("yes", "no"), ("red", "blue"), ("5", None), ("red", "")]
    assert not any(stg.right_answer(q(known), said) for known, said in wrong)
    assert stg.right_answer(q(None), "red") is None


# --- files of questions -------------------------------------------------------------------------------------------


def test_a_photo_stands_upright_and_is_as_large_as_a_model_looks_at(tmp_path):
    photo, exif = Image.new("RGB", (400, 200), "blue"), Image.Exif()
    photo.paste("red", (0, 0, 400, 100))
    exif[0x0112] = 6  # the camera was held upright: the top of the file is at the right
    photo.save(tmp_path / "p.jpg", exif=exif, quality=95)
    (tmp_path / "q.csv").write_text("question,image\nIs red on the right?,p.jpg\n")
    for side, size in ((None, (200, 400)), (2048, (200, 400)), (100, (50, 100))):
        (shown,) = read_questions(tmp_path / "q.csv", max_side=side)[0].images
        right, left = (shown.getpixel((round(x * size[0]), size[1] // 2)) for x in (0.9, 0.1))
        assert shown.size == size and right[0] > 200 > 60 > right[2] and left[2] > 200 > 60 > left[0]


def plain(found):
    return [(q.question, q.path, q.answer) for q in found]


def test_all_forms_of_a_file_say_the_same(home):
    asked = read_questions(home / "questions.csv")
    rows = [{"question": q.question, "image": q.path.name, "answer": q.answer} for q in asked]
    write_jsonl(home / "q.jsonl", rows)
    write_json(home / "q.json", {"questions": rows})
    write_json(home / "list.json", rows)
    text = (home / "questions.csv").read_text()
    (home / "bom.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("image_filename", " Image_Path ").encode())
    (home / "lines.csv").write_bytes(text.replace("\n", "\r\n").replace("\r\r", "\r").encode())
    table = [list(rows[0]), *([*r.values()] for r in rows)]
    with open(home / "q.tsv", "w", newline="") as f:
        csv.writer(f, delimiter="\t").writerows(table)
    with open(home / "semicolons.csv", "w", newline="") as f:
        csv.writer(f, delimiter=";").writerows(table)
    for name in ("q.jsonl", "q.json", "list.json", "bom.csv", "lines.csv", "q.tsv", "semicolons.csv"):
        assert plain(read_questions(home / name, home)) == plain(asked), name
    assert [q.id for q in read_questions(home / "q.jsonl")] == [q.id for q in asked]  # of question and picture


def test_the_published_file_is_read():
    folder = core.data_root() / "clevr_humans"
    if not folder.is_dir():
        pytest.skip("no reference data")
    asked = read_questions(folder / "questions.csv", folder / "images")
    assert asked == [q for q in read_questions(folder / "questions.csv") if q.path.is_file()]
    assert len(asked) > 90 and all(q.path.is_file() and q.answer and q.metadata["split"] for q in asked)


def test_exactly_the_rows_that_are_broken_are_named(tmp_path):
    (tmp_path / "0.png").touch()
    good = lambda k: ["0.png", f"Is {k}\nor not?" if k % 3 == 0 else f"Is {k}?", "yes"]
    breaks = [lambda r: [r[0], " ", r[2]], lambda r: ["", *r[1:]], lambda r: r[:2], lambda r: [*r, "x"],
              lambda r: ["../0.png", *r[1:]]]  # fmt: skip
    for seed in range(40):
        random, lines, text, at = rng("broken rows", seed), [], "image,question,answer\n", 2
        for k in range(12):
            row, broken = good(k), random.random() < 0.3
            row = breaks[int(random.integers(len(breaks)))](row) if broken else row
            lines += [at] if broken else []
            made = ",".join(f'"{c}"' for c in row) + "\n"
            text, at = text + made, at + made.count("\n")
        (tmp_path / "q.csv").write_text(text)
        if not lines:
            assert len(read_questions(tmp_path / "q.csv")) == 12
            continue
        with pytest.raises(ValueError, match=f"{len(lines)} of 12 rows cannot be read") as e:
            read_questions(tmp_path / "q.csv")
        named = [int(n) for part in re.findall(r"line ([\d, ]+):", str(e.value)) for n in part.split(", ")]
        assert sorted(named) == lines and "\n" not in str(e.value)


BAD_FILES = {
    "empty.csv": ("", "holds no question"),
    "header.csv": ("question,image\n", "holds no question"),
    "columns.csv": ("text,image\na,b\n", "has no column question: its columns are text, image"),
    "twice.csv": ("question,image,image\na,b,c\n", "two columns are called 'image'"),
    "quote.csv": ('question,image\na,0.png\n"b,0.png\nc,0.png\n', "line 3: not CSV"),
    "id.csv": ("id,question,image\n1,a,0.png\n2,b,0.png\n1,c,0.png\n", "line 4: '1' stands there twice"),
    "same.csv": ("question,image\na,0.png\na,0.png\n", "line 3: .* stands there twice"),
    "latin.csv": (b"question,image\nIst es gr\xfcn?,0.png\n", "is not UTF-8"),
    "torn.jsonl": ('{"question": "a", "image": "0.png"}\n{"question": "b", "ima', "line 2: not JSON"),
    "list.jsonl": ('["a"]\n{"question": ["a"], "image": "0.png"}\n', "line 1: a list.*line 2: question is a list"),
    "deep.jsonl": ("[" * 100_000 + "\n", "line 1: not JSON"),
    "other.json": ('{"answers": []}', "holds no list of questions"),
    "entries.json": ('[{"question": "a", "image": "0.png"}, {"image": "0.png"}, 7]', "entry 2: no question; entry 3"),
    "torn.json": ('{"questions": [', "line 1: not JSON"),
    "q.xlsx": ("", "ends in '.xlsx'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_read_is_one_line_and_nothing_is_begun(name, tmp_path, capsys):
    text, why = BAD_FILES[name]
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    (tmp_path / "0.png").touch()
    assert main(["traces", "--input", str(tmp_path / name), "--out", str(tmp_path / "out"), "--tau", "0"]) == 2
    said = capsys.readouterr().err
    assert re.search(why, said) and said.count("\n") == 1 and not (tmp_path / "out").exists()


# --- requests that are refused ------------------------------------------------------------------------------------

REFUSED = {
    "no such file": (dict(input="none.csv"), "there is no file of questions 'none.csv'"),
    "no such folder": (dict(images="none"), "there is no folder of pictures 'none'"),
    "tool": (dict(tools="clever"), "did you mean 'clevr'"),
    "tool role": (dict(tools="segmnt=clevr"), "did you mean 'segment'"),
    "back end": (dict(tools="segment=sam"), "did you mean 'sam2'"),
    "weights": (dict(tools="segment=sam2:nbs"), "no mask-generation model at 'nbs'"),
    "program": (dict(tools="top_down=external:no_such_program {image} {out}"), "no program 'no_such_program'"),
    "generator": (dict(generator="opnai:m"), "did you mean 'openai'"),
    "generator without a name": (dict(generator="openai"), "wants openai:NAME"),
    "policy": (dict(generator="policy:eror=1"), "did you mean 'error'"),
    "local model": (dict(generator="local:nbs"), "nbs is not a checkpoint: it has no config.json"),
    "verifier": (dict(verifier="local"), "wants local:NAME"),
    "scripted": (dict(verifier="scripted", tau=5), "of these pictures nobody does"),
    "no verifier": (dict(tau=5), "tau is 5 and the verifier is 'none'"),
    "rubric": (dict(verifier="openai:m", base_url="http://localhost:1/v1", rubric="kind"), "rubric is 'kind'"),
    "tau": (dict(tau=11), "tau is 11"),
    "after": (dict(after="acept"), "did you mean 'accept'"),
    "budget": (dict(budget="cals=3"), "did you mean 'calls'"),
    "budget of nothing": (dict(budget="foo=1"), "budget has no 'foo' (allowed: calls, tokens, money)"),
    "money": (dict(budget="money=3"), "wants prices"),
    "prices": (dict(generator="openai:m", base_url="http://localhost:1/v1", prices="none.yaml"), "is not there"),
    "export": (dict(export="stf"), "did you mean 'sft'"),
    "limit": (dict(limit=0), "limit is 0"),
    "workers": (dict(workers=0), "workers is 0"),
    "address": (dict(generator="openai:m", base_url="localhost"), "wants http"),
    "key in the address": (dict(generator="openai:m", base_url=f"http://u:{KEY}@localhost/v1"), "OPENAI_API_KEY"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_request_is_one_line_and_nothing_is_begun(what, home, tmp_path, capsys):
    options, why = REFUSED[what]
    assert main(command(home, tmp_path / "out", **options)) == 2
    said = capsys.readouterr().err.splitlines()
    assert why in said[-1] and said[-1].startswith("spatial-nb: ") and KEY not in "".join(said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["/proc/xx", "/sys/x", "file", "file/below"])
def test_a_place_that_can_be_no_folder_is_refused(out, home, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    out = tmp_path / out  # an absolute one stays as it is
    assert main(command(home, out, limit=1)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"spatial-nb: --out is {str(out)!r}, wants a folder that can be written")
    assert said.count("\n") == 1 and (tmp_path / "file").read_text() == "kept"


def test_without_ratings_report_and_card_say_why_there_are_no_labels(home, tmp_path, capsys):
    assert main(command(home, tmp_path / "out", limit=2)) == 0
    said, card = capsys.readouterr().out, (tmp_path / "out/README.md").read_text()
    why = "No step was rated, so there are no labels: prm.parquet and preferences.parquet hold no rows."
    assert why in said and why in card
    assert not re.search("Labels are by|passed|threshold", card)
    assert read_table(tmp_path / "out/prm.parquet").num_rows == 0


def test_a_missing_key_is_said_before_the_first_question(home, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for parts in (dict(generator="openai:m"), dict(verifier="openai:m", tau=5)):
        assert main(command(home, tmp_path / "out", **parts)) == 2
        said = capsys.readouterr()
        assert said.err.startswith("spatial-nb: no OPENAI_API_KEY in the environment") and not said.out
        assert said.err.count("\n") == 1 and not (tmp_path / "out").exists()


# --- pictures -----------------------------------------------------------------------------------------------------


def test_pictures_that_are_missing_are_named_and_counted_and_made_when_they_are_there(home, tmp_path, capsys):
    rows = [{"image": f"{k}.png", "question": "How many things are there?"} for k in (0, 7, 1, 8)]
    path = write_rows(tmp_path / "q.csv", rows)
    for k in (0, 1):
        (tmp_path / f"{k}.png").write_bytes((home / f"{k}.png").read_bytes())
    (tmp_path / "8.png").write_bytes(b"\x89PNG\r\n\x1a\n")  # there, and no picture
    words = command(home, tmp_path / "out", input=path, images=tmp_path)
    assert main([*words, "--strict"]) == 2 and "1 of 4 pictures are missing, first 7.png" in capsys.readouterr().err
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "1 without a picture, left out: 7.png" in said and re.search(r"1  picture .*8\.png", said)
    table = counts(said)
    assert [table[k] for k in ("asked", "picture missing", "answered", "failed")] == [4, 1, 2, 1]
    for k in (7, 8):
        (tmp_path / f"{k}.png").write_bytes((home / "2.png").read_bytes())
    assert main([*words, "--retry"]) == 0
    table = counts(capsys.readouterr().out)
    assert [table[k] for k in ("asked", "picture missing", "answered")] == [4, 0, 4]
    for k in (0, 1, 7, 8):
        (tmp_path / f"{k}.png").unlink()
    assert main(words) == 2 and "4 of 4 pictures are missing" in capsys.readouterr().err


# --- killed, twice, full ------------------------------------------------------------------------------------------

# Forks, so that what takes long to import is imported once; each child is killed at the n-th write or step.
KILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
import torch
torch.set_num_threads(1)
from spatial_nb import detector, parsing, policy, reproduce, spatialtracegen as stg
detector.load_detector()
WORDS, LEFT = sys.argv[2:], [0]

def counts(real, torn=False):
    def call(*a, **how):
        LEFT[0] -= 1
        if LEFT[0] == 0:
            if torn:  # in the middle of a write
                line = stg.json.dumps(a[1]).encode()
                with open(a[0], "ab") as f:
                    f.write(line[: len(line) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **how)
    return call

os.replace = counts(os.replace)
stg.append_jsonl = counts(stg.append_jsonl, True)
policy.Policy.__call__ = counts(policy.Policy.__call__)

def run(left):
    pid = os.fork()
    if not pid:
        LEFT[0] = left
        code = reproduce.main(WORDS)
        print("left", LEFT[0])
        sys.stdout.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

print("codes", [run(int(sys.argv[1])) for _ in range(10)], run(10**6), flush=True)
"""


def test_killed_at_ten_moments_and_continued_it_makes_the_same_traces(home, whole, tmp_path):
    out = tmp_path / "killed"
    words = command(home, out, generator="policy:error=0.3", tool_cache=None)
    done = subprocess.run([sys.executable, "-c", KILLED, "9", *words], capture_output=True, text=True)
    assert f"codes {[-9] * 10} 0" in done.stdout, (done.stdout[-2000:], done.stderr[-2000:])
    assert (out / "traces.jsonl").read_bytes() == (whole / "traces.jsonl").read_bytes()
    for view in VIEWS:
        assert read_table(out / f"{view}.parquet").equals(read_table(whole / f"{view}.parquet"))
    assert {p.name for p in out.glob("pictures/[!.]*.png")} == {p.name for p in whole.glob("pictures/*.png")}
    assert read_traces(out) == read_traces(whole)


def test_a_run_with_many_workers_makes_the_same_traces(home, whole, tmp_path):
    assert main(command(home, tmp_path, generator="policy:error=0.3", workers=4)) == 0
    made = {t.id: t for t in read_traces(tmp_path)}
    assert [made[t.id] for t in read_traces(whole)] == read_traces(whole)


def test_other_settings_and_other_tools_want_another_folder(home, whole, capsys):
    same = dict(generator="policy:error=0.3")
    for other, why in ((dict(seed=1), "seed 0, wants 1"), (dict(generator="policy"), "with generator 'policy percep"),
                       (dict(tools="segment=clevr"), "with tools")):  # fmt: skip
        before = (whole / "run.json").read_bytes()
        assert main(command(home, whole, **same | other)) == 2
        assert why in capsys.readouterr().err and (whole / "run.json").read_bytes() == before


@pytest.mark.parametrize("writer", ["traces", "answers", "tools", "exports"])
def test_a_full_disk_ends_the_run_in_one_line_and_the_same_command_goes_on(
    writer, home, whole, tmp_path, capsys, monkeypatch, serve
):
    server, _ = serve(talks)
    options = dict(generator="policy:error=0.3")
    if writer == "answers":
        options = dict(generator="openai:m", base_url=server.url)
    module, name = {"traces": (stg, "append_jsonl"), "answers": (chat, "append_jsonl"), "tools": (tools, "_write"),
                    "exports": ("pyarrow.parquet", "write_table")}[writer]  # fmt: skip
    if isinstance(module, str):
        module = sys.modules[module]
    real, left = getattr(module, name), [1 if writer in ("tools", "exports") else 5]

    def full(*a, **how):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*a, **how)

    out, words = tmp_path / "out", command(home, tmp_path / "out", tool_cache=tmp_path / "seen", **options)
    with monkeypatch.context() as m:
        m.setattr(module, name, full)
        assert main(words) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"spatial-nb: no space is left on the disk of {out}")
    assert {t.end for t in read_traces(out)} <= {"answered"} if (out / "traces.jsonl").is_file() else True
    assert main(words) == 0
    if writer != "answers":
        assert read_traces(out) == read_traces(whole)
    else:
        assert len(server.seen) == len(read_jsonl(out / "answers.jsonl")) + 1  # the one that could not be written


# --- endpoints ----------------------------------------------------------------------------------------------------

RATED = {"necessity_analysis": "n", "correctness_analysis": "c", "rating": 7, "rating_justification": "j"}


def talks(asked):
    "What a language model says that looks once and then answers, and rates all steps alike."
    text = json.dumps(asked["messages"])
    if "Rate it:" in text:
        return body(json.dumps(RATED))
    if "Tool output:" in text:
        return body('{"reasoning": "I see.", "action": "final_answer", "text": "3"}')
    return body('{"reasoning": "I look.", "action": "tool_call", "tool_name": "segment"}')


def asking(home, server, out, *more, **options):
    told = dict(generator="openai:m", verifier="openai:m", base_url=server.url, tau=5, attempts=4, timeout=0.3, limit=5)
    return command(home, out, *more, **told | options)


def stories(out):
    "What was done, without what it cost."
    return [[(str(a.step), a.rating.rating, a.accepted) for a in t.attempts] for t in read_traces(out)]


@pytest.fixture
def quick(monkeypatch):
    "Retries without waiting."
    monkeypatch.setattr(chat.OpenAI, "_pause", lambda self, state: 0.01)


FAULTS = [
    error(429),
    error(500, f"who is {KEY}?"),
    "hang",
    "cut",
    b"<html>Bad gateway</html>",
    json.dumps({"choices": []}).encode(),
    body(None),
    body("no idea"),
    body('{"reasoning": "r", "action": "dance"}'),
]


def test_a_faulty_endpoint_loses_nothing(home, tmp_path, serve, quick, capsys):
    server, _ = serve(talks)
    assert main(asking(home, server, tmp_path / "well", timeout=5)) == 0
    turn = iter(range(10**6))
    faulty, _ = serve(lambda asked: talks(asked) if (k := next(turn)) % 2 else FAULTS[k // 2 % len(FAULTS)])
    assert main(asking(home, faulty, tmp_path / "ill")) == 0
    assert stories(tmp_path / "ill") == stories(tmp_path / "well") and len(stories(tmp_path / "ill")) == 5
    said = capsys.readouterr().out
    rows = read_jsonl(tmp_path / "ill/answers.jsonl")
    assert sum(r["attempts"] for r in rows) == len(faulty.seen) > len(server.seen) == 20
    spent = {
        m[1]: [int(n) for n in m[2].split()] for m in re.finditer(r"^(generate|verify) +((?:\d+ +){5})", said, re.M)
    }
    assert sum(row[1] for row in spent.values()) == len(faulty.seen)  # the second run's, which was said last
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert not kept and KEY not in said


def test_an_endpoint_that_never_answers_is_given_up_and_the_same_command_goes_on(home, tmp_path, serve, quick, capsys):
    silent, _ = serve("hang")
    begin = time.monotonic()
    words = dict(attempts=2, timeout=0.1, patience=3)
    assert main(asking(home, silent, tmp_path / "out", **words)) == 1
    assert time.monotonic() - begin < 30 and len(silent.seen) == 6
    said = capsys.readouterr().out
    table = counts(said)
    assert (table["failed"], table["not begun"]) == (2, 3) and "2  no step: m gave no answer in 2 attempt(s)" in said
    assert "Stopped early: no answer 3 times in a row, last: m gave no answer in 2" in said
    assert "goes on with the 3 that are left" in said and "With --retry it tries again" in said
    server, _ = serve(talks)
    assert main(asking(home, server, tmp_path / "out", "--retry", timeout=5)) == 0
    assert main(asking(home, server, tmp_path / "at-once", timeout=5)) == 0
    assert stories(tmp_path / "out") == stories(tmp_path / "at-once")


def test_an_answer_that_never_fits_is_bounded_and_counted(home, tmp_path, serve, capsys):
    server, _ = serve(body("I would rather talk about the weather."))
    assert main(asking(home, server, tmp_path / "out", again=1)) == 1
    table = counts(said := capsys.readouterr().out)
    assert (table["failed"], table["not begun"], table["answered"]) == (5, 0, 0) and len(server.seen) == 10
    assert "m gave no StepAnswer in 2 answers" in said and re.search(r"^generate +10 +10 +0 +5 +100 ", said, re.M)
    assert main(asking(home, server, tmp_path / "out", "--retry", again=1)) == 1
    assert len(server.seen) == 10  # what it said is known


def test_a_verifier_that_never_rates_lets_nothing_pass(home, tmp_path, serve, capsys):
    server, _ = serve(lambda asked: body("fine!") if "Rate it:" in json.dumps(asked) else talks(asked))
    assert main(asking(home, server, tmp_path / "out", again=0, alpha=2)) == 1
    table = counts(capsys.readouterr().out)
    assert (table["failed"], table["accepted"], table["not rated"]) == (5, 0, table["attempts"])


def test_what_is_dropped_is_counted_and_its_attempts_are_kept(home, tmp_path, serve, capsys):
    low = body(json.dumps(RATED | {"rating": 2, "critical_concerns": "It is of no use."}))
    server, _ = serve(lambda asked: low if "Rate it:" in json.dumps(asked) else talks(asked))
    how = dict(timeout=5, alpha=2, guard=0, after="drop", export="transitions,prm")
    assert main(asking(home, server, tmp_path / "out", **how)) == 0
    table, said = counts(capsys.readouterr().out), [m for m, _ in server.seen if "Rate it:" not in json.dumps(m)]
    assert (table["dropped"], table["answered"], table["attempts"], table["accepted"]) == (5, 0, 15, 0)
    assert "It is of no use." in json.dumps(said[1]["messages"][-1])
    assert main(asking(home, server, tmp_path / "paper", **how | dict(after="accept"))) == 0
    table = counts(capsys.readouterr().out)
    assert (table["answered"], table["accepted"], table["accepted below tau"]) == (5, 10, 10)
    assert not any(read_table(tmp_path / "paper/prm.parquet")["labels"].combine_chunks().flatten().to_pylist())


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_to_spend_is_no_crash_and_no_call(home, tmp_path, serve, capsys, workers):
    server, _ = serve(talks)
    assert main(asking(home, server, tmp_path / "out", budget="calls=0", workers=workers)) == 1
    said = capsys.readouterr().out
    assert counts(said)["not begun"] == 5 and "the budget of 0 calls is spent" in said and not server.seen
    assert main(asking(home, server, tmp_path / "out", workers=workers, timeout=5)) == 0 and len(server.seen) == 20


def test_an_interrupted_run_says_that_it_goes_on(home, tmp_path, serve, capsys, monkeypatch):
    server, _ = serve(talks)
    with monkeypatch.context() as m:
        real, left = stg.append_jsonl, [2]

        def stops(*a):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            real(*a)

        m.setattr(stg, "append_jsonl", stops)
        assert main(asking(home, server, tmp_path / "out", timeout=5)) == 130
    assert "the same command goes on" in capsys.readouterr().err and len(read_traces(tmp_path / "out")) == 2
    assert main(asking(home, server, tmp_path / "out", timeout=5)) == 0 and len(server.seen) == 20


def test_a_spent_budget_stops_and_the_same_command_goes_on_without_asking_twice(home, tmp_path, serve, capsys):
    server, _ = serve(talks)
    how = dict(timeout=5, prices="in=1000,out=2000")
    assert main(asking(home, server, tmp_path / "once", **how)) == 0
    once = len(server.seen)
    assert re.search(r"^generate +10 +10 +0 +0 +100 .* 0\.13 ", capsys.readouterr().out, re.M)  # 13 thousandths a call
    for left in (4, 2, 1, 0):
        code = main(asking(home, server, tmp_path / "out", budget="calls=6", **how))
        said = capsys.readouterr().out
        assert (code, counts(said)["not begun"]) == (int(left > 0), left)
        assert ("Stopped early: the budget of 6 calls is spent" in said) == (left > 0)
        assert (f"goes on with the {left} that are left" in said) == (left > 0)
    assert len(server.seen) == 2 * once and read_traces(tmp_path / "out") == read_traces(tmp_path / "once")
    assert main(asking(home, server, tmp_path / "poor", budget="money=0.05", **how)) == 1
    assert len(server.seen) == 2 * once + 4 and "the budget of 0.05 money is spent" in capsys.readouterr().out


def test_two_runs_in_one_folder_the_second_says_so(home, tmp_path, serve, capsys):
    server, _ = serve(lambda asked: time.sleep(0.3) or talks(asked))
    words = asking(home, server, tmp_path / "out", timeout=20, limit=2)
    code = "import sys; from spatial_nb.reproduce import main; sys.exit(main(sys.argv[1:]))"
    first = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    try:
        while not server.seen and first.poll() is None:
            time.sleep(0.05)
        assert main(words) == 1
        assert f"{tmp_path / 'out'} is being run by process {first.pid}" in capsys.readouterr().err
        assert "2 questions" in first.communicate(timeout=60)[0] and first.returncode == 0
    finally:
        first.kill()
    assert len(server.seen) == 8 and len(read_traces(tmp_path / "out")) == 2


def test_rubric_and_sight_of_tools_reach_the_verifier(home, tmp_path, serve):
    server, _ = serve(talks)
    assert (
        main(asking(home, server, tmp_path / "out", "--verifier-sees-tools", rubric="generous", limit=1, timeout=5))
        == 0
    )
    rated = [m for m, _ in server.seen if "Rate it:" in json.dumps(m)]
    assert "Be kind" in rated[1]["messages"][0]["content"] and "Tool output:" in json.dumps(rated[1])
    assert "generous sees tools" in read_json(tmp_path / "out/run.json")["verifier"]


# --- real models --------------------------------------------------------------------------------------------------


def test_a_served_model_that_cannot_do_it_is_counted_and_asked_nothing_twice(home, tmp_path, served, quick, capsys):
    where = served.ask_with().base_url
    how = dict(
        generator="openai:tiny-vlm", base_url=where, max_tokens=24, limit=4, temperature=1.0, again=1, attempts=2
    )
    log, before = tmp_path / "out/answers.jsonl", len(served.requests())
    assert main(command(home, tmp_path / "out", workers=2, **how)) == 1
    table, rows = counts(said := capsys.readouterr().out), read_jsonl(log)
    assert table["asked"] == table["failed"] == 4 and table["not begun"] == 0 and "Failed, and why:" in said
    assert sum(r["attempts"] for r in rows) == len(served.requests()) - before and len({r["text"] for r in rows}) > 1
    assert main(command(home, tmp_path / "out", workers=2, **how)) == 1 and read_jsonl(log) == rows
    assert counts(capsys.readouterr().out) == table
    assert main(command(home, tmp_path / "out", "--retry", workers=2, **how)) == 1
    silent = {r["key"] for r in rows if r["text"] is None}  # an empty answer is none
    assert {r["key"] for r in read_jsonl(log)[len(rows) :]} == silent and counts(capsys.readouterr().out) == table


def test_a_server_that_is_killed_and_started_again_costs_no_question(home, tmp_path, served, quick, capsys):
    where = served.ask_with().base_url
    how = dict(
        generator="openai:tiny-vlm", base_url=where, max_tokens=24, limit=4, temperature=1.0, again=1, attempts=2
    )
    assert main(command(home, tmp_path / "well", **how)) == 1
    served.kill()
    capsys.readouterr()
    assert main(command(home, tmp_path / "ill", patience=2, **how)) == 1
    said = capsys.readouterr().out
    assert counts(said)["not begun"] == 3 and "Stopped early: no answer 2 times in a row" in said
    served.start()
    assert main(command(home, tmp_path / "ill", "--retry", **how)) == 1
    assert {t.id: t for t in read_traces(tmp_path / "ill")} == {t.id: t for t in read_traces(tmp_path / "well")}


def test_a_model_of_this_process_is_asked_the_same_way(home, tmp_path, capsys):
    how = dict(generator="local:tiny-vlm", max_tokens=8, again=0, limit=2)
    assert main(command(home, tmp_path, **how)) == 1
    assert counts(capsys.readouterr().out)["failed"] == 2 and len(read_jsonl(tmp_path / "answers.jsonl")) == 2


def test_prices_and_tools_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("gpt-4o: {in: 2.5, out: 10}\n")
    assert prices_from(str(path), {"gpt-4o": "gpt-4o"}) == {"gpt-4o": (2.5, 10.0)}
    shown = tools_from("segment=clevr,top_down=external:sh -c 'cp {image} {out}, x=1'".replace(", x=1", ""))
    assert list(shown) == ["segment", "top_down"]
