"""Objects of large images: as labelled, as labels of grid cells, as peaks of scores. Nothing here needs a backend."""
