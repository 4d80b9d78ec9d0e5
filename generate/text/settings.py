"""Sizes and tasks of a text generator, as they are stored with its weights."""

from dataclasses import dataclass

from generate.text.sequences import PromptKind
from generate.text.tasks import Task


@dataclass(frozen=True)
class TextGeneratorSettings:
    """Sizes and tasks of a text generator, as they are stored with its weights."""

    width: int
    """Width of user states and item vectors."""
    tasks: tuple[Task, ...]
    num_user_tokens: int = 4
    num_item_tokens: int = 4
    num_style_tokens: int = 0
    """User style tokens; 0: earlier reviews are not read."""
    max_tokens: int = 64
    """Longest text, in tokens."""
    prompt: PromptKind = "none"
    """What the prompt says in words (see `generate.text.sequences`)."""
    num_history_items: int = 0
    """Items of the history that go into the prompt in words."""
    num_likely_items: int = 0
    """The recommender's first choices that go into a prompt without an item, in words."""
    max_prompt_tokens: int = 128
    """Longest data of a prompt in words, in tokens."""

    @property
    def num_soft(self) -> int:
        """Soft tokens of a prompt; without an instruction in words one says which task it is."""
        tokens = self.num_user_tokens + self.num_item_tokens + self.num_style_tokens
        return tokens + (self.prompt == "none")
