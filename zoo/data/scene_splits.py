"""Which large images are for training, validation and testing: by a file, or by their content."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

from zoo.config.data import DataConfig
from zoo.data.labels import Names
from zoo.data.splits import draw
from zoo.errors import InputError, listing, quoted, refuse
from zoo.pictures.box_forms import plain

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
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{name}: broken ({error})") from None
    rows = [[each.strip() for each in row] for row in rows if any(map(str.strip, row))]
    header = [plain(each) for each in rows[0]] if rows else []
    if not {"image", "split"} <= set(header):
        refuse(name, f"a header {quoted(','.join(rows[0]) if rows else '')}", "image,split")
    names, unknown = Names([*images, *left_out]), []
    parts: dict[str, str] = {}
    for index, row in enumerate(rows[1:], start=1):
        if len(row) != len(header) or row[header.index("split")].casefold() not in PARTS:
            refuse(f"{name}: row {index}", quoted(",".join(row)), f"an image and {', '.join(PARTS)}")
        given = row[header.index("image")]
        image = names.find(given)
        if image is None:
            unknown.append(given)
        elif image in parts:
            refuse(f"{name}: row {index}", f"image {quoted(given)} again", "one row for each")
        else:
            parts[image] = row[header.index("split")].casefold()
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
    """The part of each image by a number that is drawn from its content, or its specimen's name, and from no seed.

    The share `data.test` with the least numbers is for testing; of the others, the share `data.validation` with the
    least ones for validation, or as many images where that is a number. So adding an image moves no other, as long as
    each part has one of its own: each is given one at least.

    Args:
        data: the data section.
        digests: the SHA-256 of each image's content, in hexadecimal digits.
        specimens: the specimen of each; None without `data.group`.

    Raises:
        InputError: where there are too few images or specimens for each part to have one.
    """
    keys = [
        digest if specimen is None else hashlib.sha256(specimen.encode(errors="surrogateescape")).hexdigest()
        for digest, specimen in zip(digests, specimens, strict=True)
    ]
    order = sorted(set(keys), key=lambda key: (draw(key), key))
    count, least = len(order), 3 if data.validation else 2
    if count < least:
        what = "different images" if data.group is None else "specimens (data.group)"
        parts = " and ".join((*PARTS[:1], *PARTS[1 : least - 1], "test") if least == 3 else ("train", "test"))
        refuse("data.dir", f"{count} {what}", f"at least {least}, for {parts}; or data.split")
    tests = min(max(sum(draw(key) < data.test for key in order), 1), count - least + 1)
    others = order[tests:]
    if data.validation < 1:
        bound = data.test + (1 - data.test) * data.validation
        wanted = sum(draw(key) < bound for key in others)
    else:
        wanted, images = 0, 0
        while images < data.validation and wanted < len(others):
            images += keys.count(others[wanted])
            wanted += 1
    held_out = min(max(wanted, 1), len(others) - 1) if data.validation else 0
    part = dict.fromkeys(order, "train")
    part |= dict.fromkeys(order[:tests], "test") | dict.fromkeys(others[:held_out], "validation")
    return [part[key] for key in keys]
