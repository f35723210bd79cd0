"""Archives of the official layout, and archives made to do harm."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from slicedet.errors import CorruptFile, SlicedetError, UnsafeFile
from slicedet.models import unpacking
from slicedet.models.unpacking import unpack

FILES = {"inference.json": b"{}", "inference.pdiparams": bytes(range(256)) * 40, "inference.yml": b"mode: paddle\n"}


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return path


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("top", ["", "./", "PP-YOLOE_plus_SOD-S_infer/", "./PP-YOLOE_plus_SOD-S_infer/"])
def test_tar_archives_of_the_official_layout(tmp_path: Path, mode: str, top: str) -> None:
    folders = [member(top, kind=tarfile.DIRTYPE)] if top else []
    archive = tarred(tmp_path / "a.tar", *folders, *(member(top + name, FILES[name]) for name in FILES), mode=mode)
    unpack(archive, tmp_path / "model")
    assert content(tmp_path / "model") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "model"]


def test_zip_archives_and_what_macos_adds(tmp_path: Path) -> None:
    litter = [("__MACOSX/model/._inference.yml", b"x"), ("model/.DS_Store", b"x"), ("._model", b"x")]
    archive = zipped(tmp_path / "a.zip", ("model/", b""), *((f"model/{name}", FILES[name]) for name in FILES), *litter)
    unpack(archive, tmp_path / "model")
    assert content(tmp_path / "model") == FILES


def refused(archive: Path, kind: type[SlicedetError], message: str = "a") -> None:
    before = content(archive.parents[1])
    with pytest.raises(kind, match=message) as error:
        unpack(archive, archive.parent / "model")
    assert str(error.value).startswith(str(archive))
    assert "\n" not in str(error.value)
    assert content(archive.parents[1]) == before
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "cache"
    folder.mkdir(parents=True)
    return folder / "a.tar"


PATHS = ["../out", "a/../../out", "/tmp/out", "a\\..\\out", "C:out", "..", "a/..", "a\nb", "a\x1b[2J", "a. "]


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_lead_out_are_refused(place: Path, name: str) -> None:
    refused(tarred(place, member("good", b"x"), member(name, b"harm")), UnsafeFile, "not a path within")


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/tmp/out", "a\\..\\out", "C:out", "a\x1b[2J"])
def test_so_are_those_in_zip_archives(place: Path, name: str) -> None:
    refused(zipped(place, ("good", b"x"), (zipfile.ZipInfo(name), b"harm")), UnsafeFile, "not a path within")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symbolic", "hard", "character", "block", "fifo"],
)
def test_links_and_devices_are_refused(place: Path, kind: bytes) -> None:
    harm = member("inference.yml", kind=kind, link="/etc/passwd")
    refused(tarred(place, member("good", b"x"), harm), UnsafeFile, "link, device")


def test_a_link_followed_by_a_file_through_it_is_refused(place: Path) -> None:
    members = [member("way", kind=tarfile.SYMTYPE, link="../.."), member("way/out", b"harm")]
    refused(tarred(place, *members), UnsafeFile, "link")


def test_symbolic_links_in_zip_archives_are_refused(place: Path) -> None:
    link = zipfile.ZipInfo("inference.yml")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    refused(zipped(place, (link, b"/etc/passwd")), UnsafeFile, "link")


def test_names_twice_are_refused(place: Path) -> None:
    refused(tarred(place, member("a", b"x"), member("a", b"y")), UnsafeFile, "twice")
    refused(tarred(place, member("a", b"x"), member("A", b"y")), UnsafeFile, "twice")


def test_too_many_files_are_refused(place: Path) -> None:
    many = (member(f"{number}", b"x") for number in range(unpacking.MAX_FILES + 1))
    refused(tarred(place, *many), UnsafeFile, "more than 1000")


def test_archives_that_would_fill_the_disk_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge, _ = member("huge")
    huge.size = 1 << 40
    place.write_bytes(huge.tobuf())  # Its header alone claims a terabyte.
    refused(place, UnsafeFile, "more than 4.3 GB")
    monkeypatch.setattr(unpacking, "MAX_BYTES", 1 << 20)
    zeros = bytes(1 << 20)
    refused(tarred(place, member("a", zeros), member("b", b"x"), mode="w:gz"), UnsafeFile, "more than")
    refused(zipped(place, ("a", zeros), ("b", b"x")), UnsafeFile, "more than")


def test_a_zip_that_holds_more_than_it_says_gives_no_more(place: Path) -> None:
    zipped(place, ("a", bytes(100_000)))
    understated = place.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    place.write_bytes(understated)
    refused(place, CorruptFile)


def test_encrypted_members_are_said(place: Path) -> None:
    zipped(place, ("a", b"secret"))
    data = bytearray(place.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    place.write_bytes(data)
    refused(place, CorruptFile, "encrypted|password")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_archives_cut_anywhere_are_damaged(place: Path, mode: str, share: float) -> None:
    tarred(place, *(member(name, FILES[name]) for name in FILES), mode=mode)
    data = place.read_bytes()
    end = len(data) if mode == "w:gz" else len(data.rstrip(b"\0")) + 512
    place.write_bytes(data[: int(end * share)])
    refused(place, CorruptFile, "not a whole archive")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_compressed_archives_with_a_byte_changed_are_damaged(place: Path, mode: str, share: float) -> None:
    tarred(place, *(member(name, FILES[name]) for name in FILES), mode=mode)
    data = bytearray(place.read_bytes())
    data[int(len(data) * share)] ^= 0x55
    place.write_bytes(data)
    refused(place, CorruptFile, "not a whole archive")


def test_what_follows_the_end_of_a_tar_is_bounded(place: Path) -> None:
    tarred(place, member("a", b"x"), mode="w:gz")
    data = gzip.decompress(place.read_bytes())
    place.write_bytes(gzip.compress(data + bytes(unpacking.MAX_PADDING)))
    refused(place, UnsafeFile, "goes on after its end")


def test_a_tar_cut_between_two_members_is_damaged(place: Path) -> None:
    tarred(place, member("a", b"x" * 512), member("b", b"y"))
    place.write_bytes(place.read_bytes()[:1024])
    refused(place, CorruptFile, "unexpected end")


@pytest.mark.parametrize(
    "data", [b"<html></html>", b"PK\x05\x06" + bytes(18), bytes(10240), b"\x1f\x8b\x08" + b"x" * 99]
)
def test_what_is_no_archive_is_said(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    refused(place, CorruptFile)


def test_what_is_skipped_counts(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.bz2"
    large = tarfile.TarInfo("__MACOSX/a")
    large.size = unpacking.MAX_LITTER + 1
    with tarfile.open(archive, "w:bz2") as made:
        made.addfile(large, io.BytesIO(bytes(large.size)))
    with pytest.raises(UnsafeFile, match="that are no content"):
        unpack(archive, tmp_path / "model")
    many = tarred(tmp_path / "many.tar", *(member("./", kind=tarfile.DIRTYPE) for _ in range(unpacking.MAX_FILES + 1)))
    with pytest.raises(UnsafeFile, match="more than 1000 files"):
        unpack(many, tmp_path / "model")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
def test_headers_are_not_read_at_any_length(kind: bytes, tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 600 << 20
    archive = tmp_path / "a.tar"
    archive.write_bytes(header.tobuf(tarfile.GNU_FORMAT))  # What it announces need not follow.
    with pytest.raises(UnsafeFile, match=r"where a name is expected|sparse file"):
        unpack(archive, tmp_path / "model")


def test_long_names_are_read(tmp_path: Path) -> None:
    names = ["a" * 150 + "/" + "b" * 150, "x"]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as made:
            for name in names:
                info, data = member(name, b"x")
                made.addfile(info, io.BytesIO(data))
        unpack(tmp_path / "a.tar", tmp_path / f"model{form}")
        assert content(tmp_path / f"model{form}") == dict.fromkeys(names, b"x")


def test_a_file_in_the_place_of_a_folder_is_damage(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar", member("a", b"x"), member("a/b", b"x"))
    with pytest.raises(CorruptFile, match=r"a\.tar: not a whole archive"):
        unpack(archive, tmp_path / "model")
