"""A recorded Converse request as the chat request a client of ours would have sent, where there is one."""

import json

import msgspec

from providers.messages import ChatRequest

IMAGE_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
DOCUMENT_TYPES = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
}
NATIVE = (
    "guardrailConfig",
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "promptVariables",
)


class NoChatRequestError(Exception):
    """There is no chat request that says this. The reason is declared."""


def chat_of(body):
    """The chat request.

    Raises:
        NoChatRequestError: With the reason.
    """
    chat = {"model": "m", "messages": []}
    if body.get("system"):
        chat["messages"].append({"role": "system", "content": _parts(body["system"])})
    for message in body["messages"]:
        chat["messages"] += _messages(message)
    settings = body.get("inferenceConfig", {})
    for theirs, ours in (("maxTokens", "max_tokens"), ("temperature", "temperature"), ("topP", "top_p")):
        if theirs in settings:
            chat[ours] = settings[theirs]
    if settings.get("stopSequences"):
        chat["stop"] = settings["stopSequences"]
    _tools(body.get("toolConfig"), chat)
    output = body.get("outputConfig")
    if output is not None:
        asked = output["textFormat"]["structure"]["jsonSchema"]
        given = {**asked, "schema": json.loads(asked["schema"])}
        chat["response_format"] = {"type": "json_schema", "json_schema": given}
    extra = {name: body[name] for name in NATIVE if name in body}
    if extra:
        chat["extra"] = extra
    return msgspec.convert(chat, ChatRequest)


def _tools(config, chat):
    if config is None:
        return
    tools = []
    for tool in config["tools"]:
        if "systemTool" in tool:
            raise NoChatRequestError("tools that Bedrock runs by itself: no chat member")
        if "cachePoint" in tool:
            tools[-1]["cache_control"] = {"type": "ephemeral"}
            continue
        spec = tool["toolSpec"]
        function = {"name": spec["name"], "parameters": spec["inputSchema"]["json"]}
        function |= {name: spec[name] for name in ("description", "strict") if name in spec}
        tools.append({"type": "function", "function": function})
    chat["tools"] = tools
    choice = config.get("toolChoice", {})
    if "any" in choice:
        chat["tool_choice"] = "required"
    elif "tool" in choice:
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["tool"]["name"]}}


def _messages(message):
    blocks = message["content"]
    made = []
    for block in blocks:
        if "toolResult" in block:
            result = block["toolResult"]
            if result.get("type"):
                raise NoChatRequestError("results of tools that Bedrock ran by itself: no chat member")
            made.append({"role": "tool", "tool_call_id": result["toolUseId"], "content": _parts(result["content"])})
    rest = [block for block in blocks if not {"toolResult", "toolUse", "reasoningContent"} & set(block)]
    calls = [block["toolUse"] for block in blocks if "toolUse" in block]
    if any(call.get("type") == "server_tool_use" for call in calls):
        raise NoChatRequestError("calls that Bedrock made by itself: no chat member")
    thinking = [block["reasoningContent"]["reasoningText"] for block in blocks if "reasoningContent" in block]
    said = {"role": message["role"]}
    if rest:
        said["content"] = _parts(rest)
    if calls:
        said["tool_calls"] = [
            {"id": call["toolUseId"], "function": {"name": call["name"], "arguments": json.dumps(call["input"])}}
            for call in calls
        ]
    if thinking:
        said["reasoning_details"] = [
            {"type": "reasoning.text", "index": index, **each} for index, each in enumerate(thinking)
        ]
    return [*made, said] if len(said) > 1 else made


def _parts(blocks):
    parts = []
    for block in blocks:
        ((kind, value),) = block.items()
        if kind == "text":
            parts.append({"type": "text", "text": value})
        elif kind == "json":
            parts.append({"type": "text", "text": json.dumps(value)})
        elif kind == "cachePoint":
            parts[-1]["cache_control"] = {"type": "ephemeral"}
        elif kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": _url(value, IMAGE_TYPES)}})
        elif kind == "document":
            parts.append(
                {"type": "file", "file": {"file_data": _url(value, DOCUMENT_TYPES), "filename": value["name"]}}
            )
        else:
            raise NoChatRequestError(f"{kind}: no part of a chat message")
    return parts


def _url(value, types):
    if "bytes" not in value["source"]:
        raise NoChatRequestError("S3 objects: a client must not read them with the gateway's rights")
    return f"data:{types[value['format']]};base64,{value['source']['bytes']}"
