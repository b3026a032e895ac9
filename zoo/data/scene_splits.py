"""Which large images are for training, validation and testing: by a file, or by their content."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.config.data import DataConfig
from zoo.data.labels import Names
from zoo.data.splits import draw
from zoo.errors import listing, quoted, refuse
from zoo.pictures.tables import read_table

PARTS = ("train", "validation", "test")


def read_split(
    path: Path, images: Sequence[str], left_out: Sequence[str] = (), validation: bool = True
) -> dict[str, str]:
    """The part of each image that a .csv file gives, with a row `image,split` for each.

    Args:
        path: `data.split`.
        images: their paths below `data.dir`.
        left_out: further ones, which the file may name.
        validation: whether there have to be some for validation.

    Raises:
        InputError: where the file cannot be read, names images that are not there, one twice, leaves one out, or gives
            none to a part that needs some.
    """
    name = f"data.split: {path}"
    names, unknown = Names([*images, *left_out]), []
    parts: dict[str, str] = {}
    for row in read_table(path, name, ("image", "split")):
        given, part = row.values["image"], row.values["split"].casefold()
        if part not in PARTS:
            refuse(f"{name}: row {row.number}", quoted(row.text), f"an image and {', '.join(PARTS)}")
        image = names.find(given)
        if image is None:
            unknown.append(given)
        elif image in parts:
            refuse(f"{name}: row {row.number}", f"image {quoted(given)} again", "one row for each")
        else:
            parts[image] = part
    if unknown:
        refuse(name, f"{len(unknown):,} images that are not in data.dir ({listing(unknown, 3)})", "those of data.dir")
    if missing := [image for image in images if image not in parts]:
        received = f"no row for {len(missing):,} of {len(images):,} images ({listing(missing, 3)})"
        refuse(name, received, "a row for each image of data.dir")
    used = {image: parts[image] for image in images}
    if missing := [part for part in PARTS if part not in used.values() and (validation or part != "validation")]:
        unless = ", or data.validation=0" if missing[0] == "validation" else ""
        refuse(name, f"no {missing[0]} image", f"at least one{unless}")
    return parts


def draw_split(data: DataConfig, digests: Sequence[str], specimens: Sequence[str | None]) -> list[str]:
    """The part of each image, by numbers that are drawn from content, or specimens' names, and from no seed.

    Images are taken for testing in the order of these numbers, until they are the share `data.test` of all, rounded;
    then for validation, until they are the share `data.validation` of the others, or as many as that says. Images that
    stay together, copies and those of a specimen, are taken where that brings their part nearer to its number. Each
    part has one image at least. So an image may come into another part where images are added.

    Args:
        data: the data section.
        digests: the SHA-256 of each image's content, in hexadecimal digits.
        specimens: the specimen of each; None without `data.group`.

    Raises:
        InputError: where there are too few images or specimens for each part to have one, or as many as there are for
            validation.
    """
    keys = [
        digest if specimen is None else hashlib.sha256(specimen.encode(errors="surrogateescape")).hexdigest()
        for digest, specimen in zip(digests, specimens, strict=True)
    ]
    sizes = Counter(sorted(keys, key=lambda key: (draw(key), key)))
    count, least = len(sizes), 3 if data.validation else 2
    if count < least:
        what = (
            f"different image{'s' * (count > 1)}" if data.group is None else f"specimen{'s' * (count > 1)} (data.group)"
        )
        parts = " and ".join((*PARTS[:1], *PARTS[1 : least - 1], "test") if least == 3 else ("train", "test"))
        refuse("data.dir", f"{count} {what}", f"at least {least}, for {parts}; or data.split")
    part = dict.fromkeys(sizes, "train")
    part |= dict.fromkeys(_taken(sizes, round(data.test * len(keys)), count - least + 1), "test")
    if data.validation:
        others = {key: size for key, size in sizes.items() if part[key] == "train"}
        if data.validation >= (total := sum(others.values())):
            refuse(
                "data.validation", f"{data.validation:g}", f"fewer than the {total:,} images that are not for testing"
            )
        wanted = data.validation if data.validation >= 1 else round(data.validation * total)
        part |= dict.fromkeys(_taken(others, wanted, len(others) - 1), "validation")
    return [part[key] for key in keys]


def _taken(sizes: Mapping[str, int], wanted: float, most: int) -> list[str]:
    """Of what has so many images each, in this order, what has about as many together as are `wanted`.

    Each is taken that brings them nearer to their number: at least one, the smallest where none does; `most` at most.
    """
    taken: list[str] = []
    missing = wanted
    for key, size in sizes.items():
        if len(taken) < most and abs(missing - size) < abs(missing):
            taken.append(key)
            missing -= size
    return taken or [min(sizes, key=lambda key: sizes[key])]
