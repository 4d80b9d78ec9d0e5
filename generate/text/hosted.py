"""A hosted language model behind an OpenAI-compatible endpoint, in place of the generator's own.

It reads the same instruction and facts in words, through the endpoint's own chat template, and its texts go
through the same checks. Soft tokens are not sent: an endpoint reads words.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from catalog.errors import VitrineError, one_line_message
from generate.text.clean import clean_text
from generate.text.config import WriteConfig
from generate.text.sequences import cleaned_lines
from generate.text.tasks import Task

CONCURRENT = 8
"""Requests under way at the same time."""
ATTEMPTS, FIRST_PAUSE = 5, 0.5
"""Attempts of a request, and seconds before the second; each pause is twice the one before."""
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
"""HTTP statuses that say that a request may succeed later."""
TIMEOUT = 120.0
KEY = "OPENAI_API_KEY"
"""Environment variable with the key; it is sent to `base_url` alone, and never stored or logged."""


@dataclass(frozen=True)
class HostedModel:
    """Chat completions of one model of an endpoint."""

    base_url: str
    """Up to the version, such as http://localhost:8000/v1."""
    model: str
    key: str = field(default="", repr=False)
    first_pause: float = FIRST_PAUSE

    def write(
        self,
        task: Task,
        data: Sequence[str] | None,
        seeds: Sequence[int],
        config: WriteConfig,
        max_tokens: int,
    ) -> list[str]:
        """One text of a task for each of `seeds` and the data of its prompt (lines).

        Raises VitrineError where the endpoint refuses a request, or does not answer after ATTEMPTS.
        """
        asked = [
            self._body(task, lines, seed, config, max_tokens)
            for lines, seed in zip(data or [""] * len(seeds), seeds, strict=True)
        ]
        with ThreadPoolExecutor(CONCURRENT) as pool:
            return list(pool.map(self._complete, asked))

    def _body(
        self, task: Task, data: str, seed: int, config: WriteConfig, max_tokens: int
    ) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": task.request},
                {"role": "user", "content": cleaned_lines(data.split("\n"))},
            ],
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": max_tokens,
            "seed": seed % 2**31,
        }

    def _complete(self, body: dict[str, Any]) -> str:
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        reason, pause = "", self.first_pause
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(pause)
                pause *= 2
            try:
                # Redirects are not followed: the key belongs to this address.
                answer = requests.post(
                    url, json=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
                )
            except requests.RequestException as error:
                reason = one_line_message(error) or type(error).__name__
                continue
            if answer.status_code == 200:
                return self._text_of(answer)
            reason = f"status {answer.status_code}: {clean_text(answer.text)[:200]}"
            if answer.status_code not in RETRIED:
                break
        raise VitrineError(
            f"the endpoint {self.base_url} did not write: {reason}; look at base_url, hosted_model and {KEY}"
        )

    def _text_of(self, answer: requests.Response) -> str:
        try:
            text = answer.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise VitrineError(
                f"the endpoint {self.base_url} answers with no chat completion: "
                f"{clean_text(answer.text)[:120]!r}; name one that is OpenAI-compatible"
            ) from error
        return clean_text(str(text or ""))


def hosted_model(config: WriteConfig) -> HostedModel:
    """The endpoint that the settings name, with the key of the environment.

    Raises VitrineError without an address or a model, and for an address that is no http(s) URL.
    """
    parts = urlsplit(config.base_url)
    if parts.scheme not in ("http", "https") or not parts.netloc or not config.hosted_model:
        raise VitrineError(
            "engine openai needs base_url, such as http://localhost:8000/v1, and hosted_model, its model; "
            f"base_url is {config.base_url!r} and hosted_model {config.hosted_model!r}"
        )
    return HostedModel(config.base_url, config.hosted_model, os.environ.get(KEY, ""))
