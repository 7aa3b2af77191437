"""LangChain: `extra_body` carries the tree there, one method more carries it back."""

import os
from typing import Any

from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI


class TreeChat(ChatOpenAI):
    """A chat model whose messages have the tree in `response_metadata["tree"]`."""

    def _create_chat_result(
        self, response: Any, generation_info: dict[str, Any] | None = None
    ) -> ChatResult:
        result = super()._create_chat_result(response, generation_info)
        tree = response["tree"] if isinstance(response, dict) else response.tree
        for generation in result.generations:
            generation.message.response_metadata["tree"] = tree
        return result


chat = TreeChat(
    base_url=os.environ.get("TREEPO_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TREEPO_API_KEY", "none"),
    model=os.environ.get("TREEPO_MODEL", "smollm2-135m-instruct"),
    max_tokens=64,
    extra_body={"tree": {"width": 4}},
)
message = chat.invoke("What is 17 + 28? End with the number.")
tree = message.response_metadata["tree"]
print(message.content)
print(f"answer {tree['answer']}, agreement {tree['agreement']:.0%}")
