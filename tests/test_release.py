"""A release is one command, and all of it or nothing; the files that say what the package is agree."""

import datetime
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from zoo.shipped import index

ROOT = Path(__file__).resolve().parents[1]
FILES = ("pyproject.toml", "CITATION.cff", "CHANGELOG.md")
DAY = datetime.date(2027, 1, 2)
NEWER = "99.0.0"

_spec = importlib.util.spec_from_file_location("release", ROOT / "packaging" / "release.py")
release = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(release)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the three files, one change that was not released, and builds that are taken as checked."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in FILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        if name == "CHANGELOG.md":
            text = text[: text.index("## Unreleased")] + "## Unreleased\n\n- A change.\n\n## 0.1.0\n\nThe first.\n"
        (folder / name).write_text(text, encoding="utf-8")
    for key, value in {"NAME": "A. Person", "EMAIL": "person@example.org"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    for words in ("init -q -b main", "add .", "commit -q -m one"):
        release.git(*words.split(), folder=folder)

    def build(copy, dist):
        dist.mkdir()
        files = [dist / f"{kind}-{release.version_of((copy / 'pyproject.toml').read_text())}" for kind in "abc"]
        for file in files:
            file.touch()
        return tuple(files)

    monkeypatch.setattr(release, "ROOT", folder)
    monkeypatch.setattr(release, "build", build)
    monkeypatch.setattr(release, "check_contents", lambda *_: None)
    monkeypatch.setattr(release, "check_installed", lambda *_: None)
    return folder


def state(folder):
    """What a release changes: the files, commits, tags and copies."""
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    return texts, release.git("log", "--oneline"), release.git("tag"), release.git("worktree", "list")


def test_a_release_is_a_commit_a_tag_and_what_was_checked(checkout, capsys):
    release.release(NEWER, True, DAY)
    assert release.version_of((checkout / "pyproject.toml").read_text()) == NEWER
    cited = yaml.safe_load((checkout / "CITATION.cff").read_text())
    assert (cited["version"], cited["date-released"]) == (NEWER, DAY)
    changes = (checkout / "CHANGELOG.md").read_text()
    assert changes.endswith(f"## Unreleased\n\n## {NEWER}, {DAY}\n\n- A change.\n\n## 0.1.0\n\nThe first.\n")
    assert release.git("log", "-1", "--format=%s").strip() == f"Release {NEWER}"
    assert release.git("tag", "--points-at", "HEAD").strip() == f"v{NEWER}"
    assert {path.name for path in (checkout / "dist").iterdir()} == {f"{kind}-{NEWER}" for kind in "abc"}
    assert "twine upload dist/a-" in capsys.readouterr().out
    with pytest.raises(release.Refused, match=r"CHANGELOG.md: has nothing under|not committed"):
        release.release("99.0.1", True, DAY)


@pytest.mark.parametrize(
    ("version", "change", "why"),
    [
        ("new", None, "VERSION: received 'new'; accepted: such as 0.2.0"),
        ("0.0.1", None, "VERSION: received 0.0.1; accepted: "),
        ("99.0", "tag", "VERSION: received 99.0, which has a tag"),
        ("99.0-1", None, r"in its normal form \(99.0.post1\)"),
        ("0.1.0", None, "has a part '## 0.1.0' already"),
        (NEWER, "dirty", "changes that are not committed"),
        (NEWER, "installed", "the wheel: cannot be used"),
    ],
)
def test_what_is_refused_or_fails_leaves_everything_as_it_was(checkout, monkeypatch, version, change, why):
    if change == "tag":
        release.git("tag", f"v{version}")
    if change == "dirty":
        (checkout / "pyproject.toml").write_text((checkout / "pyproject.toml").read_text() + "\n")
    if change == "installed":

        def fails(*_):
            raise release.Refused("the wheel: cannot be used")

        monkeypatch.setattr(release, "check_installed", fails)
    before = state(checkout)
    with pytest.raises(release.Refused, match=why):
        release.release(version, True, DAY)
    assert state(checkout) == before and not (checkout / "dist").exists()


def test_a_check_alone_commits_nothing(checkout):
    before = state(checkout)
    release.release(NEWER, False, DAY)
    assert state(checkout) == before and not (checkout / "dist").exists()


def test_an_archive_without_a_file_of_the_repository_is_refused(checkout, tmp_path, monkeypatch):
    monkeypatch.undo()
    archive = tmp_path / "package-1.tar.gz"
    subprocess.run(["tar", "czf", archive, "--transform", "s,^,package-1/,", *FILES[:2]], cwd=checkout, check=True)
    with pytest.raises(release.Refused, match=r"package-1.tar.gz: has not CHANGELOG.md and 0 more"):
        release.check_contents(checkout, archive, archive, archive)


def test_what_cites_the_package_is_of_its_version_and_licence():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["version"] == PROJECT["version"] and cited["license"] == PROJECT["license"]


def test_every_data_set_and_picture_is_named_with_its_licence():
    notice = " ".join((ROOT / "NOTICE").read_text(encoding="utf-8").split())
    for name, source in index().data.items():
        assert f"{name}: " in notice and f"{source.url}; licence: {source.licence}" in notice
    for path in (ROOT / "docs" / "images").glob("*.jpg"):
        assert path.name in notice


def test_the_public_ci_runs_the_one_command_on_every_python_of_the_package():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"] == "bash .ci/run"
    named = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each}
    assert set(job["strategy"]["matrix"]["python"]) == named


@pytest.mark.slow
def test_the_last_commit_could_be_released(tmp_path):
    """Builds and installs three times, from the package index."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    command = [sys.executable, "packaging/release.py", NEWER, "--check"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("installed, and used") == 3
