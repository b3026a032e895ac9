"""The data sources, in one table: what reads each, what `data.dir` has to be, which keys of the data section it uses.

The schema needs the table and stands before the readers in the order of imports; so a reader is named in it, and
imported by `zoo.data` when it is used.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSource:
    """A data source.

    `name`: what `data.name` says. `reader`: the `zoo.data.splits.Reader` of it, as module:function. `dir`: what
    `data.dir` has to be, in an error's words; empty where the source does without. `keys`: those of the data section
    that mean something to this source and not to every one; given to another source they are refused. `name`, `dir`,
    `validation` and `resize` mean something to every one.
    """

    name: str
    reader: str
    dir: str = ""
    keys: tuple[str, ...] = ()


SOURCES = {
    each.name: each
    for each in (
        DataSource("digits", "zoo.data.arrays:read_digits"),
        DataSource("npz", "zoo.data.arrays:read_npz", "an .npz file"),
        DataSource(
            "image_folder",
            "zoo.data.folder:read_folder",
            "a folder with one folder a class",
            ("test", "group", "unreadable", "background"),
        ),
        DataSource(
            "scenes",
            "zoo.data.scenes:read_scenes",
            "a folder of images",
            (
                *("test", "group", "unreadable", "background"),
                *("labels", "scale", "pixel_size", "tolerance", "split", "unlabelled", "marks"),
            ),
        ),
    )
}
# What any other name is: a set of tensorflow-datasets, all of which share a folder.
TFDS = DataSource("tensorflow-datasets", "zoo.data.tfds:read_tfds")
