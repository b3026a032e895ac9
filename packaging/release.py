"""Make a release: from a clean checkout to a tag, and checked files in dist/, or nothing at all.

    pip install hatchling
    python packaging/release.py VERSION [--check]

In a copy of the last commit, VERSION is written to pyproject.toml, CITATION.cff and CHANGELOG.md, and the wheel, the
source archive and the wheel that scans without Keras are built. The archive has to hold the repository's files, the
wheels LICENSE and NOTICE; each of the three is then installed in an environment of its own, and used from an empty
folder: a training, a shipped net's conversion, scan and export. Where all of that holds, dist/ holds what was checked,
and the branch and a tag the new commit; what fails before leaves the checkout as it was. With `--check` nothing is
committed. Nothing is uploaded: the last lines say how.
"""

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
# Where the version stands, as a pattern with what is before it and after it; and the day in CITATION.cff.
VERSION_LINES = {
    "pyproject.toml": re.compile(r'(?m)^(version = ")[^"]+(")$'),
    "CITATION.cff": re.compile(r"(?m)^(version: ).+()$"),
}
DATE_LINE = re.compile(r"(?m)^(date-released: ).+()$")
UNRELEASED = re.compile(r"(?ms)^## Unreleased\n(?P<changes>.*?)(?=^## |\Z)")
# What a user does first: of the whole package, and of the wheel that scans alone, on what the whole one made.
FIRST_USES = (
    ("zoo", "train", "nin_digits", "train.epochs=1", "canvas=null", "--workdir", "run"),
    ("zoo", "convert", "nin_mnist_valid", "-o", "fcn.keras"),
    ("zoo", "scan", "fcn.keras", "image.png", "-o", "scanned"),
    ("zoo", "export", "fcn.keras", "-o", "fcn.onnx", "--format", "onnx"),
)
SCAN_USES = (("zoo", "scan", "fcn.onnx", "image.png", "-o", "scanned"),)


class Refused(Exception):
    """Why there is no release."""


