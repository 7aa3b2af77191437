"""An agent loop: a tree chooses each tool call by vote, and the last tree gives the answer.

Each step samples several calls and makes the one that most paths agree on. The calls are bound by
a grammar (`structured_outputs`, which any vLLM has), so those paths share the prompt only; the
final answer branches freely. With `--tool-call-parser` OpenAI's `tools` work in the same way.
"""

import os
from typing import Any

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TREEPO_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TREEPO_API_KEY", "none"),
)
model = client.models.list().data[0].id
PRICES = {"apple": 3, "pear": 5, "melon": 12}
MOST_CALLS = 3
RULES = "You can look up prices. Say `price FRUIT` for a price, or `done` when you know enough."


def price(fruit: str) -> str:
    """The tool."""
    return f"One {fruit} costs {PRICES[fruit]} coins."


def next_call(messages: list[Any]) -> str:
    """The call that most of the paths would make."""
    calls = [*(f"price {fruit}" for fruit in PRICES), "done"]
    response = client.chat.completions.create(
        model=model,
        messages=messages,
        extra_body={
            "structured_outputs": {"choice": calls},
            "tree": {"width": 5, "answer": {"regex": "(.+)"}},
        },
    )
    print(f"the vote: {[(vote['answer'], vote['count']) for vote in response.tree['votes']]}")
    return str(response.tree["answer"])


question = "What do an apple and a melon cost together?"
messages: list[Any] = [
    {"role": "system", "content": RULES},
    {"role": "user", "content": question},
]
for _ in range(MOST_CALLS):
    call = next_call(messages)
    if call == "done":
        break
    messages.append({"role": "assistant", "content": call})
    messages.append({"role": "user", "content": price(call.removeprefix("price "))})

messages.append({"role": "user", "content": f"{question} End with the number."})
response = client.chat.completions.create(
    model=model, messages=messages, max_tokens=64, extra_body={"tree": {"width": 4}}
)
print(response.choices[0].message.content)
print(f"answer {response.tree['answer']}, agreement {response.tree['agreement']:.0%}")
