"Asking a real OpenAI-compatible server: `transformers serve` with the shipped model, beside the same weights in here."

import re

import pytest
from PIL import Image

from spatial_nb import chat, clevr, items
from spatial_nb.chat import Budget, ChatError, Log, OpenAI, ask, ask_all

HOW = dict(max_tokens=16, temperature=0.0, whole=False)  # without a limit the server allows 1,024 tokens


@pytest.fixture(scope="module")
def local():
    from spatial_nb import models

    return chat.Local(models.load("tiny-vlm"), max_tokens=HOW["max_tokens"])


def fit_to_compare(text: str) -> bool:
    "Not what the two are known to differ in: the server takes thoughts out, and nothing is no answer of an endpoint."
    return bool(text.strip()) and "<think>" not in text


@pytest.fixture(scope="module")
def texts(local) -> dict:
    "Questions without a picture, and what the model here makes of them; it was taught nothing of the kind."
    asked = [f"{a} {b} is the {c}?" for c in ("cube", "ball", "red thing") for b in ("color", "size", "shape", "side")
             for a in ("Which", "What", "So what")]  # fmt: skip
    said = {q: ask(q, local, **HOW) for q in asked}
    kept = {q: text.strip() for q, text in said.items() if fit_to_compare(text)}
    assert len(kept) >= 24 and len(set(kept.values())) >= 4
    return kept


RED = Image.new("RGB", (64, 48), "red")
PICTURES = {
    "one": [RED],
    "two of two sizes": [RED, Image.linear_gradient("L").resize((150, 90))],
    "gray, sides that no patch divides": [Image.radial_gradient("L").crop((40, 60, 171, 133))],
    "transparent": [Image.merge("RGBA", [*RED.split(), Image.linear_gradient("L").resize(RED.size)])],
}


def test_a_question_about_a_rendered_picture_is_answered_as_in_this_process(served, local):
    some = [items.messages(i) for i in clevr.dataset("test", 0, 3, ("query_color", "query_shape"))]
    here = [ask(m, local, **HOW) for m in some]
    assert [ask(m, served.ask_with(), **HOW) for m in some] == here and all(map(fit_to_compare, here))


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_any_kind_arrive_as_they_are(served, local, kind):
    parts = [{"type": "image", "image": p} for p in PICTURES[kind]]
    asked = chat.normal([{"role": "user", "content": [*parts, "What color is the cube?"]}])
    how = dict(max_tokens=16, temperature=0.0)
    here, there = local(asked, **how), served.ask_with(attempts=1)(asked, **how)
    assert (there.text, there.tokens_in, there.tokens_out) == (here.text.strip(), here.tokens_in, here.tokens_out)


def test_all_turns_of_a_conversation_are_heard(served, local):
    turns = [
        ("system", "You see cubes."),
        ("user", "What color is the cube?"),
        ("assistant", "red"),
        ("user", "And size?"),
    ]
    for n in (2, 4):
        asked = chat.normal([dict(role=r, content=c) for r, c in turns[:n]])
        here, there = (m(asked, max_tokens=16, temperature=0.0) for m in (local, served.ask_with(attempts=1)))
        assert (there.text, there.tokens_in) == (here.text.strip(), here.tokens_in)


def test_many_in_flight_are_each_answered_once_and_counted(served, local, texts, tmp_path):
    log, budget, before = Log(tmp_path / "log.jsonl"), Budget(), len(served.requests())
    assert ask_all(list(texts), served.ask_with(at_once=6), at_once=6, log=log, budget=budget, **HOW) == [
        *texts.values()
    ]
    connections = served.requests()[before:]
    assert len(connections) == len(texts) == budget.spent["calls"] and len(set(connections)) > 1
    here = [local(chat.normal(q), max_tokens=16) for q in texts]
    used = sum(r.tokens_in + r.tokens_out for r in here)
    assert used == budget.spent["tokens"] == chat.ledger(log.rows).tokens.item()
    assert {(r["model"], r["attempts"], *r["problems"]) for r in log.rows} == {("tiny-vlm", 1)}


def test_an_answer_that_is_longer_than_allowed_is_cut_off_and_says_so(served, texts):
    question = max(texts, key=lambda q: len(texts[q]))
    with pytest.raises(ChatError, match="tiny-vlm was cut off after"):
        ask(question, served.ask_with(), max_tokens=2, temperature=0.0)
    start = ask(question, served.ask_with(), max_tokens=2, temperature=0.0, whole=False)
    assert texts[question].startswith(start) and start != texts[question]


def test_a_seed_gives_the_sample_that_it_gives_here(served, local, texts):
    question, how = next(iter(texts)), dict(max_tokens=16, temperature=1.5, whole=False)
    here = {s: ask(question, local, seed=s, **how) for s in range(8)}
    here = {s: text.strip() for s, text in here.items() if fit_to_compare(text)}
    assert {s: ask(question, served.ask_with(), seed=s, **how) for s in here} == here
    assert len(set(here.values())) > 1


def test_a_model_that_is_not_served_is_refused_in_one_line(served):
    before, other = len(served.requests()), OpenAI("other-vlm", served.ask_with().base_url, wait=0.05)
    with pytest.raises(ChatError, match="other-vlm gave no answer in 1 attempt.* pinned to 'tiny-vlm'") as e:
        ask("Where?", other, **HOW)
    assert "\n" not in str(e.value) and len(served.requests()) == before + 1


def test_a_server_that_is_killed_and_started_again_is_asked_for_the_rest_alone(served, texts, tmp_path):
    class Killing(Log):
        def add(self, row):
            super().add(row)
            if len(self.answers) >= 7:
                served.kill()

    path = tmp_path / "log.jsonl"
    first = ask_all(list(texts), served.ask_with(attempts=2), at_once=3, log=Killing(path), **HOW)
    got = [text for text in first if text]
    assert 7 <= len(got) < len(texts)
    assert all(re.fullmatch(r"tiny-vlm gave no answer in 2 attempt\(s\), last: .+", x.why) for x in first if not x)
    served.start()
    assert ask_all(list(texts), served.ask_with(), at_once=3, log=Log(path), **HOW) == [*texts.values()]
    assert len(served.requests()) == len(texts) - len(got)
    keys = [row["key"] for row in Log(path).rows if row["text"] is not None]
    assert len(keys) == len(set(keys)) == len(texts)


def test_no_server_outlives_the_tests(served):
    served.process.stdin.close()  # as the system does when this process is killed
    assert served.process.wait(timeout=20) == 0
