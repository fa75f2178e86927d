"""People who use the pages, in a real browser."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, Page, expect
from tests.ui.browser import READY, Site, site, with_key

KEY = "a-key-of-somebody-who-looks"

FILE = f"""
controller: {{port: 0, name: Echoes, api_keys: [{{key: {KEY}, name: eve}}]}}
components:
  - {{id: writer, type: model, task: text-generation, driver: echo}}
  - {{id: talker, type: model, task: chat-completion, driver: echo}}
  - {{id: mirror, type: model, task: image-upscale, driver: custom, family: mirror, model: ./none.pth}}
  - {{id: lost, type: model, task: text-generation, driver: echo, options: {{load_fails: no such weights}}}}
workflows:
  - {{id: write, title: Write, description: Says what it is told., default: true, job: {{component: writer}}}}
  - {{id: chat, title: Chat, job: {{component: talker}}}}
  - {{id: upscale, title: Upscale, job: {{component: mirror}}}}
  - id: judge
    title: Judge
    job:
      component: writer
      input: {{prompt: "${{input.text as text}}"}}
      output: {{label: good, score: 0.75, label_id: 1, probabilities: [0.25, 0.75]}}
  - id: numbers
    title: Numbers
    job:
      component: writer
      input: {{prompt: "${{input.text as text}}"}}
      output: [0.5, 0.25, 0.125, 0.5, 0.25, 0.125, 0.5, 0.25, 0.125, 0.5]
  - id: all
    title: All inputs
    job:
      component: writer
      input:
        prompt: >-
          ${{input.text as text | hello @(description What to say)}} ${{input.heat as slider/0,2,0.5 | 1}}
          ${{input.way as select/left,right | right}} ${{input.count as integer | 3}}
          ${{input.share as number}} ${{input.loud as boolean | true}} ${{input.more as json}}
          ${{input.names as list}}
"""


@pytest.fixture(scope="module")
def echoes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "none.pth").touch()
    with site(FILE, folder) as each:
        each.start(**WITH_KEY)
        yield each


pytestmark = [pytest.mark.browser, pytest.mark.timeout(200)]

WITH_KEY = with_key(KEY)
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, **WITH_KEY}


def png(width: int, height: int) -> bytes:
    """A picture of one colour. Source: https://www.w3.org/TR/png-3/"""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + b"\x40\x80\xc0" * width for _ in range(height)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def run(page: Page, label: str, text: str) -> None:
    page.get_by_label(label).fill(text)
    page.get_by_role("button", name="Run").click()


def test_a_key_is_asked_for(echoes: Site) -> None:
    context = echoes.browser.new_context()
    answer = context.request.get(f"{echoes.url}/ui/")
    assert answer.status == 401
    assert "Basic" in answer.headers["www-authenticate"]  # and so Chromium asks for a password
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        context.new_page().goto(f"{echoes.url}/ui/")
    context.close()


