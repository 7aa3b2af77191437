"""What langchain-openai and litellm make of a server's trees; run by the Python of `.venv/clients`.

    python other_clients.py URL MODEL ALIAS

It prints one JSON object; `test_other_clients.py` starts it and judges that.
"""

import json
import sys

import litellm
import openai
from langchain_openai import ChatOpenAI

WIDTH = 3
TREE = {"width": WIDTH, "branching": "even", "segment_tokens": 32}
QUESTION = "What is 1 + 1?"
MESSAGES = [{"role": "user", "content": QUESTION}]


def with_langchain(url: str, model: str, **options):
    chat = ChatOpenAI(
        base_url=url,
        api_key="unused",
        model=model,
        max_tokens=60,
        temperature=1.0,
        max_retries=0,
        stream_usage=True,
        **options,
    )
    whole = chat.invoke(QUESTION)
    pieces = list(chat.stream(QUESTION))
    joined = sum(pieces[1:], pieces[0])
    return {
        "whole": whole.text,
        "streamed": joined.text,
        "whole_tokens": whole.usage_metadata["output_tokens"],
        "streamed_tokens": joined.usage_metadata["output_tokens"],
    }


def with_litellm(url: str, model: str, **options):
    fixed = {
        "model": f"openai/{model}",
        "api_base": url,
        "api_key": "unused",
        "messages": MESSAGES,
        "seed": 1,
        "max_tokens": 60,
        "num_retries": 0,
        **options,
    }
    whole = litellm.completion(**fixed)
    chunks = list(litellm.completion(stream=True, stream_options={"include_usage": True}, **fixed))
    joined = litellm.stream_chunk_builder(chunks)
    return {
        "whole": whole.choices[0].message.content,
        "streamed": joined.choices[0].message.content,
        "whole_tokens": whole.usage.completion_tokens,
        "streamed_tokens": joined.usage.completion_tokens,
        "tree": getattr(whole, "tree", None),
    }


def with_openai(url: str, model: str):
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        fixed = {"model": model, "messages": MESSAGES, "n": WIDTH, "max_tokens": 60, "seed": 1}
        with client.chat.completions.stream(**fixed, extra_body={"tree": TREE}) as stream:
            chunks = [event.chunk for event in stream if event.type == "chunk"]
    ends = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    return {"ends": sorted(ends), "tree": chunks[-1].tree}


def main(url: str, model: str, alias: str):
    return {
        "openai_version": openai.__version__,
        "openai": with_openai(url, model),
        "langchain": with_langchain(url, model, seed=1, extra_body={"tree": TREE}),
        "langchain, by alias": with_langchain(url, alias, seed=1),
        "langchain, responses": with_langchain(
            url, model, extra_body={"tree": TREE, "seed": 1}, use_responses_api=True
        ),
        "litellm": with_litellm(url, model, extra_body={"tree": TREE}),
        "litellm, by alias": with_litellm(url, alias),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
