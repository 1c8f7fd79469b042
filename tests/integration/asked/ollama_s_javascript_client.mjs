const tools = [{ type: "function", function: { name: "add", parameters: NUMBERS } }];
const model = "auto";
await say({
  text: async () => (await ollama.generate({ model, prompt: QUESTION })).response,
  stream: async () => {
    const parts = [];
    for await (const part of await ollama.generate({ model, prompt: QUESTION, stream: true }))
      parts.push(part.response);
    return parts;
  },
  tools: async () => {
    const said = [{ role: "user", content: USE_ADD }];
    const { message } = await ollama.chat({ model, messages: said, tools });
    const call = message.tool_calls[0].function;
    said.push(message, { role: "tool", tool_name: call.name, content: "3" });
    const then = await ollama.chat({ model, messages: said, tools });
    return { ...call, then: then.message.content };
  },
  structured: async () => {
    const said = [{ role: "user", content: NAME_A_PERSON }];
    const made = await ollama.chat({ model, messages: said, format: PERSON });
    return JSON.parse(made.message.content);
  },
});
