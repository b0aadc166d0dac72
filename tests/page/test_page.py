"""What a person does on the page, on real processes."""

import base64
import json
import os
import re
import signal
import struct
import zlib
from pathlib import Path
from typing import Literal

import pytest
import redis
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.processes import Api, Processes, eventually


def _open(page: Page, api: Api) -> None:
    page.goto(f"http://127.0.0.1:{api.port}/")
    expect(page.locator("#fields .field, #fields fieldset").first).to_be_visible()


def _choose(page: Page, mode: str) -> None:
    page.locator(f".modes label:has(input[value={mode.lower()}])").click()


def _run(page: Page, mode: str = "Sync") -> None:
    _choose(page, mode)
    page.get_by_role("button", name="Run", exact=True).click()


def _answer(page: Page) -> str:
    return page.locator("#answer .pieces").inner_text()


def _ended(page: Page, state: str = "succeeded") -> None:
    expect(page.locator("#answer .badge")).to_have_text(state)


def test_a_first_result_takes_one_click(page: Page, served: Api) -> None:
    """The form is filled in with an example."""
    _open(page, served)
    page.get_by_role("button", name="Run", exact=True).click()
    _ended(page)
    assert re.match(r"\d{4,5}", _answer(page))
    expect(page.locator("#answer .times")).to_contain_text("run")


def test_async_is_listed_and_survives_a_reload(page: Page, slow: Api) -> None:
    _open(page, slow)
    page.get_by_label("Input").fill("3")
    _run(page, "Async")
    row = page.locator("#rows tr").first
    expect(row.locator(".badge")).to_have_text("running")
    page.reload()
    expect(row.locator(".badge")).to_have_text("running")
    expect(row.locator(".badge")).to_have_text("succeeded")
    row.get_by_role("button", name="Open").click()
    _ended(page)
    assert _answer(page).startswith("3")


def test_a_running_prediction_is_canceled(page: Page, slow: Api) -> None:
    _open(page, slow)
    page.get_by_label("Input").fill("60")
    _run(page, "Async")
    badge = page.locator("#rows tr .badge").first
    expect(badge).to_have_text("running")
    page.locator("#cancel").click()
    expect(badge).to_have_text("canceled")
    expect(page.locator("#answer .failure")).to_contain_text("canceled")
    _ended(page, "canceled")


def test_a_sync_prediction_is_left(page: Page, slow: Api) -> None:
    _open(page, slow)
    page.get_by_label("Input").fill("60")
    _run(page)
    page.locator("#cancel").click()
    expect(page.locator("#answer .failure")).to_contain_text("Canceled")
    _ended(page, "canceled")


def test_a_timeout_is_told_from_a_failure(page: Page, processes: Processes) -> None:
    settings = {"model": "tests.models.slow:predict", "timeout": 0.3}
    _open(page, processes.api(**settings))
    processes.worker(**settings)
    page.get_by_label("Input").fill("60")
    for mode in ("Sync", "Async", "Stream"):
        _run(page, mode)
        expect(page.locator("#answer .failure")).to_contain_text("out of time")
        _ended(page, "timed out")


def test_a_stream_shows_its_pieces(page: Page, processes: Processes) -> None:
    _open(page, processes.api(model="tests.models.typed:words"))
    page.get_by_label("Input").fill("one two three")
    _run(page, "Stream")
    _ended(page)
    assert _answer(page).startswith("one two three")


def test_a_nested_form_and_a_refusal_by_field(page: Page, processes: Processes) -> None:
    _open(page, processes.api(model="tests.models.typed:price"))
    page.get_by_label("name").fill("apple")
    count = page.get_by_label("count")
    count.fill("0")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".problem:not(:empty)")).to_have_text(re.compile("greater than or equal"))
    assert count.get_attribute("aria-invalid") == "true"
    count.fill("3")
    page.get_by_role("button", name="Add").click()
    page.get_by_label("name").nth(1).fill("pear")
    _run(page)
    _ended(page)
    assert '"total": 8' in _answer(page)


