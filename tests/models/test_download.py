"""Downloads from a server on this machine that keeps its word, or does not."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from host import Host, broken_off, etag, redirect, send, silent, status, whole

from slicedet.errors import DownloadError
from slicedet.models.download import Patience, download

BODY = os.urandom(3_000_000)
QUICK = Patience(timeout=0.5, attempts=3, backoff=0.01)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "model.onnx"


@pytest.fixture(autouse=True)
def served(host: Host, target: Path) -> str:
    target.parent.mkdir()
    host.files["/model.onnx"] = BODY
    return f"{host.url}/model.onnx"


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def fails(url: str, target: Path, message: str, **settings: object) -> None:
    with pytest.raises(DownloadError, match=message) as error:
        download(url, target, patience=QUICK, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert not target.exists()


def test_a_file_comes_whole_with_progress(served: str, target: Path) -> None:
    steps: list[tuple[int, int]] = []
    download(served, target, len(BODY), lambda done, total: steps.append((done, total)), QUICK)
    assert target.read_bytes() == BODY
    assert steps == sorted(steps)
    assert steps[-1] == (len(BODY), len(BODY))
    assert left(target) == ["model.onnx"]


def test_what_broke_off_is_resumed(host: Host, served: str, target: Path) -> None:
    host.answers["/model.onnx"] = [broken_off(1_000_000), whole]
    steps: list[int] = []
    download(served, target, progress=lambda done, total: steps.append(done), patience=QUICK)
    assert target.read_bytes() == BODY
    assert host.ranges() == [None, "bytes=1000000-"]
    assert host.requests[1][1]["If-Range"] == etag(BODY)
    assert steps == sorted(steps)


def test_it_is_resumed_by_a_later_run(host: Host, served: str, target: Path) -> None:
    host.answers["/model.onnx"] = [broken_off(1_000_000), status(500), status(500), status(500)]
    fails(served, target, r"HTTP 500 .*\(3 attempts\)")
    assert left(target) == ["model.onnx.part", "model.onnx.part.json"]
    download(served, target, patience=QUICK)
    assert target.read_bytes() == BODY
    assert host.ranges()[-1] == "bytes=1000000-"


def test_last_modified_tells_whether_the_file_is_the_same(host: Host, served: str, target: Path) -> None:
    date = "Mon, 03 Aug 2026 10:00:00 GMT"
    parts = {"Content_Length": 2_000_000, "Content_Range": f"bytes 1000000-2999999/{len(BODY)}", "Last_Modified": date}
    host.answers["/model.onnx"] = [
        broken_off(1_000_000, ETag='W/"weak"', Last_Modified=date),
        lambda request, body: send(request, 206, body[1_000_000:], **parts),
    ]
    download(served, target, patience=QUICK)
    assert target.read_bytes() == BODY
    assert host.requests[1][1]["If-Range"] == date


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_begun_anew(
    host: Host, served: str, target: Path, heeds_if_range: bool
) -> None:
    new = BODY[::-1]
    part = f"bytes 1000000-{len(new) - 1}/{len(new)}"

    def stubborn(request: BaseHTTPRequestHandler, body: bytes) -> None:
        send(request, 206, new[1_000_000:], Content_Length=len(new) - 1_000_000, Content_Range=part, ETag=etag(new))

    host.answers["/model.onnx"] = [broken_off(1_000_000)] + ([] if heeds_if_range else [stubborn])
    download(served, target, None, lambda done, total: host.files.update({"/model.onnx": new}), QUICK)
    assert target.read_bytes() == new


def test_a_server_that_cannot_resume_sends_all_again(host: Host, served: str, target: Path) -> None:
    all_again = lambda request, body: send(request, 200, body, Content_Length=len(body))  # noqa: E731
    host.answers["/model.onnx"] = [broken_off(1_000_000), all_again]
    download(served, target, patience=QUICK)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("note", [None, "no json", '{"url": "http://other/", "validator": "x", "total": 3000000}'])
def test_remains_of_something_else_are_not_built_upon(host: Host, served: str, target: Path, note: str | None) -> None:
    target.with_name("model.onnx.part").write_bytes(b"x" * 1000)
    if note is not None:
        target.with_name("model.onnx.part.json").write_text(note)
    download(served, target, patience=QUICK)
    assert target.read_bytes() == BODY
    assert host.ranges() == [None]


def test_remains_longer_than_the_file_are_dropped(host: Host, served: str, target: Path) -> None:
    target.with_name("model.onnx.part").write_bytes(b"x" * (len(BODY) + 1))
    note = {"url": served, "validator": etag(BODY), "total": None}
    target.with_name("model.onnx.part.json").write_text(json.dumps(note))
    download(served, target, patience=QUICK)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("trouble", [500, 502, 503, 429, 408])
def test_troubles_that_pass_are_waited_out(host: Host, served: str, target: Path, trouble: int) -> None:
    host.answers["/model.onnx"] = [status(trouble), status(trouble), whole]
    download(served, target, patience=QUICK)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("trouble", [400, 401, 403, 404, 410])
def test_refusals_are_said_at_once(host: Host, served: str, target: Path, trouble: int) -> None:
    host.answers["/model.onnx"] = [status(trouble)]
    fails(served, target, f"model.onnx: HTTP {trouble}")
    assert len(host.requests) == 1


def test_a_silent_server_is_given_up(host: Host, served: str, target: Path) -> None:
    host.answers["/model.onnx"] = [silent(0.7)] * 3
    fails(served, target, r"no answer in time \(3 attempts\)")


def test_a_server_that_falls_silent_midway_is_asked_again(host: Host, served: str, target: Path) -> None:
    def stalls(request: BaseHTTPRequestHandler, body: bytes) -> None:
        broken_off(1_000_000)(request, body)
        silent(0.7)(request, body)

    host.answers["/model.onnx"] = [stalls]
    download(served, target, patience=QUICK)
    assert target.read_bytes() == BODY
    assert host.ranges() == [None, "bytes=1000000-"]


def test_a_server_that_always_breaks_off_is_given_up(host: Host, served: str, target: Path) -> None:
    broken = lambda request, body: send(request, 200, body[:10], Content_Length=len(body))  # noqa: E731
    host.answers["/model.onnx"] = [broken] * 3
    fails(served, target, r"broke off after 10 of 3,000,000 bytes \(3 attempts\)")


def test_attempts_that_bring_much_do_not_count(host: Host, target: Path) -> None:
    host.files["/large.onnx"] = large = os.urandom(9 << 20)

    def a_piece(request: BaseHTTPRequestHandler, body: bytes) -> None:
        first = int(request.headers.get("Range", "bytes=0-")[6:-1])
        place = f"bytes {first}-{len(body) - 1}/{len(body)}"
        code, extra = (206, {"Content_Range": place}) if first else (200, {})
        piece = body[first : first + (3 << 19)]
        send(request, code, piece, Content_Length=len(body) - first, ETag=etag(body), **extra)

    host.answers["/large.onnx"] = [a_piece] * 6
    download(f"{host.url}/large.onnx", target, patience=QUICK)
    assert target.read_bytes() == large
    assert len(host.requests) == 6


def test_a_size_other_than_published_is_refused(host: Host, served: str, target: Path) -> None:
    fails(served, target, "3,000,000 bytes, 77 were expected", size=77)
    lies = lambda request, body: send(request, 200, body, Content_Length=1000)  # noqa: E731
    host.answers["/model.onnx"] = [lies]
    fails(served, target, "1,000 bytes, 3,000,000 were expected", size=len(BODY))


def test_without_a_length_a_part_could_pass_for_the_whole(host: Host, served: str, target: Path) -> None:
    host.answers["/model.onnx"] = [lambda request, body: send(request, 200, body)] * 2
    fails(served, target, "states no length")
    download(served, target, len(BODY), patience=QUICK)
    assert target.read_bytes() == BODY


def test_absurd_lengths_are_refused(host: Host, served: str, target: Path) -> None:
    host.answers["/model.onnx"] = [lambda request, body: send(request, 200, b"", Content_Length=1 << 50)]
    fails(served, target, "more than is downloaded")


def test_a_login_page_is_no_model(host: Host, served: str, target: Path) -> None:
    page = b"<html>Please log in</html>"
    host.answers["/model.onnx"] = [
        lambda request, body: send(request, 200, page, Content_Length=len(page), Content_Type="text/html; charset=x")
    ]
    fails(served, target, "a web page")


def test_redirects_are_followed_within_the_web_only(host: Host, served: str, target: Path, tmp_path: Path) -> None:
    host.answers["/old.onnx"] = [redirect("/model.onnx")]
    download(f"{host.url}/old.onnx", target, patience=QUICK)
    assert target.read_bytes() == BODY
    target.unlink()
    (tmp_path / "secret").write_text("secret")
    for place in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/secret", "data:,secret"):
        host.answers["/old.onnx"] = [redirect(place)]
        fails(f"{host.url}/old.onnx", target, "redirects from http to ftp|is not allowed")
    host.answers["/loop.onnx"] = [redirect("/loop.onnx")] * 20
    fails(f"{host.url}/loop.onnx", target, "HTTP 302")


def test_what_cannot_be_reached_is_said(target: Path, host: Host) -> None:
    fails("http://no-such-host.invalid/model.onnx", target, "no-such-host.invalid/model.onnx: ")
    fails("http://127.0.0.1:9/model.onnx", target, "refused")
    fails(f"{host.url.replace('http:', 'https:')}/model.onnx", target, r"\(3 attempts\)")


def test_a_folder_that_is_not_there_is_said(served: str, tmp_path: Path) -> None:
    fails(served, tmp_path / "nowhere" / "model.onnx", "cannot be written")


def test_numbers_of_thousands_of_digits_are_none(host: Host, served: str, target: Path) -> None:
    digits = "9" * 5000
    host.answers["/model.onnx"] = [lambda request, body: send(request, 200, body, Content_Length=digits)]
    fails(served, target, "states no length")
    host.answers["/model.onnx"] = [lambda request, body: send(request, 206, body, Content_Range=f"bytes {digits}-1/5")]
    fails(served, target, "a part of the file that was not asked for")


@pytest.mark.parametrize("start", ["http://user:SECRET@127.0.0.1:1/a.onnx", "http://user:SECRET@[::1/a.onnx"])
def test_messages_and_notes_keep_secrets(start: str, host: Host, served: str, target: Path) -> None:
    with pytest.raises(DownloadError) as error:
        download(f"{start}?token=SECRET", target, patience=QUICK)
    assert "SECRET" not in str(error.value)
    host.answers["/model.onnx?token=SECRET"] = [status(404)]
    with pytest.raises(DownloadError, match=r"model\.onnx\?sha256=\w{12}: ") as error:
        download(f"{served}?token=SECRET", target, patience=QUICK)
    assert "SECRET" not in str(error.value)
    assert all(b"SECRET" not in path.read_bytes() for path in target.parent.iterdir())
