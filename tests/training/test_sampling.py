"""Batches: the same for any number of workers, and true to the images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import settings, write_dataset

from slicedet.errors import InvalidDataset
from slicedet.raster.scene import Scene
from slicedet.training.augmentation import FILL
from slicedet.training.config import TrainingConfig, _checked
from slicedet.training.sampling import Batch, Sampler
from slicedet.training.sources import Categories, LabelledImages, joined, read_all

OPEN_FILES = Path("/proc/self/fd")

PLAIN = dict.fromkeys(("mosaic", "hue", "saturation", "contrast", "brightness", "blur", "jpeg", "noise"), 0)


def sampler_of(folder: Path, **changes: Any) -> Sampler:
    config: TrainingConfig = _checked(settings(folder, **changes))
    datasets = read_all(config.train)
    categories = Categories.of(datasets, config.train, config.categories, config.ignored)
    return Sampler(LabelledImages(datasets, config.train, categories, config.cache_mb), config, config.sizes or (64,))


def same(a: Batch, b: Batch) -> bool:
    return all(
        np.array_equal(x, y)
        for x, y in zip([a.images, *a.boxes, *a.labels], [b.images, *b.boxes, *b.labels], strict=True)
    )


def test_workers_cache_and_start_do_not_matter(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    changes = {
        "augmentation": {"mosaic": 0.5, "blur": 0.5, "jpeg": 0.5, "noise": 0.5},
        "sizes": [64, 96],
        "batch_size": 3,
    }
    expected = list(sampler_of(tmp_path, **changes).batches(range(8), 0))
    assert {batch.images.shape[1] for batch in expected} == {64, 96}
    for workers, cache in ((1, 1000), (3, 0)):
        sampler = sampler_of(tmp_path, cache_mb=cache, **changes)
        assert all(map(same, sampler.batches(range(8), workers), expected))
    assert all(map(same, sampler_of(tmp_path, **changes).batches(range(5, 8), 2), expected[5:]))
    assert not same(expected[0], next(sampler_of(tmp_path, seed=1, **changes).batches(range(1), 0)))


def test_processes_share_a_batch(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    sampler = sampler_of(tmp_path, batch_size=5)
    whole = next(sampler.batches(range(1), 0))
    for rank in range(2):
        part = next(sampler.batches(range(1), 0, rank, 2))
        np.testing.assert_array_equal(part.images, whole.images[rank::2])


@pytest.mark.parametrize("tiles", [{"scale": [0.5, 2.0]}, {"object_size": [16, 40]}, None])
def test_boxes_lie_around_the_bright_rectangles(tmp_path: Path, tiles: Any) -> None:
    write_dataset(tmp_path)
    augmentation = {**PLAIN, "expand": 0.5, "crop": 0.5} if tiles is None else PLAIN
    sampler = sampler_of(tmp_path, tiles=tiles, augmentation=augmentation, batch_size=4)
    count = 0
    for batch in sampler.batches(range(15), 2):
        for image, boxes in zip(batch.images, batch.boxes, strict=True):
            bright = image.min(axis=2) > 140
            for x1, y1, x2, y2 in boxes:
                inside = bright[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
                edge = (inside.shape[0] + inside.shape[1]) * 2 * 2.5
                assert inside.size - inside.sum() <= edge
                bright[max(0, int(y1) - 2) : int(y2) + 3, max(0, int(x1) - 2) : int(x2) + 3] = False
                count += 1
            # What was too small or too hidden to learn is painted over.
            assert bright.sum() <= 12
    assert count > 40


def test_windows_that_miss_an_image_without_objects(tmp_path: Path) -> None:
    sources = [
        {"annotations": str(write_dataset(tmp_path, role)), "images": str(tmp_path / "images")} for role in ("a", "b")
    ]
    write_dataset(tmp_path, "b", empty=True)
    sampler = sampler_of(tmp_path, train=sources, tiles=None, augmentation={**PLAIN, "expand": 1, "crop": 1})
    filled = 0
    for batch in sampler.batches(range(100), 2):
        for image, boxes in zip(batch.images, batch.boxes, strict=True):
            missed = (image == FILL).all()
            assert not (missed and len(boxes))
            filled += bool(missed)
    assert 0 < filled < 100


def test_object_sizes(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    tiles = {"object_size": [16, 40], "near_objects": 1.0, "aspect": 1.0, "min_visible": 0.99}
    sampler = sampler_of(tmp_path, tiles=tiles, augmentation=PLAIN)
    edges = [
        np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        for batch in sampler.batches(range(40), 0)
        for boxes in batch.boxes
    ]
    found = np.concatenate(edges)
    assert 14 < found.min() < 20
    assert 30 < found.max() < 44


def test_an_epoch_has_each_image_once(tmp_path: Path) -> None:
    write_dataset(tmp_path, images=6)
    sampler = sampler_of(tmp_path, tiles=None, augmentation={**PLAIN, "flip": 0, "flip_vertical": 0, "rotate90": False})
    assert sampler.epoch_steps == 3
    for start in (0, 3):
        images = np.concatenate([batch.images for batch in sampler.batches(range(start, start + 3), 0)])
        means = images.reshape(6, -1, 8).mean(axis=2)
        assert len({tuple(mean) for mean in means.round().astype(int)}) == 6


def test_windows_of_a_large_raster_are_read_one_by_one(
    tmp_path: Path, raster: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    windows: list[Any] = []
    read = Scene.read

    def noted(scene: Scene, window: Any) -> Any:
        windows.append(window)
        return read(scene, window)

    monkeypatch.setattr(Scene, "read", noted)

    write_dataset(tmp_path)
    for image in range(3):
        pixels = cv2.imread(str(tmp_path / "images" / f"train{image}.png"))
        raster(f"images/train{image}.png", pixels.transpose(2, 0, 1), photometric="rgb", tiled=True, blockxsize=64)
    scale = {"scale": [0.9, 1.0]}
    expected = list(sampler_of(tmp_path, tiles=scale).batches(range(4), 0))
    assert windows == [(0, 0, 160, 128)] * 3
    windows.clear()
    assert all(map(same, sampler_of(tmp_path, tiles=scale, cache_mb=0).batches(range(4), 0), expected))
    assert len(windows) == 4 * 2
    assert all(width < 100 and height < 100 for _, _, width, height in windows)


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="needs /proc, which lists the open files")
def test_few_images_stay_open(tmp_path: Path) -> None:
    write_dataset(tmp_path, images=60)
    cached, pieces = sampler_of(tmp_path).images, sampler_of(tmp_path, cache_mb=0).images
    before = len(list(OPEN_FILES.iterdir()))
    for index in [*range(60), *range(0, 60, 7)]:
        pixels, place = pieces.read(index, (20, 30, 90, 80))
        np.testing.assert_array_equal(pixels, cached.read(index, (20, 30, 90, 80))[0])
        assert place == (0, 0, 70, 50)
        assert len(list(OPEN_FILES.iterdir())) - before <= 20


def test_synthetic_tiles_alone(tmp_path: Path) -> None:
    synthetic = {"share": 1.0, "categories": {"car": "vehicle"}}
    sampler = sampler_of(
        tmp_path, dataset_dir=None, categories=["vehicle"], synthetic=synthetic, epoch_tiles=5, tiles={"min_size": 1}
    )
    assert (len(sampler.images), sampler.epoch_steps) == (0, 3)
    assert next(sampler.batches(range(1), 0)).images.shape == (2, 64, 64, 3)


def test_synthetic_tiles(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    sampler = sampler_of(
        tmp_path,
        categories={"vehicle": ["car"]},
        synthetic={"share": 1.0, "categories": {"car": "vehicle", "bus": "vehicle"}},
        input_size=256,
        sizes=[256],
    )
    batches = list(sampler.batches(range(3), 2))
    assert sum(len(boxes) for batch in batches for boxes in batch.boxes) > 0
    assert {int(label) for batch in batches for labels in batch.labels for label in labels} == {0}


def test_categories(tmp_path: Path) -> None:
    write_dataset(tmp_path, names=("car", "bus"))
    images = sampler_of(tmp_path, categories={"vehicle": ["car"]}, ignored=["bus"]).images
    boxes, labels, ignored = images.objects(0)
    assert (len(boxes), labels.tolist(), len(ignored)) == (1, [0], 1)
    with pytest.raises(
        InvalidDataset, match=r"instance_train.json: category 'bus' is not among those trained \(vehicle\)"
    ):
        sampler_of(tmp_path, categories={"vehicle": ["car"]})


def test_ignored_is_a_crowd_when_validating(tmp_path: Path) -> None:
    write_dataset(tmp_path, names=("car", "bus", "van"))
    config = _checked(settings(tmp_path, categories=["car", "van"], ignored=["bus"]))
    datasets = read_all([*config.train, *config.train])
    whole = joined(datasets, Categories.of(datasets, [*config.train] * 2, config.categories, config.ignored))
    assert [image.id for image in whole.images] == [1, 2, 3, 4, 5, 6]
    assert whole.categories == ("car", "van")
    assert whole.crowd.sum() == 2 * 2 * 2
    assert (~whole.crowd).sum() == 2 * 4
    assert (np.diff(whole.image_indices) >= 0).all()
    np.testing.assert_array_equal(whole.boxes[whole.of_image(4)], whole.boxes[whole.of_image(1)])


def test_false_alarms_are_background_that_tiles_lie_near(tmp_path: Path) -> None:
    # What a detector found, in categories of its own, and an image where it found nothing.
    write_dataset(tmp_path, images=1)
    write_dataset(tmp_path, "roof", images=2, names=("thing",))
    labelled = {"annotations": f"{tmp_path}/annotations/instance_train.json", "images": f"{tmp_path}/images"}
    found = tmp_path / "annotations/instance_roof.json"
    alarms = json.loads(found.read_text())
    alarms["annotations"] = [{**alarms["annotations"][2], "bbox": [140, 20, 10, 10], "score": 0.9}]
    found.write_text(json.dumps(alarms))
    source = {"annotations": str(found), "images": f"{tmp_path}/images", "false_alarms": True}
    tiles = {"scale": [1, 1], "near_objects": 1, "aspect": 1}
    sampler = sampler_of(tmp_path, train=[labelled, {**source, "weight": 9}], tiles=tiles)
    images = sampler.images
    assert images.categories.names == ("car",)
    np.testing.assert_allclose(images.weights, [1, 9])
    assert [len(part) for part in images.objects(1)] == [0, 0, 0]
    np.testing.assert_array_equal(images.places(1), [[140, 20, 150, 30]])
    np.testing.assert_array_equal(images.places(0), images.objects(0)[0])
    for seed in range(20):
        x1, y1, x2, y2 = sampler._tile(np.random.default_rng(seed), 1, (64, 64))
        assert (x1 <= 145 <= x2, y1 <= 25 <= y2) == (True, True)
    with pytest.raises(ValueError, match=r"val\[0\].false_alarms: only for train"):
        _checked(settings(tmp_path, val=[source]))


def test_no_object_to_learn(tmp_path: Path) -> None:
    write_dataset(tmp_path, empty=True)
    with pytest.raises(InvalidDataset, match=r"instance_train.json: holds no object of the trained categories \(car\)"):
        sampler_of(tmp_path)


def test_image_listed_but_absent(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "images" / "train1.png").unlink()
    with pytest.raises(InvalidDataset, match=r"train1.png: no such image, though .*instance_train.json lists it"):
        sampler_of(tmp_path)


def test_image_of_another_size(tmp_path: Path) -> None:
    import cv2

    write_dataset(tmp_path)
    cv2.imwrite(str(tmp_path / "images" / "train1.png"), np.zeros((50, 60, 3), np.uint8))
    sampler = sampler_of(tmp_path)
    with pytest.raises(InvalidDataset, match=r"train1.png: is 60 x 50 pixels, its annotations say 160 x 128"):
        list(sampler.batches(range(10), 2))


def test_folders_may_be_parted_by_backslashes(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    (tmp_path / "images" / "deep").mkdir()
    (tmp_path / "images" / "train1.png").rename(tmp_path / "images" / "deep" / "train1.png")
    path.write_text(path.read_text().replace('"train1.png"', json.dumps("deep\\train1.png")))
    pixels, _ = sampler_of(tmp_path).images.read(1, (0, 0, 160, 128))
    assert pixels.shape == (128, 160, 3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../other/train1.png", "leads out of the folder of images"),
        ("/dev/zero", "leads out of the folder of images"),
        ("n" * 300 + ".png", "is no file name, or too long for one"),
    ],
)
def test_images_are_those_of_the_folder(tmp_path: Path, name: str, said: str) -> None:
    path = write_dataset(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "images" / "train1.png").rename(tmp_path / "other" / "train1.png")
    path.write_text(path.read_text().replace('"train1.png"', json.dumps(name)))
    with pytest.raises(InvalidDataset, match=rf"instance_train\.json: '.*{said}"):
        sampler_of(tmp_path)