def test_the_server_s_refusal_is_shown_at_its_field(page: Page, processes: Processes) -> None:
    _open(page, processes.api(model="tests.models.typed:several"))
    text = page.get_by_label("text")
    text.fill("a")
    temperature = page.get_by_label("temperature")
    temperature.fill("3")
    page.evaluate("document.getElementById('field-2').max = ''")
    _run(page)
    expect(page.locator(".problem:not(:empty)")).to_contain_text("less than or equal to 2")
    temperature.fill("1.5")
    _run(page)
    _ended(page)
    assert "a 1.5" in _answer(page)


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels


def test_a_file_is_sent_and_an_image_shown(
    page: Page, processes: Processes, tmp_path: Path
) -> None:
    """The model returns the bytes in reverse: a picture, if they were one in reverse."""
    _open(page, processes.api(model="tests.models.files:reverse"))
    (tmp_path / "file").write_bytes(_png()[::-1])
    page.get_by_label("Input").set_input_files(tmp_path / "file")
    expect(page.locator("#snippet")).to_contain_text(base64.b64encode(_png()[::-1]).decode()[:40])
    _run(page)
    _ended(page)
    image = page.locator("#answer img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1


def test_a_failure_says_why(page: Page, processes: Processes) -> None:
    api = processes.api(model="tests.models.raises:predict")
    processes.worker(model="tests.models.raises:predict")
    _open(page, api)
    for text, message in (("exception", "failed on this input"), ("refused", "must not be")):
        page.get_by_label("Input").fill(text)
        for mode in ("Sync", "Async", "Stream"):
            _run(page, mode)
            expect(page.locator("#answer .failure")).to_contain_text(message)


def test_nothing_becomes_html(page: Page, processes: Processes) -> None:
    api = processes.api(model="tests.models.echo:predict")
    processes.worker(model="tests.models.echo:predict")
    _open(page, api)
    hostile = (
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    )
    page.get_by_label("Input").fill(hostile)
    for mode in ("Sync", "Async", "Stream"):
        _run(page, mode)
        _ended(page)
        assert _answer(page).startswith(hostile)
    assert page.locator("img, #answer script").count() == 0
    assert "owned" not in page.title()
    page.evaluate("""localStorage.setItem('predictor.watched', '[{"id": "<b>", "at": 0}]')""")
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(0)


def test_separators_of_lines_do_not_end_an_event(page: Page, processes: Processes) -> None:
    """JSON has U+2028 as it is; `.` of a regular expression does not match it."""
    _open(page, processes.api(model="tests.models.echo:predict"))
    page.get_by_label("Input").fill("one\u2028two\u2029three")
    _run(page, "Stream")
    _ended(page)
    expect(page.locator("#answer .text")).to_have_text("one\u2028two\u2029three")


def test_an_input_is_sent_as_it_is_shown(page: Page, processes: Processes) -> None:
    _open(page, processes.api(model="tests.models.optional:predict"))
    count, snippet = page.get_by_label("count"), page.locator("#snippet")
    count.fill("1.2e18")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".problem:not(:empty)")).to_contain_text("in digits")
    count.fill("-9007199254740993")  # JavaScript's own numbers end before
    expected = '{"count":-9007199254740993,"style":"plain","exact":false}'
    expect(snippet).to_contain_text(f'{{"input":{expected}}}')
    page.get_by_label("style").fill("")
    page.get_by_label("flag").select_option("false")
    _run(page)
    _ended(page)
    expected = expected.replace('"style":"plain"', '"flag":false,"style":""')
    expect(snippet).to_contain_text(f'{{"input":{expected}}}')
    for text in ('"count": -9007199254740993', '"flag": false', '"style": ""', '"exact": false'):
        assert text in _answer(page)
    for name in ("note", "crop", "shape", "tags"):  # nobody has touched them
        assert name not in _answer(page)
    page.get_by_label("width").fill("50")
    page.get_by_label("radius").fill("2.5")
    tags = page.get_by_role("group", name="tags")
    for _ in range(2):
        tags.get_by_role("button", name="Remove last").click()
    more = '"crop":{"left":0,"width":50},"shape":{"kind":"circle","radius":2.5},"tags":[]'
    expect(snippet).to_contain_text(more)


