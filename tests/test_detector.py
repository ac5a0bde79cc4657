"The detector: one look and two, where objects stand, and pictures that are none."

import numpy as np
import pytest
from PIL import Image

from spatial_nb import detector
from spatial_nb.core import rng, shipped
from spatial_nb.geometry import clevr_camera, directions, project
from spatial_nb.render import render
from spatial_nb.scenes import sample_scene

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def picture():
    try:
        shipped("detector")
    except FileNotFoundError as e:
        pytest.skip(str(e))
    return render(sample_scene(rng("test detector"), n=6)).image


def words(found):
    return {(d.shape, d.size, d.color, d.material) for d in found}


@pytest.mark.parametrize("views", [1, 2])
def test_pixels_are_those_of_the_picture_whatever_its_size(picture, views):
    found = detector.detect(picture, views=views)
    double = detector.detect(picture.resize((960, 640)), views=views)
    assert words(found) == words(double) and len(found) == 6
    for d in found:
        near = min(double, key=lambda o: np.hypot(*np.subtract(o.center, np.multiply(d.center, 2))))
        for name, within in (("center", 3), ("contact", 3), ("box", 6)):
            assert np.abs(np.subtract(getattr(near, name), np.multiply(getattr(d, name), 2))).max() < within
        assert np.allclose(near.position, d.position, atol=0.15) and abs(near.depth - d.depth) < 0.15


def test_the_mirrored_picture_has_the_mirrored_objects(picture):
    found = detector.detect(picture, views=2)
    turned = detector.detect(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), views=2)
    assert words(found) == words(turned)
    center = lambda d: d.center
    back = sorted((480 - d.center[0], d.center[1]) for d in turned)
    # two looks at a picture and at its mirror image are the same two looks
    assert np.allclose(sorted(map(center, found)), back, atol=1e-3)


def test_a_picture_among_several_is_seen_as_alone(picture):
    other = picture.crop((40, 0, 480, 293))
    both = detector.detect([picture, other], views=2)
    assert both == [detector.detect(picture, views=2), detector.detect(other, views=2)]


@pytest.mark.parametrize("views", [0, 3, "2", None])
def test_views_that_there_are_not(picture, views):
    with pytest.raises(ValueError, match="wants 1 .* or 2"):
        detector.detect(picture, views=views)


@pytest.mark.parametrize("size", [(1, 1), (7, 900), (3000, 20)])
def test_a_picture_without_objects_has_none_and_odd_sizes_do_no_harm(picture, size):
    assert detector.detect(Image.new("RGB", size, "gray"), views=2) == []
    assert detector.detect(Image.new("LA", size), views=1) == []


def test_a_file_that_is_no_picture_is_named(tmp_path):
    torn = tmp_path / "torn.png"
    Image.new("RGB", (90, 60), "red").save(torn)
    torn.write_bytes(torn.read_bytes()[:60])
    for path, kind in ((torn, ValueError), (tmp_path / "none.png", FileNotFoundError), (tmp_path, ValueError)):
        with pytest.raises(kind, match=path.name):
            detector.detect(path)
    with pytest.raises(TypeError, match="picture is a dict"):
        detector.open_picture({})


@pytest.mark.parametrize("seed", range(20))
def test_where_an_object_stands_is_exact_with_the_true_camera(seed):
    scene = sample_scene(rng("stands", seed))
    axes, eye = directions(scene.camera), np.array(scene.camera.position)
    for o in scene.objects:
        at = detector.ground(project(scene.camera, o.position)[0], o.size, scene.camera)
        pixel, depth = project(scene.camera, np.multiply(o.position, [1, 1, 0]))
        assert np.allclose(at["contact"], pixel) and np.isclose(at["depth"], depth)
        away = np.subtract(o.position, eye)
        assert np.allclose(at["position"], [away @ axes["right"], away @ axes["behind"]])


def test_rows_of_the_ground_order_objects_that_rows_of_centres_do_not():
    camera = clevr_camera()
    axes = directions(camera)
    large, small = np.array([0, 0, 0.7]), np.array([0, 0, 0.35]) + 0.1 * axes["behind"] + 1.5 * axes["right"]
    seen = [(project(camera, large)[0], "large"), (project(camera, small)[0], "small")]
    assert seen[0][0][1] < seen[1][0][1]  # the centre of the large one is higher up, as if it were behind
    contacts = [detector.ground(center, size, camera)["contact"][1] for center, size in seen]
    assert contacts[0] > contacts[1]
    assert detector.ground((240, -5000), "small") == {}  # above the horizon nothing stands
