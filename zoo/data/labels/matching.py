"""Which image a name means that a file of labels or a table of splits gives."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PureWindowsPath

from zoo.classes import normal
from zoo.errors import InputError, listing
from zoo.pictures.box_forms import shared_parts, short


class Names:
    """Images by what files call them: paths below `data.dir`, of which a file may give more or less."""

    def __init__(self, images: Sequence[str]):
        """Take the paths of the images below their folder, with / between folders."""
        self._exact: dict[str, list[str]] = defaultdict(list)
        self._loose: dict[str, list[str]] = defaultdict(list)
        self._parts = {image: _parts(image) for image in images}
        for image, parts in self._parts.items():
            self._exact[parts[-1]].append(image)
            for end in {parts[-1].casefold(), PureWindowsPath(parts[-1]).stem.casefold()}:
                self._loose[end].append(image)

    def find(self, name: str) -> str | None:
        """The image that a name means, None where it is none of them.

        That has the same file name, or else the same one without its ending and in any case of letters; of several, the
        one that shares most of the path, from its end on.

        Raises:
            InputError: where several are alike for it.
        """
        parts = _parts(name)
        if not parts:
            return None
        last = PureWindowsPath(parts[-1])
        found = (
            self._exact.get(parts[-1])
            or self._loose.get(last.name.casefold())
            or self._loose.get(last.stem.casefold())
            or []
        )
        if len(found) > 1:
            shared = {image: shared_parts(parts[:-1], self._parts[image][:-1]) for image in found}
            found = [image for image in found if shared[image] == max(shared.values())]
        if len(found) > 1:
            raise InputError(
                f"image {short(name)}: may be {len(found)} of data.dir ({listing(found, 3)}); accepted: paths below "
                "data.dir where names are alike"
            )
        return found[0] if found else None


def _parts(name: str) -> tuple[str, ...]:
    """A path's parts, with slashes of either kind between them."""
    return PureWindowsPath(normal(name)).parts
