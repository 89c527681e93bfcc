"""Push, pull and garbage collection: what is moved, what is verified, what is never deleted."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from curriculum_rows import make_recipe, questions, tree

from curriculum.build import build_phase
from curriculum.collecting import Found, collect_garbage, show_collection
from curriculum.transfer import CHECKSUMS, pull_version, push_version
from pipeline.errors import ConfigError, ManifestMismatch, SourceError, StoreError
from pipeline.manifest import Version, resolve_version
from pipeline.settings import Recipe, load_recipe


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Version]:
    folder = tmp_path_factory.mktemp("transfer")
    rows = [*questions(8), *questions(1)]
    recipe = make_recipe(folder / "r", ot2=rows, overrides=["curriculum.shard_rows=3"])
    return recipe, build_phase(recipe, "1", folder / "out")


@pytest.fixture(params=["disk", "file URL", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kinds = {
        "disk": str(tmp_path / "store"),
        "file URL": f"file://{tmp_path}/store",
        "memory": f"memory://{uuid4().hex}/phase-1",
    }
    return kinds[request.param]


def test_what_is_pulled_equals_what_was_pushed(
    built: tuple[Recipe, Version], url: str, tmp_path: Path
) -> None:
    version = built[1]
    sent = push_version(version, url)
    assert sent.num_moved == sent.num_files == len(tree(version.folder))
    assert push_version(version, url).num_moved == 0
    got = pull_version(url, tmp_path / "out")
    assert got.num_moved == sent.num_files
    assert tree(got.folder) == tree(version.folder)
    pulled = resolve_version(tmp_path / "out" / "datasets" / "phase-1")
    assert pulled.name == version.name
    assert pull_version(url, tmp_path / "out").num_moved == 0


def test_a_pushed_folder_is_a_dataset(built: tuple[Recipe, Version], tmp_path: Path) -> None:
    from datasets import load_dataset

    push_version(built[1], str(tmp_path / "store"))
    loaded = load_dataset(str(tmp_path / "store"), split="train", cache_dir=str(tmp_path / "c"))
    assert loaded["id"] == [row["id"] for row in built[1].rows(["id"])]


def test_interrupted_transfers_go_on(
    built: tuple[Recipe, Version], url: str, tmp_path: Path
) -> None:
    version = built[1]
    fs, root = fsspec.core.url_to_fs(url)
    push_version(version, url)
    shard, other = (shard.path for shard in version.manifest.shards[:2])
    # As if the push had been cut off: one file missing, another half written, no checksums.
    fs.rm(f"{root}/{CHECKSUMS}")
    fs.rm(f"{root}/{shard}")
    fs.pipe_file(f"{root}/{other}", fs.cat_file(f"{root}/{other}")[:-7])
    with pytest.raises(SourceError, match="no complete version"):
        pull_version(url, tmp_path / "out")
    assert push_version(version, url).num_moved == 2
    # As if the pull had been cut off: the store fails at one file.
    kept = fs.cat_file(f"{root}/{shard}")
    fs.rm(f"{root}/{shard}")
    with pytest.raises(StoreError, match="what was moved is kept"):
        pull_version(url, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("LATEST"))
    fs.pipe_file(f"{root}/{shard}", kept)
    got = pull_version(url, tmp_path / "out")
    assert got.num_moved < got.num_files
    assert tree(got.folder) == tree(version.folder)


def test_a_damaged_file_is_never_pushed_or_kept(
    built: tuple[Recipe, Version], url: str, tmp_path: Path
) -> None:
    version = built[1]
    copy = tmp_path / "phase-1" / version.name
    shutil.copytree(version.folder, copy)
    damaged = copy / version.manifest.shards[0].path
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + b"x")
    with pytest.raises(ManifestMismatch, match="differs from its checksum"):
        push_version(Version(folder=copy, manifest=version.manifest), url)
    damaged.unlink()
    with pytest.raises(ManifestMismatch, match="missing"):
        push_version(Version(folder=copy, manifest=version.manifest), url)
    push_version(version, url)
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/{version.manifest.shards[0].path}", data[:-1] + b"x")
    with pytest.raises(ManifestMismatch, match="differs from its checksum"):
        pull_version(url, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_checksums_cannot_write_elsewhere(built: tuple[Recipe, Version], tmp_path: Path) -> None:
    store = tmp_path / "store"
    push_version(built[1], str(store))
    sums = json.loads((store / CHECKSUMS).read_text(encoding="utf-8"))
    for key, value in (("folder", "../phase-1"), ("version", ".."), ("path", "../../x")):
        changed = json.loads(json.dumps(sums))
        if key == "path":
            changed["files"][0]["path"] = value
        else:
            changed[key] = value
        (store / CHECKSUMS).write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(ManifestMismatch, match="outside a version's folder"):
            pull_version(str(store), tmp_path / "out")
    (store / CHECKSUMS).write_text("{}", encoding="utf-8")
    with pytest.raises(ManifestMismatch, match="not a list of checksums"):
        pull_version(str(store), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_versions_never_share_a_place(
    built: tuple[Recipe, Version], url: str, tmp_path: Path
) -> None:
    recipe, version = built
    other = load_recipe(str(recipe.path), ["curriculum.num_workers=1", "seed=4"])
    push_version(version, url)
    with pytest.raises(StoreError, match=f"holds version {version.name}"):
        push_version(build_phase(other, "1", tmp_path / "out"), url)
    with pytest.raises(ConfigError, match="cannot reach nosuch://x"):
        push_version(version, "nosuch://x")


def deleted(found: list[Found], out: Path) -> set[str]:
    return {one.path.relative_to(out).as_posix() for one in found if not one.keeps}


def test_only_what_nothing_refers_to_is_deleted(
    built: tuple[Recipe, Version], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = str(built[0].path), tmp_path / "out"
    changes = ["seed=1", "seed=2", "seed=3", "curriculum.validation.max_chars=5000"]
    versions = []
    for age, change in enumerate(changes):
        recipe = load_recipe(path, ["curriculum.num_workers=1", change])
        versions.append(build_phase(recipe, "1", out))
        os.utime(versions[-1].folder / "manifest.json", (1e9 + age, 1e9 + age))
    first, second, third, newest = (f"datasets/phase-1/{v.name}" for v in versions)
    trained = out / "checkpoints" / "phase-1" / "training.json"
    trained.parent.mkdir(parents=True)
    trained.write_text(json.dumps({"dataset_version": versions[0].name}), encoding="utf-8")
    before = tree(out)
    found = collect_garbage(out, dry_run=True)
    assert deleted(found, out) == {second, third}
    assert tree(out) == before
    show_collection(found, dry_run=True)
    assert "would be deleted" in capsys.readouterr().out
    assert deleted(collect_garbage(out, keep=2), out) == {second}
    assert not (out / second).exists() and (out / third).is_dir()
    collect_garbage(out)
    # The trained version's preparation stays, although a newer one exists.
    prepared = {p.parent.name for p in out.glob("prepared/talk/*/manifest.json")}
    assert len(prepared) == 2
    trained.unlink()
    gone = deleted(collect_garbage(out), out)
    assert first in gone and len(gone) == 2
    assert [p.name for p in (out / "datasets" / "phase-1").iterdir() if p.is_dir()] == [
        versions[-1].name
    ]
    assert build_phase(
        load_recipe(path, ["curriculum.num_workers=1", changes[-1]]), "1", out
    ).reused
    assert newest not in gone


def test_nothing_is_deleted_while_a_build_runs_or_a_record_is_broken(
    built: tuple[Recipe, Version], tmp_path: Path
) -> None:
    path, out = str(built[0].path), tmp_path / "out"
    for seed in (1, 2):
        recipe = load_recipe(path, ["curriculum.num_workers=1", f"seed={seed}"])
        build_phase(recipe, "1", out)
    lock = out / "datasets" / "phase-1" / ".lock-build-x"
    with lock.open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another process"):
            collect_garbage(out)
    broken = out / "checkpoints" / "phase-1" / "training.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(ManifestMismatch, match="nothing was deleted"):
        collect_garbage(out)
    assert len(list(out.glob("datasets/phase-1/*/manifest.json"))) == 2


def test_unfinished_work_stays_unless_asked_for(
    built: tuple[Recipe, Version], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build_phase(built[0], "1", out)
    for name in (".staging-abc", ".trash-def"):
        (out / "prepared" / "talk" / name).mkdir()
        (out / "prepared" / "talk" / name / "part").write_text("x", encoding="utf-8")
    assert deleted(collect_garbage(out), out) == {"prepared/talk/.trash-def"}
    gone = deleted(collect_garbage(out, unfinished=True), out)
    assert gone == {"prepared/talk/.staging-abc"}
    assert not list(out.glob("prepared/talk/.*"))
