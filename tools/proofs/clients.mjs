// Clients of npm against a server that runs, and one agent loop with a tool:
//   npm install openai ai @ai-sdk/openai-compatible zod @anthropic-ai/sdk
//   node clients.mjs http://127.0.0.1:8080 MODEL [MODEL_THAT_CALLS_weather]
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText, stepCountIs, tool } from "ai";
import { z } from "zod";

const [url, model, agent] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const prompt = "Name three rivers.";
const question = "How is the weather in Paris?";

const openai = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const asked = { model, messages: [{ role: "user", content: prompt }], max_tokens: 24, temperature: 0 };
const whole = await openai.chat.completions.create(asked);
const text = whole.choices[0].message.content;
let streamed = "";
for await (const piece of await openai.chat.completions.create({ ...asked, stream: true }))
  streamed += piece.choices[0]?.delta?.content ?? "";
assert.equal(streamed, text);
const response = await openai.responses.create({ model, input: prompt, max_output_tokens: 24, temperature: 0 });
assert.equal(response.output_text, text);
const scored = await openai.responses.create({
  model, input: prompt, max_output_tokens: 8, top_logprobs: 2, include: ["message.output_text.logprobs"],
});
assert.equal(scored.output[0].content[0].logprobs[0].top_logprobs.length, 2);
console.log(`openai (npm): ${JSON.stringify(text)}`);

const anthropic = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const told = { model, max_tokens: 24, temperature: 0, messages: [{ role: "user", content: prompt }] };
const message = await anthropic.messages.create(told);
assert.equal(message.content[0].text, text);
const spoken = anthropic.messages.stream(told);
assert.equal((await spoken.finalMessage()).content[0].text, text);
const counted = await anthropic.messages.countTokens({ model, messages: told.messages });
assert.equal(counted.input_tokens, whole.usage.prompt_tokens);
console.log(`@anthropic-ai/sdk: ${JSON.stringify(message.content[0].text)}`);

const provider = createOpenAICompatible({ name: "localinfer", baseURL, includeUsage: true });
const settings = { model: provider(model), prompt, maxOutputTokens: 24, temperature: 0 };
const once = await generateText(settings);
assert.equal(once.text, text);
const stream = streamText(settings);
let pieces = "";
for await (const piece of stream.textStream) pieces += piece;
assert.equal(pieces, text);
assert.ok((await stream.usage).outputTokens > 0);
console.log(`ai (npm): ${JSON.stringify(once.text)}`);

if (agent) {
  const cities = [];
  const weather = tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => { cities.push(city); return `sunny in ${city}`; },
  });
  const loop = await generateText({
    model: provider(agent), prompt: question, tools: { weather }, stopWhen: stepCountIs(3), temperature: 0,
  });
  assert.deepEqual(cities, ["Paris"]);
  console.log(`ai (npm), an agent with a tool: ${JSON.stringify(loop.text)}, ${loop.steps.length} steps`);
}
