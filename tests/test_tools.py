"Tools: exact where they should be, the same bytes for the same call, and results that are kept whole or made again."

import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from spatial_nb import detector, tools
from spatial_nb.core import rng, shipped
from spatial_nb.geometry import directions, offset, project
from spatial_nb.render import render
from spatial_nb.scenes import sample_scene

SCENE = sample_scene(rng("test tools"), n=7)
VIEW = render(SCENE)


def same(a: tools.Observation, b: tools.Observation) -> bool:
    "Whether two observations are equal to the last bit."
    masks = [(x.mask is None) == (y.mask is None) and (x.mask is None or (x.mask == y.mask).all())
             for x, y in zip(a.found, b.found)]  # fmt: skip
    maps = [o.result.values for o in (a, b) if isinstance(o.result, tools.DepthMap)]
    equal = (a.tool, a.message, a.found) == (b.tool, b.message, b.found)
    if maps:
        equal = equal and a.result.metric == b.result.metric and maps[0].tobytes() == maps[1].tobytes()
    return equal and a.picture.tobytes() == b.picture.tobytes() and all(masks)


class Slow:
    "A back end that counts its looks and takes its time."

    def __init__(self, seconds=0.0, name="slow"):
        self.looks, self.seconds, self.name = 0, seconds, name

    def segment(self, picture):
        self.looks += 1
        time.sleep(self.seconds)
        return tools.Oracle(SCENE).segment(picture)

    def depth(self, picture):
        self.looks += 1
        return tools.Oracle(SCENE).depth(picture)


def test_names_that_others_call():
    assert tools.detect is detector.detect and tools.Detection is detector.Detection
    assert {"detect", "Detection", "open_picture", "segment", "depth", "top_down"} <= set(tools.__all__)
    assert set(tools.PAPER) == set(tools.TOOLS) == set(tools.toolset(tools.Oracle(SCENE)))


# --- the oracle -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(480, 320), (240, 160), (333, 222)])
def test_an_oracle_without_noise_is_exact(size):
    view, oracle = render(SCENE, size), tools.Oracle(SCENE)
    seen = tools.segment(view.image, oracle)
    assert seen.picture.size == size
    camera = SCENE.camera.resized(size)
    visible = np.flatnonzero(view.visible(len(SCENE)))
    assert len(seen.result) == len(visible)
    for d, i in zip(seen.result, visible):
        o = SCENE[i]
        assert (d.shape, d.size, d.color, d.material) == (o.shape, o.size, o.color, o.material)
        assert (d.mask == (view.mask == i)).all() and d.box == view.boxes()[i]
        assert np.allclose(d.contact, project(camera, np.multiply(o.position, [1, 1, 0]))[0])
    depths = tools.depth(view.image, oracle)
    assert depths.result.metric and depths.picture.size == size
    hit = np.isfinite(view.depth)
    assert (depths.result.values[hit] == view.depth[hit]).all() and np.isfinite(depths.result.values).all()
    place = np.array([d.position for d in tools.top_down(view.image, oracle).result])
    for axis, name in enumerate(("right", "behind")):
        true = offset(SCENE.positions[visible], directions(SCENE.camera)[name])
        assert np.allclose(place[None, :, axis] - place[:, None, axis], true)


def test_the_same_call_gives_the_same_bytes_in_another_process():
    code = (
        "import sys; from spatial_nb import tools; from spatial_nb.core import rng, content_hash;"
        "from spatial_nb.scenes import sample_scene; from PIL import Image; import numpy as np;"
        "o = tools.Oracle(sample_scene(rng('test tools'), n=7), 0.4, seed=3);"
        "seen = [t(Image.new('RGB', (480, 320))) for t in tools.toolset(o).values()];"
        "print(o.name, content_hash([content_hash(np.asarray(s.picture)) + repr(s.found) for s in seen]))"
    )
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
            for env in (dict(os.environ, PYTHONHASHSEED="1"), dict(os.environ, PYTHONHASHSEED="2"))}  # fmt: skip
    assert len(said) == 1


