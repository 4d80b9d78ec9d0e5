"""A server of pictures on this machine, and a small internet of names and addresses that lead to it."""

import io
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from catalog.fetching.config import FetchConfig
from catalog.fetching.download import Downloader
from catalog.fetching.run import Fetcher

PUBLIC = "93.184.215.14"
"""An address of the public internet; in tests it leads to the server."""
Answer = Callable[[BaseHTTPRequestHandler], None]


def picture(colour: int = 0, form: str = "JPEG", size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour % 256, colour // 256, 0)).save(buffer, form)
    return buffer.getvalue()


def send(content: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer of these bytes; `Content_Length` may lie."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(content)), **named}.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def redirect(place: str, status: int = 302) -> Answer:
    return send(b"", status, Location=place)


class Web:
    """Names, their network addresses, and the pages that one server answers with for all of them."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        """Path → answer; a path without one is a 404."""
        self.names: dict[str, list[list[str]]] = defaultdict(lambda: [[PUBLIC]])
        """Host → answers of the name server, one after the other; the last one stays."""
        self.dialled: list[tuple[str, int]] = []
        self.hits: Counter[str] = Counter()
        self.hosts: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.starts: list[float] = []
        self.lock = threading.Lock()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with web.lock:
                    web.hits[self.path] += 1
                    web.starts.append(time.monotonic())
                    web.hosts.append(self.headers["Host"])
                    web.headers.append(dict(self.headers))
                with suppress(OSError):
                    web.pages.get(self.path, send(b"nothing here", 404))(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def resolve(self, host: str, port: int) -> list[str]:
        """Addresses in numbers are themselves, as the system's resolver answers; names are looked up."""
        try:
            return [
                str(one[4][0])
                for one in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)
            ]
        except OSError:
            answers = self.names[host]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "unknown") from None
            return found

    def dial(self, address: str, port: int, timeout: float) -> socket.socket:
        """A connection to the server, whatever the address; remembers it."""
        self.dialled.append((address, port))
        return socket.create_connection(("127.0.0.1", self.server.server_port), timeout)

    def downloader(self, **settings: Any) -> Downloader:
        config = FetchConfig(**{"delay": 0.0, "timeout": 2.0, "retries": 1, **settings})
        made = Downloader(config, self.resolve, self.dial)
        made.first_pause = 0.01
        return made

    @contextmanager
    def fetcher(self, folder: Path, **settings: Any) -> Iterator[Fetcher]:
        downloader = self.downloader(**settings)
        made = Fetcher(folder, downloader.config, downloader)
        try:
            yield made
        finally:
            made.close()

    def reason(self, folder: Path, url: str, **settings: Any) -> str:
        """Why a picture is not fetched; "" where it is."""
        return self.downloader(**settings).download(url, folder / "x").reason
