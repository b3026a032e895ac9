"""Small data sets for tests: configs, random images, .npz files and image folders."""

import imagecodecs
import numpy as np
import tifffile

from zoo.config import Config

MODEL = {"family": "nin", "mlpconvs": [{"kernel": 3, "filters": [4]}]}
# The sides of large images, and the header of a table of points in them.
SCENE_SIDES, POINTS = (40, 50), "image,x,y,class\n"
TRAIN = {"epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 0.1}}


class Counted:
    """What is read by slices, and how often each of its first two axes' places was."""

    def __init__(self, values):
        self._values, self.shape, self.dtype = values, values.shape, values.dtype
        self.reads = np.zeros(values.shape[:2], int)

    def __getitem__(self, where):
        self.reads[where] += 1
        return self._values[where]


def config(name, size=(8, 8), channels=1, classes=10, mean=(0.0,), seed=0, **data):
    preprocess = {"mean": mean}
    model = MODEL | {"num_classes": classes, "image_size": size, "channels": channels, "preprocess": preprocess}
    return Config.model_validate(
        {"name": "test", "seed": seed, "data": {"name": name, **data}, "model": model, "train": TRAIN}
    )


def random_image(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def rows(split):
    return {image.tobytes() for image in split.images[:]}


def one_line(raised):
    assert "\n" not in str(raised.value)
    return str(raised.value)


def write_npz(path, **changes):
    arrays = {
        "x_train": random_image(20, 6, 5, seed=1),
        "y_train": np.arange(20) % 2,
        "x_test": random_image(8, 6, 5, seed=2),
        "y_test": np.arange(8)[:, None] % 2,
    }
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def npz(path, **options):
    return config("npz", dir=path, **({"size": (6, 5), "classes": 2, "validation": 0} | options))


def write_images(root, classes=("cat", "dog"), count=30, dtype=np.uint8, size=(6, 5)):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random_image(*size, 3, seed=1000 * number + index, dtype=dtype)
            (root / name / f"{index:03}.png").write_bytes(imagecodecs.png_encode(pixels))
    return root


def image_folder(root, **options):
    return config("image_folder", dir=root, **({"size": (6, 5), "channels": 3, "classes": 2} | options))


def write_scenes(root, count=6, channels=3, sides=SCENE_SIDES):
    """Images, the number of each of which says where its objects are: a disc and a square."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        pixels = random_image(*sides, channels, seed=index)
        tifffile.imwrite(root / "images" / f"{index}.tif", pixels, photometric="rgb" if channels == 3 else "minisblack")
        rows += [
            f"{index}.tif,{10 + index}.5,{12 + index}.5,disc\n",
            f"{index}.tif,{30 + index}.0,{20 + index}.0,square\n",
        ]
    (root / "points.csv").write_text(POINTS + "".join(rows))
    return root


def scenes(root, size=(8, 8), classes=3, channels=3, **data):
    given = {"dir": root / "images", "labels": root / "points.csv", "tolerance": 4, **data}
    return config(
        "scenes", size, channels, classes, **{key: value for key, value in given.items() if value is not None}
    )


def scene_names(part):
    return {scene.name for scene in part}


def scene_parts(dataset):
    return {part: scene_names(getattr(dataset.scenes, part)) for part in ("train", "validation", "test")}


def split_file(root, rows):
    (root / "split.csv").write_text("image,split\n" + "".join(f"{name},{part}\n" for name, part in rows))
    return root / "split.csv"
