"""Labels of images, as files have them: points and boxes of tables, Pascal VOC, COCO, GeoJSON, masks.

A module here imports only from those before it: `written` (what a file says of an image), `lists` (.csv, .json and
.geojson), `voc` (.xml) and `masks` (images), each of which reads a file; `matching` (which image a name means);
`reading`, which finds the files and the images that they are of.
"""

from zoo.data.labels.matching import Names as Names
from zoo.data.labels.reading import Labels as Labels
from zoo.data.labels.reading import read_labels as read_labels
from zoo.data.labels.written import Written as Written
