"""The committed records: every metric that comes from completions is computed again from the committed completions."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import cells

from spatial_nb import clevr, spatialite
from spatial_nb.core import data_root, read_jsonl, root
from spatial_nb.questions import SEE
from spatial_nb.scores import best_constant, chance, paired, score, summarize

PLACES = """relate relate_query relate_count extreme nearest between distance size_metric distance_compare
direction""".split()
RECORDS = sorted((root() / "data" / "records").glob("*/*.json"))


def read(stage):
    "The record of `stage` in the profile `small`, and the rows of its completions by name."
    place = root() / "data" / "records" / "small"
    file = place / f"{stage}.json"
    if not file.is_file():
        pytest.skip(f"no committed record of {stage}")
    record = json.loads(file.read_text())
    return record, {name: read_jsonl(place / about["path"]) for name, about in record["completions"].items()}


def same(metric, values, interval=None):
    "Whether `metric` of a record has these values, to the digits that it keeps."
    np.testing.assert_allclose(metric["values"], values, atol=1e-9)
    np.testing.assert_allclose(metric["mean"], np.mean(values), atol=1e-9)
    if interval:
        np.testing.assert_allclose(metric["interval"], interval, atol=1e-9)


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_record_says_where_it_comes_from(path):
    record = json.loads(path.read_text())
    assert record["verdict"] and record["parameters"]["profile"] == path.parent.name
    assert record["machine"]["seconds"] > 0
    for name, m in record["metrics"].items():
        together = m.get("unit") == "p" and len(m["values"]) == 1  # a test over all seeds
        assert together or len(m["values"]) == len(m["seeds"]), name
        if m["interval"]:
            assert m["interval"][0] <= m["mean"] <= m["interval"][1], name


def labelled(reader, **how):
    folder = data_root() / "clevr_humans"
    wanted = {clevr.read_labelled: "objects.jsonl", clevr.read_questions: "questions.csv"}[reader]
    return reader(folder, **how) if (folder / wanted).is_file() else []


def test_what_the_tiny_model_sees_is_in_its_completions():
    record, said = read("05_tiny_vlm")
    p = record["parameters"]
    sets = {"rendered": list(clevr.dataset("test", p["seed"] + 200, 14 * p["test_pictures"], per_scene=14, size=None))}
    sets["real"] = labelled(clevr.read_labelled, per_picture=14)[: 14 * p["real_pictures"] or None]
    checked = 0
    for name, items in sets.items():
        for variant, label in (("full", "sees"), ("blank", "gray")):
            texts = {r["id"]: r["text"] for r in said.get(f"{name}-{variant}", ())}
            for kind in SEE:
                those = [i for i in items if i.metadata["question_type"] == kind]
                if not those:
                    continue
                s = summarize([score(i, texts[i.id]) for i in those], cluster=[i.metadata["scene"] for i in those])
                same(record["metrics"][f"{label}/{name}/{kind}"], [s.mean], s.interval)
                checked += 1
    assert checked >= 2 * len(SEE)


def pooled_share(items, said, names, cluster):
    "Mean of each run, and the interval of all of them, clustered."
    texts = [{r["id"]: r["text"] for r in said[name]} for name in names]
    scores = [[score(i, of[i.id], match="iou") for i in items] for of in texts]
    flat = [x for run in scores for x in run]
    s = summarize(flat, cluster=[cluster(i) for i in items] * len(names))
    return [np.mean([x.value for x in run]) for run in scores], s.interval


def test_what_each_rung_of_the_ladder_answers_is_in_its_completions():
    record, said = read("30_ladder_training")
    p = record["parameters"]
    kinds = {"see": list(SEE), "boxes": ["boxes"], "spatial": list(PLACES)}
    sets = {
        name: list(clevr.dataset("test", 200 + k, n, some, per_scene=max(4, len(some)), size=None))
        for k, (name, some) in enumerate(kinds.items())
        for n in [p["held_out"] * max(4, len(some))]
    }
    sets["people"] = labelled(clevr.read_questions, n=p["real"] or None)
    sets["see, real"] = labelled(clevr.read_labelled, per_picture=7)[: 7 * p["real"] or None]
    checked, means = 0, {}
    for rung in ("parent", "1 boxes", "2 spatial", "cold start", "3 reinforced"):
        seeds = [0] if rung == "parent" else p["seeds"]
        for name, items in sets.items():
            for variant, label in (("full", "score"), ("blank", "gray")):
                if not items:
                    continue
                rows = {
                    s: [r for r in said[f"{rung.replace(' ', '-')}-seed{s}"] if r["variant"] == variant] for s in seeds
                }
                found = pooled_share(items, rows, seeds, scene_of)
                same(record["metrics"][f"{label}/{rung}/{name}"], *found)
                if variant == "full":
                    means[rung, name] = found[0]
                checked += 1
        if rung in ("1 boxes", "2 spatial", "3 reinforced"):
            for kind in PLACES:
                items = [i for i in sets["spatial"] if i.metadata["question_type"] == kind]
                rows = {
                    s: [r for r in said[f"{rung.replace(' ', '-')}-seed{s}"] if r["variant"] == "full"] for s in seeds
                }
                same(record["metrics"][f"kind/{rung}/{kind}"], pooled_share(items, rows, seeds, scene_of)[0])
    for what in (m.removeprefix("gain/") for m in record["metrics"] if m.startswith("gain/")):
        pair, name = what.rsplit(", ", 1)
        a, b = pair.split(" over ")
        other = float(best_constant(sets[name], match="iou")) if b == "best constant" else means[b, name]
        same(record["metrics"][f"gain/{what}"], np.subtract(means[a, name], other))
    assert checked >= 30


def test_the_text_of_the_ladder_says_what_its_record_shows():
    record, said = read("30_ladder_training")
    p, mean = record["parameters"], {k: m["mean"] for k, m in record["metrics"].items()}
    text = " ".join(c["source"] for c in cells(root() / "nbs/stages/30_ladder_training.ipynb", "markdown"))
    shown = [mean[f"score/2 spatial/{name}"] for name in ("spatial", "boxes")]
    shown += [mean["gray/2 spatial/spatial"], mean["score/1 boxes/boxes"]]
    items = list(clevr.dataset("test", 202, p["held_out"] * len(PLACES), PLACES, per_scene=len(PLACES), size=None))
    of_kind = [[i for i in items if i.metadata["question_type"] == kind] for kind in PLACES]
    shown.append(np.mean([max(float(chance(some)), float(best_constant(some))) for some in of_kind]))
    assert [x for x in shown if f"{x:.3f}" not in text] == []

    def scored(rung, variant):
        runs = [{r["id"]: r["text"] for r in said[f"{rung}-seed{s}"] if r["variant"] == variant} for s in p["seeds"]]
        return [score(i, of[i.id]) for of in runs for i in items]

    ours, scenes = scored("2-spatial", "full"), [scene_of(i) for i in items] * len(p["seeds"])
    pairs = (ours, scored("2-spatial", "blank")), (scored("cold-start", "full"), ours)
    for found in (paired(a, b, cluster=scenes) for a, b in pairs):
        gain = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * x for x in (found.difference, *found.interval)))
        assert gain in " ".join(text.split())
    assert f"{100 * mean['gain/2 spatial over best constant, spatial']:+.1f}" in text
    assert all(record["metrics"][f"score/{r}/people"]["unparsed"] > 0.5 for r in ("2 spatial", "3 reinforced"))


def scene_of(item):
    return item.metadata["scene"]


def imagery_sets(p, tasks, width):
    "What stage 40 asks, by task and part, before anything is left out."
    own, sets = f"{p['shortest']}-{p['longest']} steps", {}
    for task in tasks:

        def ask(n, modality="TQA", steps=(p["shortest"], p["longest"])):
            return list(spatialite.dataset(task, "test", 0, n, modality=modality, steps=steps, size=width))

        sets[task, own] = ask(p["held_out"])
        if p["beyond"] > p["longest"]:
            longer = p["longest"] + 1, p["beyond"]
            sets[task, "{}-{} steps".format(*longer)] = ask(p["longer"], steps=longer)
        for modality in ("VQA", "VTQA"):
            sets[task, f"{own}, {modality}"] = ask(p["pictured"], modality)
        sets[task, f"{own}, gray"] = [replace(i, id=f"{i.id}-gray") for i in sets[task, f"{own}, VQA"]]
        if (file := data_root() / "spatialite" / f"{task}.jsonl").is_file():
            sets[task, "official"] = spatialite.read_official(file, "short")
            sets[task, "official wording"] = spatialite.read_official(file, "official")
    return sets


def test_what_the_arms_of_imagery_answer_is_in_their_completions():
    record, said = read("40_imagery_distillation")
    p, metrics, checked = record["parameters"], record["metrics"], 0
    arms = {"RD": "RD1-RD1", "ID": "ID1-ID1", "ID, RD": "ID1-RD2", "RD, RD": "RD1-RD2"}
    runs = {"none": ["none"]} | {arm: [f"{name}-seed{s}" for s in p["seeds"]] for arm, name in arms.items()}
    width = read("38_imagery_parent")[0]["parameters"]["width"]
    asked = {r["id"] for r in said["none"]}  # less those met in training
    for (task, part), items in imagery_sets(p, p["tasks"], width).items():
        name, means, every = f"{task}, {part}", {}, items
        items = [i for i in items if i.id in asked]
        for arm, names in runs.items() if items else ():
            means[arm], interval = pooled_share(items, said, names, spatialite.situation)
            same(metrics[f"accuracy/{arm}/{name}"], means[arm], interval)
            assert metrics[f"accuracy/{arm}/{name}"]["n"] == len(items) == record["counts"][f"evaluated/{name}"]
            checked += 1
        for gain in [m for m in metrics if m.startswith("gain/") and m.endswith(f"/{name}") and items]:
            a, b = gain.split("/")[1].split(" over ")
            other = metrics[gain]["floor"] if b == "floor" else means[b]
            same(metrics[gain], np.subtract(means[a], other))
            if b == "floor":
                these = every if part.startswith("official") else items
                assert other >= max(float(chance(these)), float(best_constant(these))) - 1e-9
    assert checked >= 5 * len(runs)
    ratio = [v for m in metrics if m.startswith("tokens, ") for v in metrics[m]["values"]]
    assert len(ratio) == 3 * len(p["seeds"]) and max(abs(r - 1) for r in ratio) <= 0.03


def test_what_verifiers_gain_is_in_the_traces_that_they_were_given():
    record, rows = read("20_verifier_ablation")
    seeds, tau = record["parameters"]["seeds"], 5
    names = dict(rating="rating", true="true steps", right="accuracy", calls="calls")
    for rubric in ("skeptical", "generous"):
        some = {t: rows[f"{rubric}-{t}"] for t in (0, tau)}
        assert [r["scene"] for r in some[0]] == [r["scene"] for r in some[tau]]  # the same questions in the same order
        for what, name in names.items():
            known = {t: [r[what] for r in some[t] if r[what] is not None] for t in some}
            filled = {t: [np.mean(known[t]) if r[what] is None else r[what] for r in some[t]] for t in some}
            by_seed = [
                np.mean([v for v, r in zip(filled[tau], some[tau]) if r["seed"] == s])
                - np.mean([v for v, r in zip(filled[0], some[0]) if r["seed"] == s])
                for s in seeds
            ]
            test = paired(filled[tau], filled[0], cluster=[r["scene"] for r in some[0]])
            same(record["metrics"][f"gain/{name}, {rubric}"], by_seed, test.interval)
        price = [a["calls"] - b["attempts"] for a, b in zip(some[tau], some[0])]
        by_seed = [np.mean([v for v, r in zip(price, some[0]) if r["seed"] == s]) for s in seeds]
        same(record["metrics"][f"gain/calls beside no verifier, {rubric}"], by_seed)
    if people := rows.get("people"):
        right = [r["answer"] == r["recorded"] for r in people]
        same(record["metrics"]["people/right, all questions"], [np.mean(right)])
        assert record["counts"]["people's questions/answered"] == sum(r["answer"] is not None for r in people)


def test_what_students_did_is_in_what_they_said():
    record, rows = read("60_trace_distillation")
    did = [r for r in rows["acted"] if r["hops"] <= record["parameters"]["hops"]]  # as long as in training
    seeds, places = record["parameters"]["seeds"], {r["set"] for r in did}
    arms = {name.split("/")[1] for name in record["metrics"] if name.startswith("accuracy/")}
    mine = lambda arm, where: sorted(
        (r for r in did if (r["arm"], r["set"]) == (arm, where)), key=lambda r: (r["seed"], r["id"])
    )
    share = lambda some, s: np.mean([r["right"] for r in some if r["seed"] == s])
    for where in places:
        for arm in arms & {r["arm"] for r in did}:
            some = mine(arm, where)
            said = summarize([float(r["right"]) for r in some], cluster=[r["scene"] for r in some])
            metric = record["metrics"][f"accuracy/{arm}/{where}"]
            same(metric, [share(some, s) for s in seeds], said.interval)
        for name, metric in record["metrics"].items():
            if name.startswith("gain/") and name.endswith(f"/{where}"):
                a, b = (mine(arm, where) for arm in name.split("/")[1].split(" over "))
                test = paired([float(r["right"]) for r in a], [float(r["right"]) for r in b],
                              cluster=[r["scene"] for r in a])  # fmt: skip
                same(metric, [share(a, s) - share(b, s) for s in seeds], test.interval)
