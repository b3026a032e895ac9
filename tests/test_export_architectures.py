"""Every kind of architecture in the format of every runtime, converted and as a classifier, run in its own process."""

import pytest
from conftest import randomize
from test_models import SMALL

import zoo
from zoo.exported.formats import FORMATS
from zoo.exported.onnx_file import Onnx, OnnxFile

pytest.importorskip("tf2onnx")
SIDE = 65
# A format that packs an ONNX file runs as that does.
OF_RUNTIMES = [name for name, kind in FORMATS.items() if isinstance(kind, Onnx) or not isinstance(kind, OnnxFile)]
# One of each family and block: in every format; the others, of the same layers, in the quickest.
FIRST = ["nin", "v1", "groups", "squeezenet", "inception"]


@pytest.mark.parametrize(
    ("kind", "format"),
    [
        pytest.param(kind, name, marks=pytest.mark.extended if kind in FIRST or name == "onnx" else pytest.mark.slow)
        for kind in SMALL
        for name in OF_RUNTIMES
    ],
)
def test_every_architecture_gives_its_scores_in_every_format(kind, format, tmp_path):
    name, overrides = SMALL[kind]
    model = randomize(zoo.build(name, image_size=(SIDE, SIDE), **overrides))
    path = tmp_path / f"net{FORMATS[format].ending}"
    about = FORMATS[format].carried(zoo.export(zoo.convolutionalize(model), path, format=format))
    assert about.verified.error <= 1e-4 and about.image.dtype == "uint8"
    assert about.image.shape[:3] == (None, None, None) and len({shape[1:3] for shape in about.verified.images}) == 3


@pytest.mark.extended
@pytest.mark.parametrize("format", [name for name in OF_RUNTIMES if name != "saved_model"])
@pytest.mark.parametrize("kind", ["nin", "inception"])
def test_classifiers_keep_their_size_and_have_a_free_batch(kind, format, tmp_path):
    name, overrides = SMALL[kind]
    model = randomize(zoo.build(name, image_size=(SIDE, SIDE), **overrides))
    path = zoo.export(model, tmp_path / f"net{FORMATS[format].ending}", format=format)
    about = FORMATS[format].carried(path)
    assert about.image.shape[:3] == (None, SIDE, SIDE) and {shape[0] for shape in about.verified.images} == {1, 2}
