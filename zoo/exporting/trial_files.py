"""Files of images to try on what takes them, and what `zoo predict` gives for these."""

import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from zoo.evaluation import predict_files
from zoo.exported.image_bytes import FileForm
from zoo.network.network import Network

# max|a - b| / max|b| that is accepted, by the format of the files: decoders of JPEG may round otherwise.
FILE_TOLERANCE = {"PNG": 1e-4, "JPEG": 1e-3}
# Pillow's modes by format and channels, as many as there are sizes.
_MODES = {
    ("PNG", 3): ("RGB", "L", "P", "RGBA", "LA"),
    ("PNG", 1): ("L", "1", "LA", "L", "L"),
    ("JPEG", 3): ("RGB", "L", "RGB", "RGB", "RGB"),
    ("JPEG", 1): ("L",) * 5,
}


def trial_files(form: FileForm) -> dict[str, np.ndarray]:
    """Contents of files of noise of several sizes, below and above a form's: (n,) bytes, by their format.

    Neither format's files end in a zero byte, which NumPy would cut off.
    """
    from PIL import Image

    generator = np.random.default_rng(0)
    height, width = form.size
    sizes = ((height, width), (-(-height // 2), -(-width // 3)), (2 * height + 3, width + 1), (height + 2, 1), (1, 1))
    files = {}
    for kind in FILE_TOLERANCE:
        contents = []
        for size, mode in zip(sizes, _MODES[kind, form.channels], strict=True):
            noise = Image.fromarray(generator.integers(0, 256, (*size, 4), np.uint8))
            made = (noise.convert("RGB") if mode == "P" else noise).convert(mode)
            with BytesIO() as file:
                made.save(file, kind)
                contents.append(file.getvalue())
        files[kind] = np.array(contents)
    return files


def scores_of_files(network: Network, contents: Sequence[bytes]) -> np.ndarray:
    """What `zoo predict` gives for files, (n, K)."""
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as folder:
        paths = [Path(folder) / str(number) for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return np.stack([answer.scores for answer in predict_files(network.model, paths)])
