// The `openai` package for JavaScript: fields that it does not know pass through as they are.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.TREEPO_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.TREEPO_API_KEY ?? "none",
});
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "What is 17 + 28? End with the number." }];

const response = await client.chat.completions.create({ model, messages, max_tokens: 64, tree: { width: 4 } });
console.log(response.choices[0].message.content);
console.log(`answer ${response.tree.answer}, agreement ${Math.round(100 * response.tree.agreement)}%`);

// A stream of every path; the last chunk names the winner.
const texts = [];
let last;
const stream = await client.chat.completions.create({
  model, messages, max_tokens: 64, n: 4, stream: true, tree: { width: 4 },
});
for await (last of stream) {
  for (const { index, delta } of last.choices) texts[index] = (texts[index] ?? "") + (delta.content ?? "");
}
console.log(`winner of the second tree: ${texts[last.tree.winner]}`);