def test_long_numbers_keep_their_digits(page: Page, processes: Processes) -> None:
    model = "tests.models.callables:anything"
    processes.worker(model=model)
    _open(page, processes.api(model=model))
    text = '[12345678901234567890,{"id":-9007199254740993},0.5]'
    page.get_by_label("Input").fill(text)
    expect(page.locator("#snippet")).to_contain_text(f'{{"input":{text}}}')
    page.get_by_role("tab", name="Python").click()
    expect(page.locator("#snippet")).to_contain_text('[12345678901234567890, {"id": -900')
    for mode in ("Sync", "Async", "Stream"):
        _run(page, mode)
        _ended(page)
        numbers = page.locator("#answer .tree .number")
        expect(numbers).to_have_text(["12345678901234567890", "-9007199254740993", "0.5"])


def test_it_copies_without_the_clipboard_of_a_secure_context(page: Page, served: Api) -> None:
    """As on plain HTTP from another host."""
    page.add_init_script("delete Navigator.prototype.clipboard")
    _open(page, served)
    button = page.locator("#copy")
    button.click()
    expect(button).to_have_text("Copied")
    expect(button).to_be_focused()
    expected = page.locator("#snippet").inner_text()
    page.get_by_label("Input").fill("")
    page.get_by_label("Input").press("Control+V")
    expect(page.get_by_label("Input")).to_have_value(expected)
    page.evaluate("document.execCommand = () => false")
    expect(button).to_have_text("Copy")
    button.click()
    expect(button).to_have_text("Not copied")


def test_two_tabs_keep_their_predictions(page: Page, served: Api) -> None:
    _open(page, served)
    other = page.context.new_page()
    _open(other, served)
    for tab in (page, other):
        _run(tab, "Async")
        _ended(tab)
    page.reload()
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(2)
    expect(page.locator("#rows .badge.succeeded")).to_have_count(2)
    page.get_by_role("button", name="Clear ended").click()
    _run(other, "Async")
    expect(other.locator("#rows tr")).to_have_count(2)
    page.reload()
    expect(rows).to_have_count(1)


def test_a_service_that_cannot_be_reached(page: Page, served: Api) -> None:
    _open(page, served)
    health = page.locator("#health")
    expect(health).to_have_text("ready")
    page.context.set_offline(True)
    expect(health).to_have_text("not reachable")
    expect(health).to_have_class("unready")


def test_the_code_does_the_same(page: Page, served: Api) -> None:
    _open(page, served)
    page.get_by_label("Input").fill('it\'s "quoted" $HOME `x`')
    for language, words in (("curl", "Async-Mode: true"), ("Python", "client.submit(")):
        page.get_by_role("tab", name=language).click()
        _choose(page, "Async")
        expect(page.locator("#snippet")).to_contain_text(words)
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#snippet").inner_text()
    compile(copied, "snippet", "exec")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
