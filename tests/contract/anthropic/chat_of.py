"""A recorded Messages request as the chat request a client of ours would have sent, where there is one."""

from typing import Any

import msgspec

from providers.messages import ChatRequest

OWN_BLOCKS = "blocks by which tools of Anthropic's own report; a chat message has no place for them"
ELSEWHERE = {
    "mcp_servers": "MCP servers run by Anthropic: no chat member",
    "container": "containers kept between requests: no chat member",
    "context_management": "context editing by Anthropic (beta): no chat member",
}


class NoChatRequestError(Exception):
    """There is no chat request that says this. The reason is declared."""


def chat_of(body: dict[str, Any]) -> ChatRequest:
    """The chat request.

    Raises:
        NoChatRequestError: With the reason.
    """
    for name, reason in ELSEWHERE.items():
        if name in body:
            raise NoChatRequestError(reason)
    chat: dict[str, Any] = {"model": body["model"], "max_tokens": body["max_tokens"], "messages": []}
    if "system" in body:
        chat["messages"].append({"role": "system", "content": _content(body["system"])})
    for message in body["messages"]:
        chat["messages"] += list(_messages(message))
    for name in ("temperature", "top_k", "top_p", "stream", "cache_control", "service_tier"):
        if name in body:
            chat[name] = body[name]
    if "stop_sequences" in body:
        chat["stop"] = body["stop_sequences"]
    if "metadata" in body:
        chat["user"] = body["metadata"]["user_id"]
    _tools(body, chat)
    _output(body, chat)
    return msgspec.convert(chat, ChatRequest)


def _messages(message: dict[str, Any]) -> Any:
    content = message["content"]
    role = message["role"]
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    yield from (_result(block) for block in content if block["type"] == "tool_result")
    calls = [_call(block) for block in content if block["type"] == "tool_use"]
    thinking = ("thinking", "redacted_thinking")
    details = [_detail(block, place) for place, block in enumerate(content) if block["type"] in thinking]
    kept = [_part(block) for block in content if block["type"] not in ("tool_result", "tool_use", *thinking)]
    said = {"content": kept, "tool_calls": calls, "reasoning_details": details}
    if any(said.values()):
        yield {"role": role, **{name: value for name, value in said.items() if value}}


def _result(block: dict[str, Any]) -> dict[str, Any]:
    if block.get("is_error"):
        raise NoChatRequestError("tool results marked as errors: no chat member")
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": _content(block["content"])}


def _call(block: dict[str, Any]) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": msgspec.json.encode(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function}


def _detail(block: dict[str, Any], place: int) -> dict[str, Any]:
    if block["type"] == "thinking":
        said = {"type": "reasoning.text", "text": block["thinking"], "signature": block["signature"]}
    else:
        said = {"type": "reasoning.encrypted", "data": block["data"]}
    return {**said, "format": "anthropic-claude-v1", "index": place}


def _content(content: Any) -> Any:
    return content if isinstance(content, str) else [_part(block) for block in content]


def _part(block: dict[str, Any]) -> dict[str, Any]:
    source = block.get("source", {})
    if block["type"] == "text":
        part = {"type": "text", "text": block["text"]}
    elif block["type"] == "image" and source["type"] in ("url", "base64"):
        url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
        part = {"type": "image_url", "image_url": {"url": url}}
    elif block["type"] == "document" and source["type"] in ("url", "base64"):
        url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
        part = {"type": "file", "file": {"file_data": url}}
    elif block["type"] == "document" and source["type"] == "text":
        part = {"type": "file", "file": {"file_data": "data:text/plain," + _escaped(source["data"])}}
    elif block["type"] == "document" and source["type"] == "file":
        part = {"type": "file", "file": {"file_id": source["file_id"]}}
    elif block["type"] == "image":
        raise NoChatRequestError("images by file id: a chat part of an image has a URL")
    elif block["type"] in ("tool_reference", "tool_addition"):
        raise NoChatRequestError("tools loaded while the conversation runs: no chat member")
    else:
        raise NoChatRequestError(OWN_BLOCKS)
    return part | ({"cache_control": block["cache_control"]} if "cache_control" in block else {})


def _escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _tools(body: dict[str, Any], chat: dict[str, Any]) -> None:
    tools, own = [], {}
    for place, tool in enumerate(body.get("tools", ())):
        if tool.get("defer_loading"):
            raise NoChatRequestError("tools loaded while the conversation runs: no chat member")
        if "type" in tool:
            tools.append({"type": tool["type"]})
            own[str(place)] = {name: value for name, value in tool.items() if name != "type"}
            continue
        function = {"name": tool["name"], "parameters": tool["input_schema"]}
        function |= {name: tool[name] for name in ("description", "strict") if tool.get(name)}
        tools.append({"type": "function", "function": function})
    if tools:
        chat["tools"] = tools
    if own:
        chat["extra"] = {"tools": own}
    if "tool_choice" in body:
        choice = body["tool_choice"]
        named = {"type": "function", "function": {"name": choice.get("name")}}
        chat["tool_choice"] = {"auto": "auto", "any": "required", "none": "none", "tool": named}[choice["type"]]
        if choice.get("disable_parallel_tool_use"):
            chat["parallel_tool_calls"] = False


def _output(body: dict[str, Any], chat: dict[str, Any]) -> None:
    config = body.get("output_config", {})
    if "task_budget" in config:
        raise NoChatRequestError("task budgets (beta): no chat member")
    if "format" in config:
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": config["format"]["schema"]}}
    reasoning: dict[str, Any] = {}
    if "effort" in config:
        reasoning["effort"] = config["effort"]
    thinking = body.get("thinking", {"type": "absent"})
    if thinking["type"] == "enabled":
        reasoning["max_tokens"] = thinking["budget_tokens"]
    elif thinking["type"] == "adaptive":
        reasoning["enabled"] = True
    if reasoning:
        chat["reasoning"] = reasoning
