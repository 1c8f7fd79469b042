from langchain_core.messages import HumanMessage, ToolMessage


def tools():
    said = [HumanMessage(USE_ADD)]
    able = model.bind_tools([add])
    message = able.invoke(said)
    call = message.tool_calls[0]
    then = able.invoke([*said, message, ToolMessage("3", tool_call_id=call["id"])]).content
    return {"name": call["name"], "arguments": call["args"], "then": then}


def structured():
    for method in ("function_calling", "json_schema"):
        able = model.with_structured_output(Person, method=method)
        person = able.invoke(NAME_A_PERSON)
    return person.model_dump()


say(
    text=lambda: model.invoke(QUESTION).content,
    stream=lambda: [part.content for part in model.stream(QUESTION)],
    tools=tools,
    structured=structured,
)
