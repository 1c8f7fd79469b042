const tools = [{ type: "function", function: { name: "add", parameters: NUMBERS } }];
const model = "auto";
await say({
  text: async () => (await client.responses.create({ model, input: QUESTION })).output_text,
  stream: async () => {
    const parts = [];
    for await (const event of await client.responses.create({ model, input: QUESTION, stream: true }))
      if (event.type === "response.output_text.delta") parts.push(event.delta);
    return parts;
  },
  tools: async () => {
    const said = [{ role: "user", content: USE_ADD }];
    const made = client.chat.completions.stream({ model, messages: said, tools });
    const { message } = (await made.finalChatCompletion()).choices[0];
    const [call] = message.tool_calls;
    said.push(message, { role: "tool", tool_call_id: call.id, content: "3" });
    const then = await client.chat.completions.create({ model, messages: said, tools });
    const { name } = call.function;
    const given = JSON.parse(call.function.arguments);
    return { name, arguments: given, then: then.choices[0].message.content };
  },
  structured: async () => {
    const made = await client.chat.completions.parse({
      model,
      messages: [{ role: "user", content: NAME_A_PERSON }],
      response_format: {
        type: "json_schema",
        json_schema: { name: "person", strict: true, schema: PERSON },
      },
    });
    return made.choices[0].message.parsed;
  },
});