def git(*words: str, folder: Path | None = None) -> str:
    """What a git command prints, of the checkout itself without a folder."""
    done = subprocess.run(["git", *words], cwd=folder or ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def check_checkout(version: str) -> None:
    """Refuse a version that is none, is not newer or has a tag, and a checkout that differs from its commit."""
    try:
        wanted = Version(version)
    except InvalidVersion:
        raise Refused(f"VERSION: received {version!r}; accepted: such as 0.2.0") from None
    current = version_of((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if wanted < Version(current) or str(wanted) != version:
        raise Refused(f"VERSION: received {version}; accepted: {current} or newer, in its normal form ({wanted})")
    if git("tag", "--list", f"v{version}").strip():
        raise Refused(f"VERSION: received {version}, which has a tag; accepted: a newer one")
    if changed := git("status", "--porcelain").strip():
        raise Refused(f"the checkout has changes that are not committed:\n{changed}")


def version_of(project: str) -> str:
    """The version that the text of a pyproject.toml states."""
    (line,) = VERSION_LINES["pyproject.toml"].finditer(project)
    return line[0].split('"')[1]


def write_version(folder: Path, version: str, today: datetime.date) -> None:
    """Write the version, and in the list of changes what was unreleased under it."""
    for name, pattern in VERSION_LINES.items():
        replace(folder / name, pattern, version)
    replace(folder / "CITATION.cff", DATE_LINE, str(today))
    file = folder / "CHANGELOG.md"
    text = file.read_text(encoding="utf-8")
    found = UNRELEASED.search(text)
    if found is None or not found["changes"].strip():
        raise Refused("CHANGELOG.md: has nothing under '## Unreleased'")
    if re.search(rf"(?m)^## {re.escape(version)}\b", text):
        raise Refused(f"CHANGELOG.md: has a part '## {version}' already; accepted: a newer version")
    head = f"## Unreleased\n\n## {version}, {today}\n"
    file.write_text(text[: found.start()] + head + found["changes"] + text[found.end() :], encoding="utf-8")


def replace(file: Path, pattern: re.Pattern, value: str) -> None:
    """Write a value into the one line that a pattern finds."""
    text, times = pattern.subn(rf"\g<1>{value}\g<2>", file.read_text(encoding="utf-8"))
    if times != 1:
        raise Refused(f"{file.name}: has {times} lines for {value}; accepted: one")
    file.write_text(text, encoding="utf-8")


def build(copy: Path, dist: Path) -> tuple[Path, Path, Path]:
    """The wheel, the source archive and the wheel that scans alone, built from a copy of the repository."""
    hatch = [sys.executable, "-m", "hatchling", "build", "-d", str(dist)]
    run([*hatch, "-t", "wheel", "-t", "sdist"], copy)
    (source,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    run([*hatch, "-t", "wheel"], copy / "packaging" / "scan")
    (scan,) = set(dist.glob("*.whl")) - {wheel}
    return wheel, source, scan


def check_contents(copy: Path, wheel: Path, source: Path, scan: Path) -> None:
    """Refuse a source archive that is not the repository, and wheels without licences."""
    with tarfile.open(source) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted(set(git("ls-files", folder=copy).splitlines()) - there - {".gitignore"})
    if missing:
        raise Refused(f"{source.name}: has not {', '.join(missing[:3])} and {max(0, len(missing) - 3)} more")
    for each in (wheel, scan):
        with zipfile.ZipFile(each) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        if not {"LICENSE", "NOTICE"} <= names:
            raise Refused(f"{each.name}: has not both of LICENSE and NOTICE")


def check_installed(wheel: Path, source: Path, scan: Path, version: str, folder: Path) -> None:
    """Install each in a fresh environment, and use it from an empty folder."""
    for file, uses in ((source, FIRST_USES), (wheel, FIRST_USES), (scan, SCAN_USES)):
        place = folder / file.name
        environment, empty = place / "environment", place / "empty"
        run([sys.executable, "-m", "venv", str(environment)], folder)
        programs = environment / ("Scripts" if os.name == "nt" else "bin")
        run([str(programs / "python"), "-m", "pip", "install", "-q", f"{file}[onnx]"], folder)
        empty.mkdir()
        make_image = "from PIL import Image; Image.effect_noise((90, 60), 50).save('image.png')"
        run([str(programs / "python"), "-c", make_image], empty)
        if file == scan:
            shutil.copy(folder / wheel.name / "empty" / "fcn.onnx", empty)
        printed = run([str(programs / "zoo"), "--version"], empty)
        if version not in printed.split():
            raise Refused(f"{file.name}: says {printed.strip()!r}, and is {version}")
        for program, *words in uses:
            run([str(programs / program), *words], empty)
        print(f"{file.name}: installed, and used", flush=True)


def run(command: list[str], folder: Path) -> str:
    """What a command prints; PYTHONPATH is not for it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"{' '.join(command)}\n{done.stdout}{done.stderr}".strip())
    return done.stdout


def release(version: str, commits: bool, today: datetime.date) -> None:
    """Build, check, and commit unless only a check is wanted."""
    check_checkout(version)
    with tempfile.TemporaryDirectory() as folder:
        copy, dist = Path(folder) / "copy", Path(folder) / "dist"
        git("worktree", "add", "--detach", str(copy), "HEAD")
        try:
            write_version(copy, version, today)
            files = build(copy, dist)
            check_contents(copy, *files)
            check_installed(*files, version, Path(folder))
            if not commits:
                return
            git("commit", "--all", "-m", f"Release {version}", folder=copy)
            shutil.copytree(dist, ROOT / "dist", dirs_exist_ok=True)
            git("merge", "--ff-only", git("rev-parse", "HEAD", folder=copy).strip())
        finally:
            git("worktree", "remove", "--force", str(copy))
    git("tag", "-a", f"v{version}", "-m", f"Release {version}")
    names = " ".join(f"dist/{each.name}" for each in files)
    print(f"committed and tagged; to publish:\n  git push --follow-tags\n  twine upload {names}")


def main() -> None:
    """Make a release, or say why there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("--check", action="store_true", help="build and check, and commit nothing")
    options = parser.parse_args()
    try:
        release(options.version, not options.check, datetime.date.today())
    except Refused as error:
        raise SystemExit(f"no release: {error}") from None


if __name__ == "__main__":
    main()
