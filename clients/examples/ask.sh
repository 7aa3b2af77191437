#!/bin/sh
# One answer with curl.
url="${TREEPO_URL:-http://127.0.0.1:8000/v1}"
model="${TREEPO_MODEL:-smollm2-135m-instruct}"

curl --silent --show-error --fail-with-body "$url/chat/completions" \
  --header "Content-Type: application/json" \
  --header "Authorization: Bearer ${TREEPO_API_KEY:-none}" \
  --data '{
    "model": "'"$model"'",
    "messages": [{"role": "user", "content": "What is 17 + 28? End with the number."}],
    "max_tokens": 64,
    "tree": {"width": 4, "include": ["nodes", "texts", "entropies"]}
  }'
