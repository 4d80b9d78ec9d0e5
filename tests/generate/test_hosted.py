"""A hosted model behind an OpenAI-compatible endpoint writes under the same prompts and checks."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from catalog.errors import VitrineError
from generate.text import hosted
from generate.text.config import TextConfig, WriteConfig
from generate.text.hosted import HostedModel, hosted_model
from generate.text.run import run_text_generator
from generate.text.tasks import load_task
from generate.text.writer import load_writer
from launch.trainer import build_trainer
from tests.generate.tiny_text import TEXTS


class Endpoint(BaseHTTPRequestHandler):
    """Answers with the first line of the data; keeps what it was sent."""

    seen: ClassVar[list[tuple[str, dict[str, Any], str | None]]] = []
    statuses: ClassVar[list[int]] = []
    """Statuses of the next answers; 200 when there are none left."""
    broken = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, body, self.headers.get("Authorization")))
        status = self.statuses.pop(0) if self.statuses else 200
        text = "a soft thing" + " <|im_end|>"
        answer = {} if self.broken else {"choices": [{"message": {"content": text}}]}
        content = json.dumps(answer if status == 200 else {"error": "busy\nnow"}).encode()
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Endpoint.seen, Endpoint.statuses, Endpoint.broken = [], [], False
    monkeypatch.setattr(hosted, "FIRST_PAUSE", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hosted_model_reads_the_facts_and_its_texts_are_checked(
    text_config: TextConfig,
    text_base: Path,
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    task = tmp_path / "line.yaml"
    task.write_text("templates: ['{title}']\ninstruction: Say it.")
    settings = replace(
        text_config,
        model=str(text_base),
        prompt="facts",
        train=False,
        tasks=(str(task),),
        max_prompt_tokens=40,
        max_tokens=12,
    )
    output = run_text_generator(settings, tmp_path / "text", build_trainer)
    config = WriteConfig(engine="openai", base_url=endpoint, hosted_model="big", temperature=0.2)
    writer = load_writer(output, config=config)
    texts = writer.write("p1", "i3", "line", config, num_texts=3)
    assert [found.text for found in texts] == ["a soft thing"] * 3
    assert list(writer.stream("p1", "i3", "line", config)) == ["a soft thing"]
    path, body, key = Endpoint.seen[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Say it."}
    assert user["content"].startswith("Item\ntitle: ")
    assert "Chosen by the customer before" in user["content"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("big", 0.2, 12)
    assert sorted(one["seed"] for _, one, _ in Endpoint.seen[:3]) == [0, 1, 2]
    assert "secret" not in repr(writer.generator.hosted)
    assert "secret" not in "".join(p.read_text("latin-1") for p in output.rglob("*") if p.is_file())
    plain = run_text_generator(
        replace(text_config, tasks=(str(task),)), tmp_path / "plain", build_trainer
    )
    with pytest.raises(VitrineError, match="was made without; train it with prompt facts"):
        load_writer(plain, config=config)


def test_an_endpoint_that_is_busy_is_asked_again_and_one_that_refuses_is_one_line(
    endpoint: str,
) -> None:
    model, task = HostedModel(endpoint, "big", "secret", first_pause=0.0), load_task("title")

    def write() -> list[str]:
        return model.write(task, [f"Item\ntitle: {TEXTS[0]}"], [7], WriteConfig(), 20)

    Endpoint.statuses = [503, 429]
    assert write() == ["a soft thing"]
    assert len(Endpoint.seen) == 3
    for statuses, count, reason in (([401], 1, "status 401"), ([503] * 9, 5, "status 503")):
        Endpoint.seen, Endpoint.statuses = [], list(statuses)
        with pytest.raises(VitrineError, match=f"did not write: {reason}: .*busy.*now") as error:
            write()
        assert len(Endpoint.seen) == count
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)
    Endpoint.statuses = [307]
    with pytest.raises(VitrineError, match="status 307"):
        write()
    Endpoint.statuses, Endpoint.broken = [], True
    with pytest.raises(VitrineError, match="answers with no chat completion"):
        write()
    gone = HostedModel("http://127.0.0.1:9/v1", "big", first_pause=0.0)
    with pytest.raises(VitrineError, match=r"did not write: .*; look at base_url"):
        gone.write(task, None, [1], WriteConfig(), 20)
    for wrong in (WriteConfig(), WriteConfig(base_url="file:///etc", hosted_model="x")):
        with pytest.raises(VitrineError, match="engine openai needs base_url"):
            hosted_model(wrong)
