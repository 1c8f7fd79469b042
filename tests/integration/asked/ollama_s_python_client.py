def tools():
    said = [{"role": "user", "content": USE_ADD}]
    message = client.chat("auto", messages=said, tools=[add]).message
    call = message.tool_calls[0].function
    said += [message, {"role": "tool", "tool_name": call.name, "content": "3"}]
    then = client.chat("auto", messages=said, tools=[add]).message.content
    return {"name": call.name, "arguments": dict(call.arguments), "then": then}


def structured():
    said = [{"role": "user", "content": NAME_A_PERSON}]
    schema = Person.model_json_schema()
    return json.loads(client.chat("auto", messages=said, format=schema).message.content)


say(
    text=lambda: client.generate("auto", prompt=QUESTION).response,
    stream=lambda: [
        part.response for part in client.generate("auto", prompt=QUESTION, stream=True)
    ],
    tools=tools,
    structured=structured,
)
