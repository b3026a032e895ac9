"""The one reader: what the pixels of a file mean, read whole or region by region.

Nothing here knows a model or needs Keras or a backend: what a model takes is handed over as a plain object, `Wanted`.
Image folders, `predict`, `scan`, `regions`, `plot --cell`, `tile` and masks all read through it.
"""

from zoo.pictures.arrays import check_array as check_array
from zoo.pictures.arrays import check_finite as check_finite
from zoo.pictures.arrays import release as release
from zoo.pictures.decoding import decoders as decoders
from zoo.pictures.fitting import as_pixel as as_pixel
from zoo.pictures.fitting import fit_image as fit_image
from zoo.pictures.fitting import to_channels as to_channels
from zoo.pictures.folders import Listing as Listing
from zoo.pictures.folders import list_pictures as list_pictures
from zoo.pictures.masks import Mask as Mask
from zoo.pictures.masks import open_mask as open_mask
from zoo.pictures.others import other_files as other_files
from zoo.pictures.picture import Picture as Picture
from zoo.pictures.picture import is_picture as is_picture
from zoo.pictures.picture import open_picture as open_picture
from zoo.pictures.picture import read_image as read_image
from zoo.pictures.picture import read_picture as read_picture
from zoo.pictures.picture import read_whole as read_whole
from zoo.pictures.picture import stored_form as stored_form
from zoo.pictures.resizing import Resized as Resized
from zoo.pictures.resizing import at_size as at_size
from zoo.pictures.resizing import scaled_size as scaled_size
from zoo.pictures.tiling import write_tiled as write_tiled
from zoo.pictures.wanted import Choice as Choice
from zoo.pictures.wanted import Wanted as Wanted
