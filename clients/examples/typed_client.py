"""The typed client: names for what goes out, types for what comes back, events while it grows."""

import os

from openai import OpenAI

from treepo_client import Done, Ended, Opened, TreeOptions, Trees

trees = Trees(
    OpenAI(
        base_url=os.environ.get("TREEPO_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("TREEPO_API_KEY", "none"),
    )
)
question = "What is 17 + 28? End with the number."

answer = trees.ask(question, tree=TreeOptions(width=4, until="settled"), max_tokens=64)
print(answer.text)
print(f"answer {answer.tree.answer}, agreement {answer.tree.agreement:.0%}")

for event in trees.stream(question, tree=TreeOptions(width=4), max_tokens=64):
    match event:
        case Opened(index, parent, start):
            print(f"path {index} forks off {'the prompt' if parent is None else parent} at {start}")
        case Ended(index, finish, said):
            print(f"path {index} ended ({finish}), its answer: {said}")
        case Done(tree):
            print(f"worth {tree.effective_samples:.1f} independent samples")
