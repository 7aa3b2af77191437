"""Pieces of a tree's choices as the output objects that vLLM's serving code reads.

vLLM's handlers turn these into messages, tool calls, log-probs and events. Engine requests of a
tree are not detokenised, so the text of log-prob entries is filled in here, as vLLM would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.tokenizers.detokenizer_utils import convert_ids_list_to_tokens

from treepo.growth.decoder import PromptDecoder
from treepo_server.response.replay import Piece


class Outputs:
    """Makes the outputs of one request.

    Args:
        request_id: vLLM's id of the caller's request.
        prompt: vLLM's engine input.
        tokenizer: vLLM's tokenizer.
        decoder: Generated tokens to text.
    """

    def __init__(
        self, request_id: str, prompt: dict[str, Any], tokenizer: Any, decoder: PromptDecoder
    ) -> None:
        self._request_id = request_id
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._decoder = decoder

    def output(
        self,
        pieces: Sequence[Piece],
        *,
        finished: bool = False,
        num_cached_tokens: int | None = None,
    ) -> Any:
        """Some pieces as a `RequestOutput` of the caller's one request.

        Args:
            pieces: At most one for each choice.
            finished: Whether nothing follows.
            num_cached_tokens: Tokens of the prompt that the prefix cache held, where known.
        """
        return RequestOutput(
            request_id=self._request_id,
            prompt=self._prompt.get("prompt"),
            prompt_token_ids=self._prompt["prompt_token_ids"],
            prompt_logprobs=None,
            outputs=[self._completion(piece) for piece in pieces],
            finished=finished,
            num_cached_tokens=num_cached_tokens,
        )

    def _completion(self, piece: Piece) -> Any:
        if piece.native_logprobs:
            self._name_tokens(piece)
        return CompletionOutput(
            index=piece.index,
            text=piece.text,
            token_ids=piece.token_ids,
            cumulative_logprob=None,
            logprobs=piece.native_logprobs,
            finish_reason=piece.finish_reason,
            stop_reason=piece.stop_reason,
        )

    def _name_tokens(self, piece: Piece) -> None:
        before = [*piece.context_ids]
        for token_id, records in zip(piece.token_ids, piece.native_logprobs or (), strict=True):
            unnamed = [i for i, record in records.items() if record.decoded_token is None]
            names = convert_ids_list_to_tokens(self._tokenizer, unnamed)
            for i, name in zip(unnamed, names, strict=True):
                is_half = name.endswith("\ufffd")
                text = self._decoder.continuation(before[-4:], [i]) if is_half else name
                records[i].decoded_token = text
            before.append(token_id)
