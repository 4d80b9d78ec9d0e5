"""Every picture is fetched once, whatever ends the run before, and no host is asked too often."""

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from catalog.errors import VitrineError
from catalog.fetching.download import Outcome
from catalog.fetching.hosts import GIVE_UP_AFTER, Hosts
from catalog.fetching.log import FetchLog

from .fetching_kit import Web, picture, send


def fetch(web: Web, folder: Path, urls: list[str], **settings) -> dict:
    with web.fetcher(folder, **settings) as fetcher:
        fetcher.want(urls)
        fetcher.fetch()
        return {url: fetcher.file_of(url) for url in urls} | {"counts": fetcher.counts()}


def test_an_address_of_many_items_is_fetched_once(web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = send(picture())
    urls = ["http://x.test/a", "http://X.test:80/a#top", "http://x.test/a"]
    found = fetch(web, tmp_path / "f", urls)
    assert web.hits["/a"] == 1
    assert {found[url] for url in urls} == {found[urls[0]]}
    assert found["counts"] == {"read": 1, "dropped": {}, "written": 1}


def test_names_of_files_hold_nothing_of_the_address(web: Web, tmp_path: Path) -> None:
    web.pages["/../../evil.exe"] = send(picture())
    found = fetch(web, tmp_path / "f", ["http://x.test/../../evil.exe"])
    path = found["http://x.test/../../evil.exe"]
    assert path.relative_to(tmp_path / "f").parts[0] == path.name[:2]
    assert path.suffix == ".jpg"
    assert set(path.stem) <= set("0123456789abcdef")


@pytest.mark.parametrize("concurrency", [1, 8])
def test_every_address_has_an_outcome(concurrency: int, web: Web, tmp_path: Path) -> None:
    for number in range(100):
        web.pages[f"/{number}"] = send(picture(number)) if number % 3 else send(b"", 410)
    urls = [f"http://{number % 7}.test/{number}" for number in range(100)] + ["ftp://x.test/"]
    found = fetch(web, tmp_path / "f", urls, concurrency=concurrency, per_host=2)
    assert found["counts"]["dropped"] == {"HTTP status 410": 34, "neither http nor https": 1}
    assert found["counts"]["written"] == 66
    assert set(web.hits.values()) == {1}
    assert len((tmp_path / "f" / "log.jsonl").read_text().splitlines()) == 100
    for number in range(100):
        path = found[urls[number]]
        assert (path is not None) == bool(number % 3)
        assert path is None or path.read_bytes() == picture(number)


@pytest.mark.parametrize("redirected", [False, True])
def test_no_host_has_more_requests_at_once_than_the_limit(
    redirected: bool, web: Web, tmp_path: Path
) -> None:
    running: list[int] = []
    most = []

    def slow(handler) -> None:
        with web.lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.03)
        with web.lock:
            running.pop()  # before the answer, after which the next request may begin
        send(picture())(handler)

    urls = []
    for number in range(24):
        web.pages[f"/{number}"] = slow
        urls.append(f"http://x.test/{number}")
        if redirected:
            web.pages[f"/r{number}"] = send(b"", 302, Location=urls[-1])
            urls[-1] = f"http://{number}.test/r{number}"
    fetch(web, tmp_path / "f", urls, concurrency=16, per_host=3)
    assert 2 <= max(most) <= 3
    assert len(most) == 24


def test_requests_to_one_host_start_with_a_delay(web: Web, tmp_path: Path) -> None:
    for number in range(6):
        web.pages[f"/{number}"] = send(picture())
    urls = [f"http://x.test/{number}" for number in range(6)]
    fetch(web, tmp_path / "f", urls, delay=0.1, per_host=6)
    starts = sorted(web.starts)
    assert starts[-1] - starts[0] >= 0.45


def test_a_slow_host_holds_no_other_up(web: Web, tmp_path: Path) -> None:
    web.pages["/slow"] = lambda handler: time.sleep(0.6)
    for number in range(40):
        web.pages[f"/{number}"] = send(picture())
    urls = [f"http://slow.test/slow?{number}" for number in range(40)]
    for number in range(40):
        web.pages[f"/slow?{number}"] = web.pages["/slow"]
    urls += [f"http://x.test/{number}" for number in range(40)]
    done = threading.Event()
    with web.fetcher(tmp_path / "f", concurrency=4, per_host=2, retries=0) as fetcher:
        fetcher.want(urls)
        put = fetcher.log.put

        def watched(key: str, url: str, outcome: Outcome) -> None:
            put(key, url, outcome)
            if len(fetched) < 40 and "x.test" in url:
                fetched.append(url)
                if len(fetched) == 40:
                    done.set()
                    raise KeyboardInterrupt

        fetched: list[str] = []
        fetcher.log.put = watched  # pyright: ignore
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            fetcher.fetch()
    assert done.is_set()
    assert time.monotonic() - started < 4