def errors(noise, seed):
    "What an oracle gets wrong: (missed, merged, words), and the share that depths are off."
    seen = tools.segment(VIEW.image, tools.Oracle(SCENE, noise, seed)).result
    exact = tools.segment(VIEW.image, tools.Oracle(SCENE)).result
    alone = {d.center: d for d in exact}
    wrong = [(d, alone[d.center]) for d in seen if d.center in alone]
    words = sum(getattr(d, k) != getattr(t, k) for d, t in wrong for k in ("shape", "size", "color", "material"))
    far = tools.depth(VIEW.image, tools.Oracle(SCENE, noise, seed)).result.values
    return len(exact) - len(seen), words, float(np.abs(np.log(far / tools._filled(VIEW.depth))).max())


@pytest.mark.parametrize("kind, place", [("missed", 0), ("merged", 0), ("confused", 1), ("depth", 2)])
def test_each_dial_turns_one_kind_of_error_and_more_of_it_gives_more(kind, place):
    by_level = [np.mean([errors(tools.Noise(**{kind: x}), s) for s in range(6)], 0) for x in (0, 0.2, 0.6)]
    assert not by_level[0].any()
    assert by_level[0][place] <= by_level[1][place] < by_level[2][place]
    assert not np.delete(by_level[2], place).any(), f"{kind} changes something else as well"


def test_all_missed_all_merged_and_one_object_alone():
    none = tools.toolset(tools.Oracle(SCENE, tools.Noise(missed=1)))
    assert [t(VIEW.image).found for t in none.values()] == [(), (), ()]
    assert none["segment"](VIEW.image).message == "no object found"
    merged = tools.segment(VIEW.image, tools.Oracle(SCENE, tools.Noise(merged=1))).result
    assert len(merged) <= len(SCENE) // 2
    assert sum(d.mask.sum() for d in merged) == (VIEW.mask >= 0).sum()
    lone = sample_scene(rng("lone"), n=1)
    assert len(tools.segment(VIEW.image, tools.Oracle(lone, tools.Noise(merged=1))).result) == 1


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_noise_is_a_share(bad):
    with pytest.raises(ValueError, match="wants a number from 0 to 1"):
        tools.Oracle(SCENE, bad)


def test_two_scenes_seeds_and_dials_are_kept_apart():
    scenes = SCENE, sample_scene(rng("lone"), n=1)
    names = {tools.Oracle(s, n, k).name for s in scenes for n in (0, 0.1) for k in (0, 1)}
    assert len(names) == 8


# --- our detector ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clevr():
    pytest.importorskip("torch")
    try:
        shipped("detector")
    except FileNotFoundError as e:
        pytest.skip(str(e))
    return tools.Clevr()


def test_from_pixels_masks_depths_and_places_are_near_the_truth(clevr):
    overlap, off, far = [], [], []
    for i in range(4):
        scene = sample_scene(rng("tools pixels", i), split="test")
        view = render(scene)
        centres = [dict(x=u, y=v) for u, v in project(scene.camera, scene.positions)[0]]
        pairs = lambda seen: detector.match(seen, centres)
        axes, away = directions(scene.camera), scene.positions - scene.camera.position
        seen = clevr.segment(view.image).result
        overlap += [(seen[a].mask & (m := view.mask == b)).sum() / (seen[a].mask | m).sum() for a, b in pairs(seen)]
        seen = clevr.top_down(view.image).result
        true = np.stack([away @ axes["right"], away @ axes["behind"]], 1)
        off += [np.hypot(*np.subtract(seen[a].position, true[b])) for a, b in pairs(seen)]
        far.append(np.median(np.abs(clevr.depth(view.image).result.values / view.depth - 1)))
    assert np.mean(overlap) > 0.85 and np.median(off) < 0.4 and np.median(far) < 0.05


def test_a_picture_of_nothing_has_no_objects(clevr):
    blank = Image.new("RGB", (90, 60), "gray")
    seen = {name: tool(blank) for name, tool in tools.toolset(clevr).items()}
    assert [s.objects for s in seen.values()] == [[], [], []]
    assert seen["segment"].picture.size == seen["depth"].picture.size == (90, 60)
    assert np.isfinite(seen["depth"].result.values).all()


def test_a_net_without_a_name_is_refused_since_a_cache_could_not_tell_it_apart():
    with pytest.raises(ValueError, match="wants both or neither"):
        tools.Clevr(net=object())


# --- results that are kept ------------------------------------------------------------------------------------------


