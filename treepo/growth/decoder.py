"""Token ids to the text that vLLM's own detokeniser would have written.

The prompt's last tokens are decoded along, because some tokenizers drop the space before the
first word of a text. Whether special tokens show is the request's choice. It keeps no state, so
every path of a tree shares one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_CONTEXT_TOKENS = 6
_LONGEST_CHARACTER = 4  # bytes, and so at most as many tokens
_UNFINISHED = "�"


class PromptDecoder:
    """A `Decoder` for completions of one prompt.

    Args:
        tokenizer: vLLM's tokenizer.
        prompt_token_ids: The prompt.
        skip_special_tokens: Whether special tokens are left out of the text.
    """

    def __init__(
        self, tokenizer: Any, prompt_token_ids: Sequence[int], *, skip_special_tokens: bool
    ) -> None:
        # vLLM decodes with the backend too, which does not tidy spaces away.
        self._decode = getattr(tokenizer, "backend_tokenizer", tokenizer).decode
        self._skip = skip_special_tokens
        self._context = list(prompt_token_ids[-_CONTEXT_TOKENS:])
        self._known = len(self._text(self._context))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, as it would follow the prompt."""
        return self._text([*self._context, *token_ids])[self._known :] if token_ids else ""

    def continuation(self, before: Sequence[int], token_ids: Sequence[int]) -> str:
        """The text that `token_ids` add behind `before`.

        A character that `before` left incomplete belongs to it, one that it leaves incomplete
        itself does not, so that the pieces of a path join to its text.
        """
        window = self._window(list(before))
        known = self.decode(window).rstrip(_UNFINISHED)
        return self.decode([*window, *token_ids])[len(known) :].rstrip(_UNFINISHED)

    def _window(self, before: list[int]) -> list[int]:
        """The last tokens of `before`, from the beginning of a character on."""
        for size in range(_CONTEXT_TOKENS, _CONTEXT_TOKENS + _LONGEST_CHARACTER):
            if not self.decode(before[-size:]).startswith(_UNFINISHED):
                return before[-size:]
        return before[-_CONTEXT_TOKENS:]

    def _text(self, token_ids: list[int]) -> str:
        text: str = self._decode(token_ids, skip_special_tokens=self._skip)
        return text