def test_an_interrupted_run_goes_on_where_it_was(web: Web, tmp_path: Path) -> None:
    for number in range(60):
        web.pages[f"/{number}"] = send(picture(number))
    urls = [f"http://{number % 3}.test/{number}" for number in range(60)]
    with web.fetcher(tmp_path / "f", concurrency=4) as fetcher:
        fetcher.want(urls)
        put, done = fetcher.log.put, []

        def stop(key: str, url: str, outcome: Outcome) -> None:
            put(key, url, outcome)
            done.append(url)
            if len(done) == 20:
                raise KeyboardInterrupt

        fetcher.log.put = stop  # pyright: ignore
        with pytest.raises(KeyboardInterrupt):
            fetcher.fetch()
    kept = len((tmp_path / "f" / "log.jsonl").read_text().splitlines())
    assert 20 <= kept < 60
    before = len(web.dialled)
    found = fetch(web, tmp_path / "f", urls)
    assert found["counts"]["written"] == 60
    assert len(web.dialled) - before == 60 - kept
    assert not list((tmp_path / "f").rglob("*.partial"))
    assert threading.active_count() < 20


def test_only_what_failed_for_a_time_is_fetched_again(web: Web, tmp_path: Path) -> None:
    web.pages |= {"/a": send(picture()), "/b": send(b"", 503), "/c": send(b"", 404)}
    urls = [f"http://x.test/{name}" for name in "abc"]
    assert fetch(web, tmp_path / "f", urls)["counts"]["written"] == 1
    web.pages["/b"] = send(picture())
    web.pages["/c"] = send(picture())
    again = fetch(web, tmp_path / "f", urls)
    assert again["counts"] == {"read": 3, "dropped": {"HTTP status 404": 1}, "written": 2}
    assert web.hits == {"/a": 1, "/b": 3, "/c": 1}


def test_a_torn_or_damaged_log_loses_only_its_own_lines(web: Web, tmp_path: Path) -> None:
    for name in "abcd":
        web.pages[f"/{name}"] = send(picture())
    urls = [f"http://x.test/{name}" for name in "abcd"]
    found = fetch(web, tmp_path / "f", urls)
    log = tmp_path / "f" / "log.jsonl"
    lines = {json.loads(line)["url"][-1]: line for line in log.read_text().splitlines()}
    found[urls[1]].unlink()
    outside = json.dumps({"url": urls[2], "file": "../../x.jpg", "sha256": "", "bytes": 1})
    log.write_text("\n".join([lines["a"], "{no json", lines["b"], outside, lines["d"][:-9]]))
    assert fetch(web, tmp_path / "f", urls)["counts"]["written"] == 4
    assert web.hits == {"/a": 1, "/b": 2, "/c": 1 + 1, "/d": 2}
    assert all(json.loads(line) for line in log.read_text().splitlines() if line[1] != "n")


def test_a_host_that_never_answers_is_given_up(web: Web, tmp_path: Path) -> None:
    urls = [f"http://dead.test/{number}" for number in range(GIVE_UP_AFTER * 3)]
    web.pages["/a"] = send(picture())
    downloader = web.downloader(retries=0)
    with web.fetcher(tmp_path / "f", retries=0, concurrency=2) as fetcher:
        dial = downloader.dial

        def dead(address: str, port: int, timeout: float):
            if address == "1.1.1.1":
                web.dialled.append((address, port))
                raise ConnectionRefusedError
            return dial(address, port, timeout)

        fetcher.downloader.dial = dead
        web.names["dead.test"] = [["1.1.1.1"]]
        fetcher.want([*urls, "http://x.test/a"])
        fetcher.fetch()
        counts = fetcher.counts()
    assert counts["written"] == 1
    assert counts["dropped"]["a host that does not answer"] >= GIVE_UP_AFTER  # pyright: ignore
    assert Counter(web.dialled)["1.1.1.1", 80] <= GIVE_UP_AFTER + 2


def test_other_files_and_other_processes_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(VitrineError, match="no fetched pictures"):
        FetchLog(tmp_path / "mine")
    log = FetchLog(tmp_path / "f")
    with pytest.raises(VitrineError, match="another process"):
        FetchLog(tmp_path / "f")
    log.close()
    FetchLog(tmp_path / "f").close()


def test_forgotten_hosts_are_idle_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.fetching.hosts.KEPT", 3)
    hosts = Hosts(per_host=1, delay=0.0)
    with hosts.request("busy"):
        for number in range(10):
            with hosts.request(str(number)):
                pass
        assert hosts.wait_until_free("busy") > 0
        assert len(hosts._hosts) <= 4
