"""The cache: what comes into it, and what is done about what changed in it."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host import Host, broken_off, redirect, send, silent, status

from slicedet.errors import (
    CorruptFile,
    DownloadError,
    InvalidSetting,
    MissingWeights,
    SlicedetError,
    UnsafeFile,
)
from slicedet.models import cache, catalogue
from slicedet.models.config import Download, ModelConfig
from slicedet.models.download import Patience

QUICK = Patience(timeout=0.5, attempts=2, backoff=0.01)
MODEL = {"inference.json": b"{}", "inference.pdiparams": os.urandom(400_000), "inference.yml": b"mode: paddle\n"}
PARAMETERS = pickle.dumps({"weight": np.arange(50_000, dtype=np.float32)}, 4)
ONNX = b"\x08\x07" + os.urandom(100_000)
TAR = "/PP-YOLOE_plus_SOD-S_infer.tar"


def official_tar(top: str = "PP-YOLOE_plus_SOD-S_infer/", **files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in (files or MODEL).items():
            info = tarfile.TarInfo(top + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def sod(host: Host, home: Path) -> ModelConfig:
    """PP-YOLOE+ SOD-S, its official files on a server here."""
    host.files |= {TAR: official_tar(), "/sod.pdparams": PARAMETERS, "/sod.onnx": ONNX}
    downloads = {
        "paddle": Download(host.url + TAR),
        "pdparams": Download(f"{host.url}/sod.pdparams"),
        "onnx": Download(f"{host.url}/sod.onnx"),
    }
    return replace(catalogue.find("PP-YOLOE_plus_SOD-S"), downloads=downloads)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(kind: type[SlicedetError], message: str, call: Any, *arguments: Any, **settings: Any) -> str:
    with pytest.raises(kind, match=message) as error:
        call(*arguments, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_official_archive_is_pulled_once(sod: ModelConfig, host: Host, home: Path) -> None:
    assert cache.find(sod) is None
    folder = cache.pull(sod)
    assert folder == home / "models" / sod.name / "PP-YOLOE_plus_SOD-S_infer"
    assert content(folder) == MODEL
    assert cache.pull(sod) == folder
    assert cache.find(sod) == folder
    assert len(host.requests) == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", folder.name, f"{folder.name}.tar.json"]
    record = json.loads((folder.parent / f"{folder.name}.tar.json").read_text())
    assert (record["url"], record["size"]) == (host.url + TAR, len(host.files[TAR]))
    assert sorted(record["files"]) == sorted(MODEL)


@pytest.mark.parametrize(("kind", "data"), [("pdparams", PARAMETERS), ("onnx", ONNX)])
def test_single_files_are_pulled_once(sod: ModelConfig, host: Host, home: Path, kind: str, data: bytes) -> None:
    path = cache.pull(sod, kind)
    assert (path.name, path.read_bytes()) == (f"sod.{kind}", data)
    assert cache.find(sod, kind) == path == cache.pull(sod, kind)
    assert cache.find(sod) == path  # Though the archive comes first.
    assert len(host.requests) == 1


def test_what_broke_off_is_resumed(sod: ModelConfig, host: Host) -> None:
    host.answers[TAR] = [broken_off(100_000)]
    steps: list[int] = []
    assert content(cache.pull(sod, progress=lambda done, total: steps.append(done), patience=QUICK)) == MODEL
    assert host.ranges() == [None, "bytes=100000-"]
    assert steps[-1] == len(host.files[TAR])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (status(404), "HTTP 404"),
        (status(500), "HTTP 500"),
        (silent(0.6), "no answer in time"),
        (redirect("ftp://127.0.0.1/x"), "redirects from http to ftp"),
        (lambda request, body: send(request, 200, body[:9], Content_Length=len(body)), "broke off after 9 of"),
    ],
    ids=["404", "500", "silent", "ftp", "short"],
)
def test_what_cannot_be_had_is_said_with_what_to_put_where(
    sod: ModelConfig, host: Host, home: Path, answer: Any, message: str
) -> None:
    host.answers[TAR] = [answer] * 2
    line = said(DownloadError, message, cache.pull, sod, patience=QUICK)
    assert host.url + TAR in line
    assert str(home / "models" / sod.name / TAR[1:]) in line
    assert cache.find(sod) is None


def lying(size: int) -> Any:
    return lambda request, body: send(request, 200, body, Content_Length=size)


@pytest.mark.parametrize("kind", ["paddle", "pdparams"])
def test_a_server_that_announces_too_little_leaves_nothing_behind(
    sod: ModelConfig, host: Host, home: Path, kind: str
) -> None:
    path = TAR if kind == "paddle" else "/sod.pdparams"
    host.answers[path] = [lying(100_000)]
    said(CorruptFile, "not a whole archive" if kind == "paddle" else "not a .pdparams file", cache.pull, sod, kind)
    assert list(content(home)) == [f"models/{sod.name}/.lock"]
    cache.pull(sod, kind)


@pytest.mark.parametrize(
    ("kind", "data", "error"),
    [
        ("paddle", b"wrong bytes", CorruptFile),
        ("paddle", official_tar(**{"readme.txt": b"no model"}), CorruptFile),
        ("paddle", official_tar(top="../", **MODEL), UnsafeFile),
        ("pdparams", b"wrong bytes", CorruptFile),
        ("pdparams", b"cos\nsystem\n(S'touch harm'\ntR.", UnsafeFile),
        ("onnx", b"wrong bytes", CorruptFile),
    ],
)
def test_wrong_bytes_do_not_stay(
    sod: ModelConfig, host: Host, home: Path, kind: str, data: bytes, error: type[SlicedetError]
) -> None:
    host.files[TAR if kind == "paddle" else f"/sod.{kind}"] = data
    said(error, "refused|not a|no Paddle", cache.pull, sod, kind)
    assert list(content(home)) == [f"models/{sod.name}/.lock"]
    assert cache.find(sod, kind) is None


def test_published_sizes_and_checksums_are_checked(sod: ModelConfig, host: Host) -> None:
    download = sod.downloads["onnx"]
    said(
        DownloadError, "100,002 bytes, 5 were", cache.pull, replace(sod, downloads={"onnx": replace(download, size=5)})
    )
    wrong = replace(sod, downloads={"onnx": replace(download, sha256="0" * 64)})
    said(CorruptFile, "not the file it was", cache.pull, wrong)
    assert cache.find(wrong) is None


@pytest.mark.parametrize("harm", ["changed", "removed", "added"])
def test_an_unpacked_folder_that_changed_is_refused(sod: ModelConfig, harm: str) -> None:
    folder = cache.pull(sod)
    if harm == "changed":
        parameters = bytearray(MODEL["inference.pdiparams"])
        parameters[1000] ^= 1
        (folder / "inference.pdiparams").write_bytes(parameters)
    elif harm == "removed":
        (folder / "inference.pdiparams").unlink()
    else:
        (folder / "inference.pdmodel").write_bytes(b"another program")
    line = said(CorruptFile, "changed since|other files than", cache.find, sod)
    assert "slicedet models pull --force" in line
    said(CorruptFile, "changed since|other files than", cache.pull, sod)
    assert content(cache.pull(sod, force=True)) == MODEL


def test_a_file_that_changed_is_refused(sod: ModelConfig) -> None:
    path = cache.pull(sod, "onnx")
    path.write_bytes(ONNX[:-1] + b"x")
    said(CorruptFile, "changed since", cache.find, sod, "onnx")
    path.with_name("sod.onnx.json").write_text("no json")
    said(CorruptFile, "unreadable", cache.find, sod, "onnx")
    assert cache.pull(sod, "onnx", force=True).read_bytes() == ONNX


def test_force_keeps_what_is_there_where_the_download_fails(sod: ModelConfig, host: Host) -> None:
    folder, path = cache.pull(sod), cache.pull(sod, "onnx")
    host.files.clear()
    for kind in ("paddle", "onnx"):
        said(DownloadError, "HTTP 404", cache.pull, sod, kind, force=True)
    assert content(folder) == MODEL
    assert cache.find(sod, "onnx") == path


def test_another_file_of_the_same_url_is_not_taken_for_the_first(sod: ModelConfig, host: Host) -> None:
    path = cache.pull(sod, "onnx")
    path.unlink()
    host.files["/sod.onnx"] = new = b"\x08" + ONNX
    said(CorruptFile, "not the file it was", cache.pull, sod, "onnx")
    assert cache.pull(sod, "onnx", force=True).read_bytes() == new


def test_another_url_is_another_file(sod: ModelConfig, host: Host) -> None:
    cache.pull(sod, "onnx")
    host.files["/v2/sod.onnx"] = new = b"\x08" + ONNX
    moved = replace(sod, downloads={"onnx": Download(f"{host.url}/v2/sod.onnx")})
    assert cache.find(moved) is None
    host.answers["/v2/sod.onnx"] = [status(404)]
    said(DownloadError, "HTTP 404", cache.pull, moved)
    assert cache.find(sod, "onnx") is not None
    assert cache.pull(moved).read_bytes() == new


@pytest.mark.parametrize("call", [cache.find, cache.pull])
@pytest.mark.parametrize("kind", ["paddle", "pdparams", "onnx"])
def test_a_file_put_there_by_hand_counts(sod: ModelConfig, host: Host, home: Path, kind: str, call: Any) -> None:
    url = sod.downloads[kind].url
    place = home / "models" / sod.name / url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    place.write_bytes(host.files[f"/{place.name}"])
    found = call(sod, kind)
    assert found == cache.find(sod, kind)
    assert (content(found) == MODEL) if kind == "paddle" else found == place
    assert host.requests == []


def test_a_wrong_file_put_there_by_hand_stays_and_is_refused(sod: ModelConfig, home: Path) -> None:
    place = home / "models" / sod.name / "sod.pdparams"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"my only copy")
    for call in (cache.find, cache.pull):
        said(CorruptFile, "not a .pdparams file", call, sod, "pdparams")
    assert place.read_bytes() == b"my only copy"


def test_a_mirror_is_asked_instead(
    sod: ModelConfig, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host.files = {f"/mirror{TAR}": official_tar()}
    monkeypatch.setenv("SLICEDET_MODEL_MIRROR", f"{host.url}/mirror/")
    assert content(cache.pull(sod)) == MODEL
    assert [path for path, _ in host.requests] == [f"/mirror{TAR}"]
    monkeypatch.setenv("SLICEDET_MODEL_MIRROR", str(tmp_path / "folder"))
    line = said(DownloadError, "no such file in the mirror", cache.pull, sod, "onnx")
    assert sod.downloads["onnx"].url in line
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "sod.onnx").write_bytes(ONNX)
    assert cache.pull(sod, "onnx").read_bytes() == ONNX
    assert (tmp_path / "folder" / "sod.onnx").exists()
    assert len(host.requests) == 1
    monkeypatch.setenv("SLICEDET_MODEL_MIRROR", "ftp://example.org")
    said(InvalidSetting, "SLICEDET_MODEL_MIRROR", cache.pull, sod, "pdparams")


def test_what_there_is_not_is_said(sod: ModelConfig) -> None:
    said(MissingWeights, "no official pdmodel; there is paddle, pdparams, onnx", cache.pull, sod, "pdmodel")
    said(MissingWeights, "no official weights are known", cache.find, replace(sod, downloads={}))


def test_a_cache_that_cannot_be_written_is_said(
    sod: ModelConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLICEDET_HOME", str(tmp_path / "file"))
    said(DownloadError, "SLICEDET_HOME", cache.pull, sod)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/slicedet"),
        ("linux", {"XDG_CACHE_HOME": "/var/x"}, "/var/x/slicedet"),
        ("darwin", {}, "~/Library/Caches/slicedet"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/slicedet"),
        ("linux", {"SLICEDET_HOME": "~/mine"}, "~/mine"),
    ],
)
def test_home_is_the_platforms_cache_folder(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("SLICEDET_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.home() == Path(expected).expanduser()


PULL = """
import sys
from dataclasses import replace
from slicedet.models import cache, catalogue
from slicedet.models.config import Download
sod = catalogue.find("PP-YOLOE_plus_SOD-S")
print(cache.pull(replace(sod, downloads={"paddle": Download(sys.argv[1])})))
"""


def pulling(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def slowly(request: Any, body: bytes) -> None:
    send(request, 200, body[:200_000], Content_Length=len(body), ETag='"1"')
    time.sleep(1)
    request.wfile.write(body[200_000:])


def test_processes_that_pull_the_same_wait_for_each_other(sod: ModelConfig, host: Host) -> None:
    host.answers[TAR] = [slowly]
    processes = [pulling(host.url + TAR) for _ in range(4)]
    outputs = [process.communicate(timeout=30) for process in processes]
    assert {(out.strip(), err) for out, err in outputs} == {(str(cache.find(sod)), "")}
    assert len(host.requests) == 1


def test_a_process_that_is_killed_leaves_what_the_next_goes_on_with(sod: ModelConfig, host: Host, home: Path) -> None:
    host.answers[TAR] = [slowly]
    process = pulling(host.url + TAR)
    part = home / "models" / sod.name / f"{TAR[1:]}.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size >= 200_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part.parent / ".unpacking-x").mkdir()
    host.answers[TAR] = []
    assert content(cache.pull(sod)) == MODEL
    assert host.ranges() == [None, "bytes=200000-"]
    assert sorted(path.suffix for path in part.parent.iterdir()) == ["", "", ".json"]