def test_what_is_kept_comes_back_to_the_last_bit(tmp_path):
    oracle = tools.Oracle(SCENE, 0.2)
    for name, tool in tools.toolset(oracle, cache=tmp_path).items():
        made, kept, plain = tool(VIEW.image), tool(VIEW.image), tools.toolset(oracle)[name](VIEW.image)
        assert made is not kept and same(made, kept) and same(made, plain)


def test_pictures_tools_and_back_ends_are_kept_apart(tmp_path):
    slow, other = Slow(), Slow(name="another")
    changed = VIEW.image.copy()
    changed.putpixel((3, 3), (0, 0, 0))
    for _ in range(2):
        for backend in (slow, other):
            for picture in (VIEW.image, changed):
                tools.segment(picture, backend, tmp_path)
                tools.depth(picture, backend, tmp_path)
    assert slow.looks == other.looks == 4
    VIEW.image.save(tmp_path / "same.png")
    tools.segment(tmp_path / "same.png", slow, tmp_path)  # the same pixels from a file
    assert slow.looks == 4


def test_a_damaged_file_is_made_again(tmp_path):
    slow = Slow()
    first = tools.segment(VIEW.image, slow, tmp_path)
    [file] = tmp_path.rglob("*.npz")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x55
    damaged = [whole[: len(whole) * k // 12] for k in range(12)] + [bytes(flipped), b"\0" * len(whole), whole[100:]]
    for k, data in enumerate(damaged, 2):
        file.write_bytes(data)
        assert same(tools.segment(VIEW.image, slow, tmp_path), first) and slow.looks == k
    assert file.read_bytes() == whole


def test_threads_that_ask_at_once_make_one_look(tmp_path):
    slow = Slow(seconds=0.3)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: tools.segment(VIEW.image, slow, tmp_path), range(16)))
    assert slow.looks == 1 and all(same(seen[0], s) for s in seen)


WORKER = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from test_tools import *
class Noted(Slow):
    def segment(self, picture):
        with open(sys.argv[1] + "/looks", "a") as f: f.write("x")
        return super().segment(picture)