def test_a_key_that_is_typed_in_opens_the_pages(echoes: Site) -> None:
    context = echoes.browser.new_context(http_credentials={"username": "eve", "password": KEY})
    page = context.new_page()
    page.goto(f"{echoes.url}/")
    page.wait_for_selector(READY)
    assert page.title() == "Echoes"
    expect(page.get_by_role("heading", name="Write")).to_be_visible()
    expect(page.get_by_text("Says what it is told.")).to_be_visible()
    for name in ("Write", "Chat", "Upscale", "Judge", "All inputs", "Status"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    context.close()


def test_text_comes_as_it_is_made(echoes: Site, tmp_path: Path) -> None:
    with echoes.page(**WITH_KEY) as page:
        output = page.locator(".mc-text textarea")
        run(page, "prompt *", f"chunks:3 wait:{tmp_path}/one chunks:5 wait:{tmp_path}/two")
        expect(output).to_have_value("0 1 2 ")
        (run_of_eve,) = echoes.runs
        assert run_of_eve.owner == "eve"
        (tmp_path / "one").touch()
        expect(output).to_have_value("0 1 2 0 1 2 3 4 ")
        expect(page.get_by_role("button", name="Run")).to_be_disabled()
        (tmp_path / "two").touch()
        expect(output).to_have_value("0 1 2 3 4 ")  # the result of an echo: what it was told last
        expect(page.get_by_role("button", name="Run")).to_be_enabled()
        expect(page.locator(".mc-course")).to_contain_text("5 tokens")


def test_stop_ends_the_run_and_keeps_what_came(echoes: Site, tmp_path: Path) -> None:
    with echoes.page(**WITH_KEY) as page:
        run(page, "prompt *", f"chunks:3 wait:{tmp_path}/never")
        expect(page.locator(".mc-text textarea")).to_have_value("0 1 2 ")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".mc-course")).to_have_text("stopped")
        expect(page.locator(".mc-text textarea")).to_have_value("0 1 2 ")
        echoes.eventually(lambda: not echoes.runs, "the run ends")
        run(page, "prompt *", "again")
        expect(page.locator(".mc-text textarea")).to_have_value("again")


def test_a_page_that_is_closed_ends_its_run(echoes: Site, tmp_path: Path) -> None:
    with echoes.page(**WITH_KEY) as page:
        run(page, "prompt *", f"chunks:3 wait:{tmp_path}/never")
        expect(page.locator(".mc-text textarea")).to_have_value("0 1 2 ")
        assert len(echoes.runs) == 1
    echoes.eventually(lambda: not echoes.runs, "the run ends")


def test_progress_is_shown(echoes: Site, tmp_path: Path) -> None:
    with echoes.page(**WITH_KEY) as page:
        run(page, "prompt *", f"wait:{tmp_path}/go steps:4 wait:{tmp_path}/end")
        expect(page.locator(".mc-course")).to_contain_text("waiting")
        echoes.eventually(lambda: echoes.runs and echoes.runs[0]._watchers, "the run is watched")
        (tmp_path / "go").touch()
        expect(page.locator(".mc-course")).to_contain_text("step 4 of 4")
        (tmp_path / "end").touch()
        expect(page.locator(".mc-text textarea")).to_be_visible()


def test_an_error_is_told_with_what_to_do(echoes: Site) -> None:
    with echoes.page("w-all-inputs", **WITH_KEY) as page:
        page.get_by_text("More settings").click()
        run(page, "more", "{not json")
        expect(page.get_by_role("alert")).to_contain_text("`more` is not JSON")
        page.get_by_label("more").fill("")
        run(page, "count", "many")
        expect(page.get_by_role("alert")).to_contain_text("`count`: expected an integer, found `many`")
        page.get_by_label("count").fill("")
        run(page, "text", "fail")
        expect(page.get_by_role("alert")).to_contain_text("not in the mood")
        expect(page.get_by_role("button", name="Run")).to_be_enabled()


def test_what_is_missing_is_told_by_the_service(echoes: Site) -> None:
    with echoes.page("w-upscale", **WITH_KEY) as page:
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_role("alert")).to_contain_text("`image` is missing in the input")


def test_every_kind_of_field_is_sent_as_what_it_is(echoes: Site) -> None:
    with echoes.page("w-all-inputs", **WITH_KEY) as page:
        expect(page.get_by_text("What to say")).to_be_visible()
        page.get_by_role("button", name="Run").click()
        output = page.locator(".mc-text textarea")
        expect(output).to_have_value(re.compile(r"hello 1 right 3\s+true\s*$"))
        page.get_by_label("text").fill("bye")
        page.get_by_label("number input for heat").fill("1.5")
        page.get_by_label("way").click()
        page.get_by_role("option", name="left").click()
        page.get_by_label("count").fill("4")
        page.get_by_label("share").fill("0.25")
        page.get_by_text("More settings").click()
        page.get_by_label("loud").uncheck()
        page.get_by_label("more").fill('{"a": [1, null]}')
        page.get_by_label("names").fill("x y\nz")
        page.get_by_role("button", name="Run").click()
        said = 'bye 1.5 left 4 0.25 false {"a":[1,null]} ["x y","z"]'
        expect(output).to_have_value(re.compile(re.escape(said)))


