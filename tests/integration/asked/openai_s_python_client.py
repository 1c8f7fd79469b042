ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
ADD["function"]["parameters"] |= {
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
ask = client.chat.completions


def tools():
    said = [{"role": "user", "content": USE_ADD}]
    message = ask.create(model="auto", messages=said, tools=[ADD]).choices[0].message
    call = message.tool_calls[0]
    said += [message, {"role": "tool", "tool_call_id": call.id, "content": "3"}]
    then = ask.create(model="auto", messages=said, tools=[ADD]).choices[0].message.content
    arguments = json.loads(call.function.arguments)
    return {"name": call.function.name, "arguments": arguments, "then": then}


def structured():
    said = [{"role": "user", "content": NAME_A_PERSON}]
    parsed = ask.parse(model="auto", messages=said, response_format=Person)
    # What came back is sent back, as programs do.
    said += [parsed.choices[0].message, {"role": "user", "content": "And another."}]
    return (
        ask.parse(model="auto", messages=said, response_format=Person)
        .choices[0]
        .message.parsed.model_dump()
    )


say(
    text=lambda: client.responses.create(model="auto", input=QUESTION).output_text,
    stream=lambda: [
        event.delta
        for event in client.responses.create(model="auto", input=QUESTION, stream=True)
        if event.type == "response.output_text.delta"
    ],
    tools=tools,
    structured=structured,
)
