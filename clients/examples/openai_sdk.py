"""The `openai` SDK as it is: a whole answer, then one that streams."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TREEPO_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TREEPO_API_KEY", "none"),
)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "What is 17 + 28? End with the number."}]

# One answer: `choices[0]` is the winner of the vote over `width` paths.
response = client.chat.completions.create(
    model=model, messages=messages, max_tokens=64, extra_body={"tree": {"width": 4}}
)
tree = response.tree
print(response.choices[0].message.content)
print(f"answer {tree['answer']}, agreement {tree['agreement']:.0%}")
print(f"{tree['stats']['generated_tokens']} tokens for {len(tree['trajectories'])} paths")

# With n = width every path streams while it grows; the last chunk names the winner.
texts = {}
for chunk in client.chat.completions.create(
    model=model,
    messages=messages,
    max_tokens=64,
    n=4,
    stream=True,
    extra_body={"tree": {"width": 4}},
):
    for choice in chunk.choices:
        texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
print(f"winner of the second tree: {texts[chunk.tree['winner']]}")
