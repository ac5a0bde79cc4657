"Asking models: what a server that misbehaves does to an answer, and where a key does not go."

import json
import logging
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import KEY, body, error
from PIL import Image
from pydantic import BaseModel

from spatial_nb import chat
from spatial_nb.chat import Budget, ChatError, Failed, Log, OpenAI, Replay, Scripted, ask, ask_all

PASSING = {
    "429": error(429),
    "500": error(500),
    "503": error(503),
    "hang": "hang",
    "cut connection": "cut",
    "not JSON": b"<html>Bad gateway</html>",
    "JSON of another kind": b"[1, 2]",
    "no choice": json.dumps(dict(choices=[])).encode(),
    "no text": body(None),
    "blank": body(" \n"),
    "refusal": body(None, refusal="I would rather not"),
    "huge": b" " * 300_000 + body(),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(serve, fault, tmp_path):
    server, model = serve(PASSING[fault], PASSING[fault], body("left"), most=100_000)
    log = Log(tmp_path / "log.jsonl")
    assert ask("Where?", model, log=log) == "left"
    (row,) = log.rows
    assert len(server.seen) == row["attempts"] == 3 and len(row["problems"]) == 2
    paid = 3 if fault in ("no text", "blank", "refusal") else 1  # a body without an answer costs its tokens too
    assert (row["tokens_in"], row["tokens_out"]) == (7 * paid, 3 * paid)


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_in_so_many_attempts_is_an_error_and_no_answer(serve, fault, tmp_path):
    server, model = serve(PASSING[fault], attempts=2, most=100_000)
    log, budget = Log(tmp_path / "log.jsonl"), Budget(calls=9)
    with pytest.raises(ChatError, match=r"^m gave no answer in 2 attempt\(s\), last: .+$"):
        ask("Where?", model, log=log, budget=budget, stage="s")
    assert len(server.seen) == 2 == budget.spent["calls"] and log.answers == {}
    assert chat.ledger(log.rows).loc["s", ["attempts", "failed"]].tolist() == [2, 1]
    with pytest.raises(ChatError):  # a failed call is not an answer: it is asked again
        ask("Where?", model, log=Log(log.path))
    assert len(server.seen) == 4


def test_six_attempts_are_the_default(serve):
    server, model = serve(error(500))
    with pytest.raises(ChatError, match="6 attempt"):
        ask("Where?", model)
    assert len(server.seen) == 6


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_never_pass_is_said_at_once(serve, status):
    server, model = serve(error(status, "wrong"))
    with pytest.raises(ChatError, match=f"1 attempt.*{status}"):
        ask("Where?", model)
    assert len(server.seen) == 1


def test_the_wait_that_a_server_asks_for_is_kept(serve):
    server, model = serve(error(429, **{"retry-after": "0.7"}), body("left"))
    begin = time.perf_counter()
    assert ask("Where?", model) == "left" and time.perf_counter() - begin >= 0.7


def test_a_server_that_is_not_there_is_an_error_that_names_the_model():
    with pytest.raises(ChatError, match="m gave no answer in 2 attempt"):
        ask("Where?", OpenAI("m", "http://127.0.0.1:9/v1", attempts=2, wait=0.01))


def test_pictures_go_as_data_urls(serve):
    server, model = serve(body("red"))
    picture = {"type": "image", "image": Image.new("RGB", (3, 2), "red")}
    assert ask([{"role": "user", "content": [picture, "Which color?"]}], model, temperature=0.5, max_tokens=4) == "red"
    (asked, key), *_ = server.seen
    shown, words = asked["messages"][0]["content"]  # words alone are a string, see below
    assert shown["image_url"]["url"].startswith("data:image/png;base64,") and words["text"] == "Which color?"
    assert (asked["model"], asked["temperature"], asked["max_tokens"], key) == ("m", 0.5, 4, f"Bearer {KEY}")


def test_the_key_is_read_at_each_call(serve, monkeypatch):
    server, model = serve(body())
    for key in ("first-key-of-all", "second-key-of-all"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        ask("Where?", model)
    assert [key for _, key in server.seen] == ["Bearer first-key-of-all", "Bearer second-key-of-all"]
    assert not [v for v in vars(model).values() if "key-of-all" in repr(v)]


def test_without_a_key_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ChatError, match="no OPENAI_API_KEY in the environment"):
        ask_all(["a", "b"], OpenAI("m"))


def test_no_key_in_a_log_or_an_error_or_a_traceback(serve, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    echo = error(401, f"Incorrect API key provided: {KEY}")
    part = error(401, "Incorrect API key provided: sk-proj-********6789")
    log = Log(tmp_path / "log.jsonl")
    for plan in ((echo,), (part,), (error(500, f"who is {KEY}?"), body("left"))):
        _, model = serve(*plan)
        try:
            ask("Where?", model, log=log)
        except ChatError as e:
            said = str(e) + "".join(traceback.format_exception(e))
            assert KEY not in said and "6789" not in str(e) and "\n" not in str(e)
    assert KEY not in log.path.read_text() and "who is <" in log.path.read_text()
    assert KEY not in caplog.text


class Sides(BaseModel):
    side: str


def test_an_answer_that_does_not_fit_is_asked_for_again_with_what_is_wrong(serve):
    server, model = serve(body("left"), body('{"sides": "left"}'), body('Here: {"side": "left"}'))
    assert ask("Where?", model, Sides).side == "left"
    last = server.seen[-1][0]["messages"]
    assert [m["role"] for m in last] == ["user", "assistant", "user", "assistant", "user"]
    assert "side: Field required" in last[-1]["content"]


def test_an_answer_that_was_cut_off_is_none_unless_that_is_said(serve, tmp_path):
    server, model = serve(body("left of", finish="length"))
    log = Log(tmp_path / "log.jsonl")
    for _ in range(2):
        with pytest.raises(ChatError, match="cut off after 'left of'"):
            ask("Where?", model, log=Log(log.path))
    assert ask("Where?", model, log=Log(log.path), whole=False) == "left of" and len(server.seen) == 1


def test_the_same_question_at_the_same_time_is_asked_once(serve, tmp_path):
    server, model = serve("hang", body("b"), timeout=5)
    log = Log(tmp_path / "log.jsonl")
    assert ask_all(["a", "b", *"aaa"], model, at_once=5, log=log) in (
        ["fine", "b", *["fine"] * 3],
        ["b", "fine", *"bbb"],
    )
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "fault", [error(401, "no"), (429, {}, b'{"error": {"message": "pay", "code": "insufficient_quota"}}')]
)
def test_where_no_question_has_hope_no_other_is_sent(serve, fault):
    server, model = serve(fault)
    first, *rest = ask_all(list("abcd"), model, at_once=1)
    assert len(server.seen) == 1 and "1 attempt" in first.why
    assert all(x.why.startswith("not asked: m gave no answer") for x in rest)


@pytest.mark.parametrize("key", ["sk-abcdefgh\u201d", "sk-abc defghij", "sk-abcdefgh\u00a0"])
def test_a_key_that_no_header_can_hold_is_named_and_not_said(serve, monkeypatch, key):
    server, model = serve(body())
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ChatError, match="OPENAI_API_KEY has a space") as e:
        ask("Where?", model)
    assert key not in "".join(traceback.format_exception(e.value)) and not server.seen


