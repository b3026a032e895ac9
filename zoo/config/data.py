"""The schema of the data section: where images and labels come from, and how they are divided."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from zoo.config.sources import SOURCES, TFDS, DataSource
from zoo.errors import quoted
from zoo.schema import Added, Pattern, Schema, problem


class DataConfig(Schema):
    """Where the images come from; `SOURCES` of `zoo.config.sources` says which keys mean something to which source.

    `name`: digits (bundled), npz, image_folder, scenes, or any image classification set of tensorflow-datasets.
    `dir`: the folder of tensorflow-datasets (default: the environment's TFDS_DATA_DIR), the image folder, or the
    .npz file. `validation`: what is carved from the training images, a share below 1 or a number of images; 0 trains
    on everything; not used where an image folder has val/, valid/ or validation/ beside train/ and test/. `test`: the
    share that an image folder without train/ and test/ holds back, by content hash.
    `group`: a regular expression that names the specimen (patient, slide, field) of each file of an image folder. It is
    searched in the file's path below `dir`, class folder included, with / between folders (`train/cat/p7_003.png`); its
    first group, else its whole match, is the specimen's name. Whole specimens are then held back for validation and
    testing, the latter by a hash of their names.
    `resize`: scale images to the model's size instead of cropping or padding them. `unreadable`: what to do about
    files of an image folder that cannot be decoded; "skip" leaves them out, and names them in evaluation.json.
    `background`: the class that stands for nothing, which is no winner, no object and no share of a scan: one of the
    folders of an image folder; of scenes what no object lies in, named "background" where this is null; where objects
    are counted, there is none.

    The rest is of scenes, large images with labelled objects in them, all those below `dir`. Whole images are held back
    for testing and validation, by content hash, or whole specimens (`group`). `labels`: a .csv, .json or .geojson file,
    or a folder of files named as the images are, each with one image's boxes, points, polygons or mask. `scale`: what
    images are scaled by before the model sees them. `pixel_size`: the size in micrometres that a pixel is scaled to, of
    images whose files state theirs; instead of `scale`. `tolerance`: how far, in pixels of the given image, a place may
    lie from an object that is a point and still be its; needed for points, unless they are counted. `split`: a .csv
    file with a row `image,split` for each image, split being train, validation or test. `unlabelled`: what an image
    without a label is: a fault, background alone, or left out. `marks`: a .csv file with a row `image,x,y,class` for
    each place of a training image at which a model was wrong, as the viewer writes it; an empty class is the
    background. Training puts weight on them; of an image without labels it is all that is known.
    """

    name: str
    dir: Annotated[Path, AfterValidator(Path.absolute)] | None = None
    validation: Annotated[float, Field(ge=0)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    group: Annotated[Pattern | None, Added()] = None
    resize: bool = False
    background: Annotated[str | None, Added()] = None
    labels: Annotated[Annotated[Path, AfterValidator(Path.absolute)] | None, Added()] = None
    scale: Annotated[Annotated[float, Field(gt=0, le=64)] | None, Added()] = None
    pixel_size: Annotated[Annotated[float, Field(gt=0)] | None, Added()] = None
    tolerance: Annotated[Annotated[float, Field(gt=0)] | None, Added()] = None
    split: Annotated[Annotated[Path, AfterValidator(Path.absolute)] | None, Added()] = None
    unlabelled: Annotated[Literal["refuse", "background", "skip"], Added()] = "refuse"
    marks: Annotated[Annotated[Path, AfterValidator(Path.absolute)] | None, Added()] = None
    unreadable: Literal["refuse", "skip"] = "refuse"

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if self.source.dir:
            self.given_dir()
        elif self.dir is not None and self.source is SOURCES["digits"]:
            raise problem(f"received {quoted(str(self.dir))}; accepted for data.name = {self.name}: null", "dir")
        if self.scale is not None and self.pixel_size is not None:
            raise problem(f"received {self.scale:g} beside pixel_size = {self.pixel_size:g}; accepted: one", "scale")
        if self.validation >= 1 and self.validation != int(self.validation):
            text = f"received {self.validation}; accepted: a share below 1, or a whole number of images"
            raise problem(text, "validation")
        return self

    @property
    def source(self) -> DataSource:
        """What `name` names."""
        return SOURCES.get(self.name, TFDS)

    def given_dir(self) -> Path:
        """`dir`, for the sources that lie there; null is refused."""
        if self.dir is None:
            raise problem(f"received null; accepted for data.name = {self.name}: {self.source.dir}", "dir")
        return self.dir
