from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool

TOOL = FunctionTool.from_defaults(add)


def tools(model):
    said = [ChatMessage(role="user", content=USE_ADD)]
    answer = model.chat_with_tools([TOOL], chat_history=said)
    call = model.get_tool_calls_from_response(answer)[0]
    known = {"tool_call_id": call.tool_id, "name": call.tool_name}
    said += [answer.message, ChatMessage(role="tool", content="3", additional_kwargs=known)]
    then = model.chat_with_tools([TOOL], chat_history=said).message.content
    return {"name": call.tool_name, "arguments": call.tool_kwargs, "then": then}


def structured(model):
    person = model.structured_predict(Person, PromptTemplate(NAME_A_PERSON))
    return person.model_dump()


def of_both(ask):
    """What the first got, once the second got it too."""
    first, second = ask(model), ask(ollama)
    assert type(first) is type(second)
    return first


say(
    text=lambda: of_both(lambda each: each.complete(QUESTION).text),
    stream=lambda: of_both(lambda each: [part.delta for part in each.stream_complete(QUESTION)]),
    tools=lambda: of_both(tools),
    structured=lambda: of_both(structured),
)
