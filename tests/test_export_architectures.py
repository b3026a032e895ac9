"""Every kind of architecture in every format, as a classifier and converted, run by its runtime in its own process."""

import pytest
from conftest import randomize
from test_models import SMALL

import zoo
from zoo.exported.formats import FORMATS

pytest.importorskip("tf2onnx")
SIDE = 65


@pytest.mark.extended
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", SMALL)
def test_every_architecture_gives_its_scores_in_every_format(kind, format, tmp_path):
    name, overrides = SMALL[kind]
    model = randomize(zoo.build(name, image_size=(SIDE, SIDE), **overrides))
    path = tmp_path / f"net{FORMATS[format].ending}"
    about = FORMATS[format].carried(zoo.export(zoo.convolutionalize(model), path, format=format))
    assert about.verified.error <= 1e-4 and about.image.dtype == "uint8"
    assert about.image.shape[:3] == (None, None, None) and len({shape[1:3] for shape in about.verified.images}) == 3


@pytest.mark.extended
@pytest.mark.parametrize("format", [name for name in FORMATS if name != "saved_model"])
@pytest.mark.parametrize("kind", ["nin", "v1", "groups", "squeezenet", "inception"])
def test_classifiers_keep_their_size_and_have_a_free_batch(kind, format, tmp_path):
    name, overrides = SMALL[kind]
    model = randomize(zoo.build(name, image_size=(SIDE, SIDE), **overrides))
    path = zoo.export(model, tmp_path / f"net{FORMATS[format].ending}", format=format)
    about = FORMATS[format].carried(path)
    assert about.image.shape[:3] == (None, SIDE, SIDE) and {shape[0] for shape in about.verified.images} == {1, 2}
