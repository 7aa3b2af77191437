"""LiteLLM: a server of the `openai/` kind; `extra_body` carries the tree there."""

import os

import litellm

model = os.environ.get("TREEPO_MODEL", "smollm2-135m-instruct")
response = litellm.completion(
    model=f"openai/{model}",
    api_base=os.environ.get("TREEPO_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TREEPO_API_KEY", "none"),
    messages=[{"role": "user", "content": "What is 17 + 28? End with the number."}],
    max_tokens=64,
    extra_body={"tree": {"width": 4}},
)
tree = response.tree
print(response.choices[0].message.content)
print(f"answer {tree['answer']}, agreement {tree['agreement']:.0%}")