@pytest.mark.parametrize("usage", [[], "many", {"prompt_tokens": "7"}, {"completion_tokens": -1}])
def test_a_server_that_counts_wrongly_still_answers(serve, usage):
    said = json.loads(body("left")) | {"usage": usage}
    _, model = serve(json.dumps(said).encode())
    assert ask("Where?", model) == "left"


def test_half_a_character_is_no_crash(serve, tmp_path):
    _, model = serve(body("left \ud83d"))
    assert ask("Where?", model, log=Log(tmp_path / "log.jsonl")) == "left ?"


def test_what_is_no_setting_of_a_question_is_refused(serve):
    _, model = serve(body())
    with pytest.raises(ValueError, match="'extra_headers' is no setting"):
        ask("Where?", model, extra_headers={"Authorization": "Bearer x"})


def test_never_more_in_flight_than_allowed(serve):
    server, model = serve(*[body()] * 3, "hang", body(), at_once=3, timeout=5)
    assert ask_all([str(i) for i in range(24)], model, at_once=12) == ["fine"] * 24
    assert 1 < server.most <= 3


def test_one_question_without_an_answer_costs_one_answer(serve):
    _, model = serve(error(400, "too long"), body("b"), body("c"))
    first, *rest = ask_all(["a", "b", "c"], model, at_once=1)
    assert isinstance(first, Failed) and not first and "too long" in first.why
    assert rest == ["b", "c"]


