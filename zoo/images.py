from zoo.data.images import fit_image, read_image  # noqa