backend = Noted(seconds=0.5)
print("ready", flush=True); sys.stdin.readline()
seen = tools.segment(VIEW.image, backend, sys.argv[1])
print(len(seen.result), flush=True)
"""


def workers(tmp_path, n):
    here = os.path.dirname(__file__)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    all_ = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), here], **pipes) for _ in range(n)]
    for w in all_:
        assert w.stdout.readline() == "ready\n"
    return all_


def test_processes_that_ask_at_once_make_one_look_and_a_killed_one_holds_nobody_up(tmp_path):
    first, *others = workers(tmp_path, 3)
    first.stdin.write("go\n"), first.stdin.flush()
    while not (tmp_path / "looks").exists():
        time.sleep(0.01)
    first.kill()  # in the middle of its look, with the lock in its hands
    first.communicate()
    for w in others:
        w.stdin.write("go\n"), w.stdin.flush()
    assert {w.communicate(timeout=60)[0] for w in others} == {"7\n"}
    assert (tmp_path / "looks").read_text() == "xx"  # the killed one, and one of the two


def test_a_look_that_fails_keeps_nothing_and_frees_the_next(tmp_path):
    class Broken(Slow):
        def segment(self, picture):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        tools.segment(VIEW.image, Broken(), tmp_path)
    assert not list(tmp_path.rglob("*.npz"))
    assert tools.segment(VIEW.image, Slow(), tmp_path).found


# --- back ends that are not ours ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks():
    "SAM 2 and Depth Anything V2 from their configurations, tiny, at random weights."
    torch = pytest.importorskip("torch")
    from spatial_nb import models  # before transformers: it sees to it that torchvision can be imported

    pytest.importorskip("transformers")
    patch = pytest.MonkeyPatch()
    if not models._FITS:  # torchvision's compiled part does not fit this torch: suppression of doubles in plain torch
        from transformers.models.sam2 import image_processing_sam2

        patch.setattr(image_processing_sam2, "batched_nms", plain_nms)
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
        Sam2Config,
        Sam2ImageProcessor,
        Sam2Model,
    )

    stages = dict(blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64], global_attention_blocks=[3],
                  num_attention_heads_per_stage=[1, 1, 2, 2], window_size_per_stage=[4] * 4, hidden_size=8,
                  window_positional_embedding_background_size=[4, 4], image_size=[128, 128])  # fmt: skip
    hiera = dict(model_type="sam2_hiera_det_model", **stages)
    vision = dict(backbone_config=hiera, fpn_hidden_size=32, backbone_channel_list=[64, 32, 16, 8],
                  backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]])  # fmt: skip
    decoder = dict(hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    prompts = dict(hidden_size=32, image_size=128, patch_size=16)
    sam = Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)).eval()
    back = Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
                        out_indices=[1, 2, 3, 4], reshape_hidden_states=False)  # fmt: skip
    how = dict(reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8, head_hidden_size=4)
    config = lambda **kw: DepthAnythingConfig(backbone_config=back, **how, **kw)
    depth = lambda **kw: DepthAnythingForDepthEstimation(config(**kw)).eval()
    torch.manual_seed(1)
    nets = SimpleNamespace(sam=sam, relative=depth(), metric=depth(depth_estimation_type="metric", max_depth=20))
    for net in vars(nets).values():
        for p in net.parameters():
            torch.nn.init.normal_(p, 0, 0.2)
    nets.sam_pictures = Sam2ImageProcessor(size=dict(height=128, width=128), mask_size=dict(height=32, width=32))
    nets.pictures = DPTImageProcessor(size=dict(height=28, width=42), ensure_multiple_of=14, keep_aspect_ratio=True)
    yield nets
    patch.undo()


def plain_nms(boxes, scores, idxs, iou_threshold):
    import torch

    keep, order = [], scores.argsort(descending=True).tolist()
    area = lambda b: (b[2:] - b[:2]).clamp(min=0).prod()
    while order:
        i = order.pop(0)
        keep.append(i)
        a = boxes[i]
        both = [torch.cat([torch.maximum(a[:2], boxes[j, :2]), torch.minimum(a[2:], boxes[j, 2:])]) for j in order]
        iou = [area(b) / (area(a) + area(boxes[j]) - area(b)) for b, j in zip(both, order)]
        order = [j for j, share in zip(order, iou) if share <= iou_threshold]
    return torch.tensor(keep, dtype=torch.long)


def test_sam2_runs_from_its_configuration(networks, tmp_path):
    loose = dict(points_per_crop=4, pred_iou_thresh=-1e9, stability_score_thresh=0.0)
    sam = tools.Sam2(networks.sam, networks.sam_pictures, device="cpu", **loose)
    picture = VIEW.image.resize((96, 64))
    seen = tools.segment(picture, sam, tmp_path)
    assert seen.picture.size == (96, 64) and same(seen, tools.segment(picture, sam, tmp_path))
    said = [np.asarray(m).astype(bool) for m in sam.pipe(picture, **loose)["masks"]]
    assert said and all(any((d.mask == m).all() for m in said) for d in seen.result)
    strict = tools.Sam2(networks.sam, networks.sam_pictures, device="cpu", points_per_crop=4)
    assert strict.name != sam.name
    networks.sam.save_pretrained(tmp_path / "sam"), networks.sam_pictures.save_pretrained(tmp_path / "sam")
    loaded = tools.Sam2(tmp_path / "sam", device="cpu", **loose)
    assert same(tools.segment(picture, loaded), seen)


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_depth_anything_runs_from_its_configuration(networks, kind):
    import torch

    net = getattr(networks, kind)
    seen = tools.depth(VIEW.image, tools.DepthAnything(net, networks.pictures, device="cpu"))
    values = seen.result.values
    assert values.shape == (320, 480) and values.dtype == np.float32 and seen.result.metric == (kind == "metric")
    inputs = networks.pictures(images=VIEW.image, return_tensors="pt")
    with torch.inference_mode():
        raw = networks.pictures.post_process_depth_estimation(net(**inputs), [(320, 480)])[0]["predicted_depth"].numpy()
    if kind == "metric":
        assert np.allclose(values, raw, atol=1e-5)
    else:  # inverse depth turned around: less is nearer
        assert values.min() == 0 and values.max() == 1 and np.corrcoef(values.ravel(), raw.ravel())[0, 1] < -0.999


def test_weights_that_are_not_there_are_said_in_one_line(tmp_path):
    pytest.importorskip("transformers")
    for make in (tools.Sam2, tools.DepthAnything):
        with pytest.raises(ValueError, match="no .* model at") as e:
            make(tmp_path / "nothing").name
        assert "\n" not in str(e.value)


def test_the_ground_and_parts_of_things_are_no_things():
    masks = np.zeros((4, 40, 60), bool)
    masks[0], masks[1, 5:15, 5:15], masks[2, 5:8, 5:15], masks[3, 20:30, 40:50] = True, True, True, True
    kept = tools._whole_things(masks, [0.9, 0.5, 0.99, 0.7])
    assert [int(m.sum()) for m, _ in kept] == [100, 100] and [s for _, s in kept] == [0.7, 0.5]
    assert tools._whole_things([], []) == []


class Relative:
    "Depths without scale: a straight line in inverse depth."

    name = "relative"

    def depth(self, picture):
        inverse = 1 / tools._filled(VIEW.depth)
        return tools.shaded(tools.DepthMap((inverse.max() - inverse) / np.ptp(inverse), False))


def test_places_from_a_map_without_scale_are_those_from_a_map_in_metres():
    exact = tools.Oracle(SCENE)
    true = [d.position for d in tools.top_down(VIEW.image, exact).result]
    for depths in (exact, Relative()):
        place = [d.position for d in tools.top_down(VIEW.image, tools.FromDepth(exact, depths, SCENE.camera)).result]
        assert np.abs(np.subtract(place, true)).max() < 0.6
    hidden = np.zeros(VIEW.depth.shape, bool)
    with pytest.raises(ValueError, match="0 pixels of ground"):
        tools.to_metres(Relative().depth(VIEW.image).result, SCENE.camera, hidden)


def command(code: str) -> str:
    return shlex.join([sys.executable, "-c", f"import sys, time, os, shutil; {code}"]) + " {image} {out}"


def test_another_program_draws_in_a_folder_of_its_own(tmp_path):
    copies = tools.External(command("shutil.copy(sys.argv[1], sys.argv[2])"))
    assert np.array_equal(np.asarray(tools.top_down(VIEW.image, copies).picture), VIEW.rgb)
    leaves = tools.External(command("os.mkdir('a b'); shutil.copy(sys.argv[1], 'a b/top.png')"), output="a b/top.png")
    assert np.array_equal(np.asarray(tools.top_down(VIEW.image, leaves, tmp_path).picture), VIEW.rgb)
    assert same(tools.top_down(VIEW.image, leaves, tmp_path), tools.top_down(VIEW.image, leaves, tmp_path))
    with ThreadPoolExecutor(4) as pool:  # fixed file names, many at once
        pictures = [VIEW.image.rotate(90 * k) for k in range(4)]
        for p, o in zip(pictures, pool.map(lambda p: tools.top_down(p, leaves), pictures)):
            assert np.array_equal(np.asarray(o.picture), np.asarray(p))


@pytest.mark.parametrize("code, said", [
    ("sys.exit('the GPU is on fire')", "failed .1.: the GPU is on fire"),
    ("pass", "ended well and left no out.png"),
    ("open(sys.argv[2], 'w').write('no picture')", "not a picture"),
    ("os.kill(os.getpid(), 9)", "failed .-9.: it said nothing"),
])  # fmt: skip
def test_what_goes_wrong_in_another_program_is_said_in_one_line(code, said):
    with pytest.raises((RuntimeError, ValueError), match=said) as e:
        tools.top_down(VIEW.image, tools.External(command(code)))
    assert "\n" not in str(e.value)


def test_a_program_that_does_not_end_is_stopped_with_all_that_it_started(tmp_path):
    child = "import subprocess as s; p = s.Popen(['sleep', '60']); open({!r}, 'w').write(str(p.pid)); time.sleep(60)"
    forever = tools.External(command(child.format(str(tmp_path / "pid"))), seconds=3)
    with pytest.raises(RuntimeError, match="not done after 3 seconds"):
        tools.top_down(VIEW.image, forever)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the program's child lives on")


@pytest.mark.parametrize("bad", ["draw", "draw {out}", "draw {image}"])
def test_a_command_has_to_say_where_pictures_go(bad):
    with pytest.raises(ValueError, match="command is 'draw"):
        tools.External(bad)


# --- choosing and joining -------------------------------------------------------------------------------------------


def test_tools_are_chosen_one_by_one():
    oracle, slow = tools.Oracle(SCENE), Slow()
    assert set(tools.toolset(slow)) == {"segment", "depth"}
    assert set(tools.toolset(oracle, depth=False)) == {"segment", "top_down"}
    assert set(tools.toolset(None, depth=slow)) == {"depth"}
    mixed = tools.toolset(oracle, segment=slow)
    assert {n: type(f(VIEW.image)) for n, f in mixed.items()} == dict.fromkeys(tools.TOOLS, tools.Observation)
    assert slow.looks == 1
    with pytest.raises(ValueError, match="no tools"):
        tools.toolset(None)
    with pytest.raises(ValueError, match="has no top_down, only segment, depth"):
        tools.toolset(None, top_down=slow)["top_down"](VIEW.image)
    for name, said in (("oracle", "has to know the scene"), ("sam", "did you mean 'sam2'")):
        with pytest.raises(ValueError, match=said):
            tools.toolset(name)


def test_objects_are_plain_values():
    for tool in tools.toolset(tools.Oracle(SCENE)).values():
        rows = tool(VIEW.image).objects
        assert [tuple(r) for r in rows] == [tools.FACTS] * 7
        assert len(json.loads(json.dumps(rows))) == 7


def test_looks_are_joined_object_by_object():
    seen = {n: t(VIEW.image) for n, t in tools.toolset(tools.Oracle(SCENE)).items()}
    rows = tools.joined(seen.values())
    assert len(rows) == 7 and not [k for r in rows for k, v in r.items() if v is None]
    assert tools.joined([seen["top_down"], seen["segment"], seen["depth"]]) == rows
    missed = tools.Oracle(SCENE, tools.Noise(missed=0.5), seed=1).segment(VIEW.image)
    assert len(tools.joined([missed, seen["top_down"]])) == 7
    read = tools.joined([seen["segment"], Relative().depth(VIEW.image)])
    near = lambda rows: [r["center"] for r in sorted(rows, key=lambda r: r["depth"])]
    assert near(read)[0] == near(rows)[0] and near(read)[-1] == near(rows)[-1]
    assert tools.joined([]) == []


def test_looks_of_anybody_are_joined_where_their_objects_stand():
    look = lambda rows: SimpleNamespace(objects=rows)
    thing = lambda color, x, **more: (
        dict(shape="cube", size="small", color=color, material="metal", **more)
        | ({} if x is None else {"center": [x, 5]})
    )
    seen = look([thing(c, 10 * i) for i, c in enumerate(("red", "blue", "red"))])
    far = look([{"center": [21, 5], "depth": 2}, {"center": [11, 5], "depth": 1}, {"center": [90, 90], "depth": 9}])
    told = lambda rows: [(o["color"], o["depth"]) for o in rows]
    assert told(tools.joined([seen, far])) == [("red", None), ("blue", 1), ("red", 2), (None, 9)]
    assert sorted(told(tools.joined([far, seen])), key=str) == sorted(told(tools.joined([seen, far])), key=str)
    near = look([{"center": [4, 5], "depth": 4}, {"center": [1, 5], "depth": 1}])  # both nearest to the first
    assert told(tools.joined([seen, near]))[:2] == [("red", 1), ("blue", 4)]
    bare = look([thing("red", None), thing("blue", None)])
    assert told(tools.joined([bare, look([{"depth": 3}, {"depth": 4}])])) == [("red", 3), ("blue", 4)]  # by order
    assert len(tools.joined([bare, look([{"depth": 3}])])) == 3
    assert tools.joined([look(None), look([])]) == []


def test_what_a_view_from_above_is_computed_from_is_kept_for_the_other_tools(tmp_path):
    slow = Slow()
    above = tools.FromDepth(slow, slow, SCENE.camera, cache=tmp_path)
    calls = tools.toolset(slow, top_down=above, cache=tmp_path)
    for name in ("top_down", "segment", "depth", "top_down"):
        calls[name](VIEW.image)
    assert slow.looks == 2
