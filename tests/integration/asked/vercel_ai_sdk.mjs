import { Output, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const add = tool({
  description: "Add two numbers.",
  inputSchema: z.object({ a: z.number().int(), b: z.number().int() }),
  execute: async ({ a, b }) => a + b,
});
const person = z.object({ name: z.string(), age: z.number().int() });

// What the first provider got, once all of them got it.
async function ofAll(ask) {
  const got = [];
  for (const model of models) got.push(await ask(model));
  return got[0];
}

await say({
  text: () =>
    ofAll(async (model) => {
      const settings = { temperature: 0.5, topP: 0.9, maxOutputTokens: 20 };
      return (await generateText({ model, prompt: QUESTION, ...settings })).text;
    }),
  stream: () => ofAll((model) => Array.fromAsync(streamText({ model, prompt: QUESTION }).textStream)),
  tools: () =>
    ofAll(async (model) => {
      const tools = { add };
      const made = await generateText({ model, prompt: USE_ADD, tools, stopWhen: isStepCount(3) });
      const [call] = made.steps[0].toolCalls;
      const must = await generateText({ model, prompt: QUESTION, tools, toolChoice: "required" });
      if (must.toolCalls[0].toolName !== "add") throw new Error("no call where one is required");
      return { name: call.toolName, arguments: call.input, then: made.text };
    }),
  structured: () =>
    ofAll(async (model) => {
      const output = Output.object({ schema: person });
      return (await generateText({ model, prompt: NAME_A_PERSON, output })).output;
    }),
});