def test_axe_finds_nothing_and_nothing_overflows(
    page: Page, served: Api, scheme: Literal["light", "dark"], width: int
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    _open(page, served)
    _run(page, "Async")
    _ended(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_can_be_used_by_keyboard(page: Page, served: Api) -> None:
    _open(page, served)
    page.get_by_label("Input").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Async")).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    _ended(page)
    page.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()


_LONGEST_FRAME = """seconds => new Promise((resolve) => {
  const began = performance.now();
  let last = began, longest = 0;
  requestAnimationFrame(function frame(now) {
    longest = Math.max(longest, now - last);
    last = now;
    if (now - began > seconds * 1000) resolve(longest);
    else requestAnimationFrame(frame);
  });
})"""


@pytest.mark.alone
def test_two_hundred_are_watched_without_a_dropped_frame(
    page: Page, processes: Processes, request: pytest.FixtureRequest
) -> None:
    """Each reports its progress every second; the memory of the page does not grow."""
    seconds = request.config.getoption("--page-seconds")
    count = int(3 * seconds) + 30
    settings = {"model": "tests.models.talks:reports", "log_level": "warning", "timeout": 2 * count}
    api = processes.api(**settings)
    worker = processes.worker(concurrency=200, **settings)
    ids = [api.submit(f"{count} 1") for _ in range(200)]
    _open(page, api)
    kept = json.dumps([{"id": id_, "at": 0} for id_ in ids])
    page.evaluate("kept => localStorage.setItem('predictor.watched', kept)", kept)
    page.reload()
    expect(page.locator("#rows .badge.running")).to_have_count(200)
    devtools = page.context.new_cdp_session(page)
    devtools.send("HeapProfiler.collectGarbage")
    before = devtools.send("Runtime.getHeapUsage")["usedSize"]
    # A machine that does something else meanwhile delays frames, too: the best of three counts.
    longest = min(page.evaluate(_LONGEST_FRAME, seconds) for _ in range(3))
    devtools.send("HeapProfiler.collectGarbage")
    after = devtools.send("Runtime.getHeapUsage")["usedSize"]
    print(f"longest frame {longest:.0f} ms, heap {before / 1e6:.2f} -> {after / 1e6:.2f} MB")
    assert longest < 100
    assert after < before + 1_000_000
    expect(page.locator("#rows .badge.running")).to_have_count(200)
    worker.kill()


def test_the_command_leads_to_a_result_in_one_click(page: Page, command: Processes) -> None:
    """By the address that it prints."""
    started = command.start("predictor", "--port", "0", mock_delay=0.1)
    pattern = r"(http://127\.0\.0\.1:\d+)"
    address = eventually(lambda: re.search(pattern, started.output), "an address", 30)[1]
    page.goto(address)
    page.get_by_role("button", name="Run", exact=True).click()
    _ended(page)
    assert started.stop() == 0


def test_a_key_is_asked_for_and_kept_for_the_tab(page: Page, processes: Processes) -> None:
    key = "k" * 32
    api = processes.api(api_keys=f"me:{key}", model="tests.models.echo:predict")
    processes.worker(model="tests.models.echo:predict")
    page.goto(f"http://127.0.0.1:{api.port}/")
    for given, said in (("wrong" * 8, ""), (key, "refused")):  # it asks until one is right
        expect(page.locator("#key-problem")).to_contain_text(said)
        page.get_by_label("Key", exact=True).fill(given)
        page.get_by_role("button", name="Use").click()
    page.get_by_label("Input").fill("hello")
    for mode in ("Sync", "Async", "Stream"):
        _run(page, mode)
        _ended(page)
        assert _answer(page).startswith("hello")
    expect(page.locator("#rows .badge").first).to_have_text("succeeded")
    expect(page.locator("#tile-workers")).to_contain_text("1")
    expect(page.locator("#snippet")).not_to_contain_text(key)
    page.reload()
    expect(page.get_by_label("Input")).to_be_visible()
    assert page.evaluate("Object.values(localStorage).join()").count(key) == 0


def test_a_dialog_for_the_key_that_is_closed_stays_closed(page: Page, processes: Processes) -> None:
    key = "k" * 32
    api = processes.api(api_keys=f"me:{key}", model="tests.models.echo:predict")
    kept = """localStorage.setItem('predictor.watched', '[{"id": "me-1", "at": 0}]')"""
    page.add_init_script(kept)
    page.goto(f"http://127.0.0.1:{api.port}/")
    dialog, note = page.get_by_role("dialog"), page.locator("#watch-note")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(note).to_contain_text("key is needed")
    expect(page.locator("#fields .failure")).to_contain_text("key is needed")
    page.wait_for_timeout(1200)  # it would be tried again after 1 s
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="API key").click()
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use").click()
    expect(page.locator("#rows .badge")).to_have_text("unknown")
    page.evaluate("sessionStorage.setItem('predictor.key', 'another')")  # it was revoked
    page.get_by_label("Input").fill("hello")
    _run(page, "Async")
    expect(page.locator("#key-problem")).to_contain_text("refused")
    dialog.get_by_role("button", name="Close").click()
    _ended(page, "refused")


def test_a_store_that_goes_away_and_comes_back(page: Page, processes: Processes) -> None:
    api = processes.api(model="tests.models.slow:predict", lease=5)
    processes.worker(model="tests.models.slow:predict", lease=5)
    _open(page, api)
    page.get_by_label("Input").fill("1")
    with redis.Redis.from_url(str(processes._redis_url)) as store:
        pid = store.info()["process_id"]
    _run(page, "Async")
    expect(page.locator("#rows .badge")).to_have_text("running")
    os.kill(pid, signal.SIGSTOP)
    try:
        expect(page.locator("#health")).to_contain_text("store")
        _run(page, "Async")
        expect(page.locator("#answer .failure")).to_contain_text("store")
    finally:
        os.kill(pid, signal.SIGCONT)
    expect(page.locator("#health")).to_have_text("ready")
    expect(page.locator("#rows .badge")).to_have_text("succeeded")
