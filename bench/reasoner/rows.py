"""Problems as rows of tokens: the chat template's beginning once, then several problems.

All problems of a row see that beginning and never one another, so the system prompt, a third of
every example, is computed once a row. It knows no weights. What else can be packed needs its own
mask here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.reasoner.problems import Problem


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row; all tensors have a batch of one.

    Attributes:
        token_ids: `[1, T]`.
        positions: `[1, T]`; each problem counts on from the end of the shared beginning.
        mask: `[1, 1, T, T]`, True where the second position is seen from the first.
        targets: `[P]`, the positions in the row whose next token is learnt.
        labels: `[P]`, those next tokens.
        owners: `[P]`, the problem that each belongs to, from 0.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    labels: torch.Tensor
    owners: torch.Tensor


def chat_text(tokenizer: Any, question: str) -> str:
    """The prompt as the model reads it, up to where the assistant begins."""
    turns = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def pack(tokenizer: Any, batch: Sequence[Problem]) -> Row:
    """`batch` as one row; only the solutions, with the token that ends a turn, are learnt."""
    whole = chat_text(tokenizer, batch[0].question)
    shared = whole[: whole.index(batch[0].question)]
    ids = list(tokenizer.encode(shared))
    num_shared = len(ids)
    positions, owners = list(range(num_shared)), [-1] * num_shared
    targets: list[int] = []
    for number, problem in enumerate(batch):
        prompt = tokenizer.encode(chat_text(tokenizer, problem.question).removeprefix(shared))
        solution = [*tokenizer.encode(problem.solution), tokenizer.eos_token_id]
        first = len(ids) + len(prompt) - 1
        targets += range(first, first + len(solution))
        ids += prompt + solution
        positions += range(num_shared, num_shared + len(prompt) + len(solution))
        owners += [number] * (len(prompt) + len(solution))
    who, tokens, places = torch.tensor(owners), torch.tensor(ids), torch.tensor(targets)
    is_earlier = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    is_seen = (who[:, None] == who[None, :]) | (who[None, :] == -1)
    return Row(
        token_ids=tokens[None],
        positions=torch.tensor(positions)[None],
        mask=(is_earlier & is_seen)[None, None],
        targets=places,
        labels=tokens[places + 1],
        owners=who[places],
    )
