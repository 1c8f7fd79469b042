const tools = [{ name: "add", input_schema: NUMBERS }];
const fixed = { model: "auto", max_tokens: 200 };
const ask = (messages, more) => client.messages.create({ ...fixed, messages, ...more });

await say({
  text: async () => (await ask([{ role: "user", content: QUESTION }])).content[0].text,
  stream: async () => {
    const parts = [];
    const made = client.messages.stream({ ...fixed, messages });
    made.on("text", (part) => parts.push(part));
    await made.finalMessage();
    return parts;
  },
  tools: async () => {
    const said = [{ role: "user", content: USE_ADD }];
    const { content } = await client.messages.stream({ ...fixed, messages: said, tools }).finalMessage();
    const call = content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "3" };
    said.push({ role: "assistant", content }, { role: "user", content: [result] });
    const then = await ask(said, { tools });
    return { name: call.name, arguments: call.input, then: then.content[0].text };
  },
  structured: async () => {
    const output_config = { format: { type: "json_schema", schema: PERSON } };
    const made = await ask([{ role: "user", content: NAME_A_PERSON }], { output_config });
    return JSON.parse(made.content[0].text);
  },
});