def test_a_budget_of_calls_is_never_exceeded(serve):
    server, model = serve(body())
    said = ask_all([str(i) for i in range(40)], model, at_once=8, budget=Budget(calls=11))
    assert len(server.seen) == 11 == sum(map(bool, said))
    assert {x.why for x in said if not x} == {"the budget of 11 calls is spent"}


def test_a_budget_of_money_ends_the_run(serve):
    server, model = serve(body())
    budget = Budget(money=0.00005, prices={"m": (1.0, 2.0)})  # 13 millionths a call
    said = ask_all([str(i) for i in range(9)], model, at_once=1, budget=budget)
    assert len(server.seen) == 4 == sum(map(bool, said)) and round(budget.spent["money"], 8) == 0.000052


KILLED = """
import os, sys
from spatial_nb import chat
log = chat.Log(sys.argv[1])
def answer(messages):
    print(messages[-1]["content"][0]["text"], flush=True)
    if len(log.rows) == int(sys.argv[2]):
        os._exit(9)
    return "y"
print(chat.ask_all([str(i) for i in range(6)], chat.Scripted(answer), at_once=1, log=log))
"""


def test_a_killed_run_goes_on_without_asking_again(tmp_path):
    asked = []
    for after in (1, 4, 99):
        run = [sys.executable, "-c", KILLED, tmp_path / "log.jsonl", str(after)]
        done = subprocess.run(run, capture_output=True, text=True)
        asked.append([line for line in done.stdout.split() if line.isdigit()])
    assert asked == [["0", "1"], ["1", "2", "3", "4"], ["4", "5"]]
    replayed = Replay(tmp_path / "log.jsonl", "scripted")
    assert ask_all([str(i) for i in range(6)], replayed) == ["y"] * 6


def test_two_runs_at_once_may_write_one_log(tmp_path):
    logs = [Log(tmp_path / "log.jsonl") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda log: ask_all([f"{id(log)} {i}" for i in range(50)], Scripted(str), log=log), logs))
    assert len(Log(tmp_path / "log.jsonl").rows) == 100


def test_no_torch_before_a_local_model_is_asked():
    code = (
        "import sys, spatial_nb.chat; print(sorted({'torch', 'transformers', 'openai', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_local_model_says_what_it_says_elsewhere():
    from spatial_nb import clevr, items, models

    vlm = models.load("tiny-vlm")
    some = list(clevr.dataset("test", 0, 3, ("query_color",), size=None))
    here = [ask(items.messages(i), chat.Local(vlm, max_tokens=8), whole=False) for i in some]
    assert here == models.generate(vlm, some, max_new_tokens=8)


@pytest.mark.parametrize("model", ["gpt-4o", None, 7, OpenAI, lambda messages: "yes", ["gpt-4o"]])
def test_what_is_no_model_is_said_in_one_line(model):
    for call in (lambda: ask("Where?", model), lambda: ask_all(["Where?"], model)):
        with pytest.raises(TypeError, match=r"^model is .* \(a \w+\), wants chat\.OpenAI, Local, Scripted, Rep") as e:
            call()
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "url", ["nonsense", "", "localhost:8000", "http://", "ftp://h/v1", "http://[", "http://h:x", 7]
)
def test_an_address_without_a_server_is_refused(url):
    with pytest.raises(ValueError, match="^the base URL is .*, wants http://"):
        OpenAI("m", base_url=url)
    with pytest.raises(ValueError, match="the model is"):
        OpenAI("")
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as e:
        OpenAI("m", f"http://u:{KEY}@localhost/v1")
    assert KEY not in str(e.value)
    assert OpenAI("m", "https://host:8000/v1").base_url == "https://host:8000/v1"


@pytest.mark.parametrize("vlm", [None, "tiny-vlm", object()])
def test_what_is_no_local_model_is_refused(vlm):
    with pytest.raises(TypeError, match=r"^vlm is .* without model, wants what models\.load gives"):
        chat.Local(vlm)