def test_an_image_goes_there_and_back(echoes: Site, tmp_path: Path) -> None:
    sent = png(24, 16)
    (tmp_path / "photo.png").write_bytes(sent)
    # What is downloaded is asked for without the headers of the context.
    with echoes.page("w-upscale", http_credentials={"username": "eve", "password": KEY}) as page:
        page.locator("input[type=file]").first.set_input_files(tmp_path / "photo.png")
        expect(page.locator("img").first).to_be_visible()
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_text("Before and after")).to_be_visible()
        with page.expect_download() as coming:
            page.locator("a[download]:visible", has_text="B").last.click()
        coming.value.save_as(tmp_path / "got.png")
    assert (tmp_path / "got.png").read_bytes() == sent


def test_probabilities_are_bars_and_vectors_are_numbers(echoes: Site) -> None:
    with echoes.page("w-judge", **WITH_KEY) as page:
        run(page, "text", "x")
        expect(page.get_by_role("heading", name="good")).to_be_visible()
        expect(page.get_by_text("75%")).to_be_visible()
    with echoes.page("w-numbers", **WITH_KEY) as page:
        run(page, "text", "x")
        cells = page.get_by_role("gridcell")
        expect(cells.nth(1)).to_have_text("10")
        expect(cells.nth(2)).to_contain_text("0.5000, 0.2500, 0.1250")


def test_a_conversation(echoes: Site, tmp_path: Path) -> None:
    with echoes.page("w-chat", **WITH_KEY) as page:
        message = page.get_by_placeholder("Message")
        answers = page.locator(".mc-chat .bot.message")
        message.press("Enter")
        message.fill("hello **there**")
        message.press("Enter")
        expect(answers).to_have_text("hello there")
        expect(page.get_by_text("Error", exact=True)).to_have_count(0)
        expect(answers.locator("strong")).to_have_text("there")
        expect(message).to_have_value("")
        message.fill(f"chunks:3 wait:{tmp_path}/go chunks:5")
        page.get_by_role("button", name="Send").click()
        expect(answers).to_have_count(2)
        expect(answers.last).to_have_text("0 1 2")
        (tmp_path / "go").touch()
        expect(answers.last).to_have_text("0 1 2 3 4")
        message.fill(f"chunks:2 wait:{tmp_path}/never")
        page.get_by_role("button", name="Send").click()
        expect(answers.last).to_have_text("0 1")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".mc-course")).to_have_text("stopped")
        expect(answers).to_have_count(3)
        message.fill("fail")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("alert")).to_contain_text("not in the mood")
        expect(message).to_have_value("fail")
        expect(answers).to_have_count(3)
        page.get_by_role("button", name="Clear", exact=True).last.click()
        expect(answers).to_have_count(0)


def test_the_service_is_watched(echoes: Site) -> None:
    with echoes.page("status", **WITH_KEY) as page:
        rows = page.locator(".mc-table tbody tr")
        expect(rows).to_have_count(4)
        expect(rows.first).to_contain_text("writer")
        expect(rows.first.locator(".mc-state.ready")).to_be_visible()
        expect(rows.last).to_contain_text("no such weights")
        expect(page.locator("svg.marks, canvas.marks").first).to_be_visible()
        expect(page.get_by_role("link", name="API page")).to_have_attribute("href", "/docs")
        expect(page.get_by_text("model-compose logs -f")).to_be_visible()


def test_a_phone_shows_all_of_it_in_the_dark(echoes: Site) -> None:
    for path in ("", "w-chat", "w-upscale", "status"):
        with echoes.page(path, color_scheme="dark", **PHONE) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert max(map(int, re.findall(r"\d+", background)[:3])) < 60
