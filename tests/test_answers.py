"""What the notebook of `answers` cannot hold: agreement over the corpus, speed on degenerate texts, no hidden state."""

import gzip
import json
import os
import time

import pytest

from spatial_nb import answers
from spatial_nb.core import data_root

PARSERS = [answers.choice, answers.number, answers.yes_no, answers.boxes, answers.actions]


def named(text):
    return answers.named(text, ["red", "blue"])


def choice_of_numbers(text):
    return answers.choice(text, ["1", "2", "3"])


@pytest.fixture(scope="module")
def blink():
    folder = data_root() / "blink_completions"
    if not (folder / "options.json").is_file():
        pytest.skip(f"{folder.name}/options.json not found under SPATIAL_NB_DATA")
    texts = {k.replace(" ", "_"): v for k, v in json.loads((folder / "options.json").read_text()).items()}
    out = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        rows = [json.loads(line) for line in gzip.open(path, "rt")]
        out[path.name] = [
            (r["prediction"][1:2], answers.choice(r["full_prediction"], texts.get(r["task"].replace(" ", "_")) or 4))
            for r in rows
        ]
    return out


def test_choice_agrees_with_official_letters_of_every_model(blink):
    every = []
    for model, pairs in blink.items():
        read = [(official, ours) for official, ours in pairs if official in set("ABCDE")]
        agree = sum(a == b for a, b in read) / len(read)
        assert agree >= 0.97, f"{model}: {agree:.3f}"
        every += read
    assert sum(a == b for a, b in every) / len(every) >= 0.99
    assert sum(b is not None and a != b for a, b in every) / len(every) <= 0.005


def test_refusals_are_mostly_none(blink):
    refused = [ours for model in blink for official, ours in blink[model] if official == "Z"]
    assert sum(o is None for o in refused) / len(refused) >= 0.9


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize(
    "template",
    [
        "{0}",
        "({0})",
        "[{0}]",
        "{0}.",
        "{0})",
        "**{0}**",
        "Answer: {0}",
        "Answer: {0}.",
        "answer is {0}",
        "Option {0}",
        "The correct answer is option {0}.",
        "I would choose ({0}).",
        "My final answer: **{0}**",
        "<answer>{0}</answer>",
        "<answer>\n({0})\n</answer>",
        "<think>A B C D</think>{0}",
        "ASSISTANT: {0}</s>",
        '{{"answer": "{0}"}}',
        "After looking at it, ({0})",
        "{0} because the others are hidden",
        "The point is labeled '{0}'.",
        "So the corresponding point is Point {0}.",
        "\\boxed{{{0}}}",
        "the answer is ({0}), not (E)",
        "{0}\n\nExplanation: none",
    ],
)
def test_choice_reads_every_letter_in_every_form(template, letter):
    assert answers.choice(template.format(letter), 5) == letter


@pytest.mark.parametrize("parse", [*PARSERS, named, choice_of_numbers], ids=lambda p: p.__name__)
@pytest.mark.parametrize(
    "piece",
    [
        "A, ",
        "1,",
        "9",
        "-",
        "[",
        "(",
        "{",
        "\n",
        "<think>",
        "```",
        "point A is ",
        "not red ",
        "answer is ",
        "[1,2,3,4] ",
        "up, ",
    ],
)
def test_degenerate_generations_are_read_in_linear_time(parse, piece):
    start = time.perf_counter()
    parse((piece * 20_000)[:20_000])
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize("parse", [*PARSERS, named], ids=lambda p: p.__name__)
@pytest.mark.parametrize(
    "text", ["9" * 5000, "1/" + "9" * 5000, "9" * 400 + " 1/2", "\ud800", f"[1,2,3,{'9' * 400}]", "1/0"]
)
def test_numbers_that_are_none_are_no_answer_and_no_error(parse, text):
    assert parse(text) is None


def test_half_a_character_is_read_over():
    assert answers.number("\ud800 3") == 3


def test_environment_changes_no_answer(monkeypatch):
    before = [[p(t) for p in PARSERS] for t in ("The answer is A", "3", "yes", "[1, 2, 3, 4]", "up, left")]
    for name in ("VERBOSE", "DEBUG", "OPENAI_API_KEY"):
        monkeypatch.setitem(os.environ, name, "1")
    assert [[p(t) for p in PARSERS] for t in ("The answer is A", "3", "yes", "[1, 2, 3, 4]", "up, left")] == before


@pytest.mark.parametrize("n", [0, 21, 30, 45, 99, 100, 101, 123, 219, 999, 1000, 1234])
@pytest.mark.parametrize("form", ["{w}", "There are {w} chairs.", "minus {w}", "The answer is {w}."])
def test_number_words_round_trip(n, form):
    ones = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
    )
    ones += ["seventeen", "eighteen", "nineteen"]
    tens = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()

    def say(k):
        if k < 20:
            return ones[k]
        if k < 100:
            return tens[k // 10] + (f"-{ones[k % 10]}" if k % 10 else "")
        if k < 1000:
            return f"{ones[k // 100]} hundred" + (f" and {say(k % 100)}" if k % 100 else "")
        return f"{say(k // 1000)} thousand" + (f" {say(k % 1000)}" if k % 1000 else "")

    sign = -1 if form.startswith("minus") else 1
    assert answers.number(form.format(w=say(n))) == sign * n
    assert answers.number(form.format(w=say(n).capitalize())) == sign * n
