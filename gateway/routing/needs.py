"""What a request needs of whoever serves it, as names of capabilities."""

from providers.messages import ChatRequest, Message


def needs(request: ChatRequest, *, plain: bool = False) -> tuple[str, ...]:
    """The capabilities without which this request cannot be served, by their field names in `Capabilities`.

    `plain` says that it is known to be text alone, without tools or a form to answer in (`providers.tokens`).

    A last turn of the assistant needs `prefill` only where it says `prefix: true`: many clients leave one there
    without meaning anything by it, and every model answers that somehow.
    """
    last = request.messages[-1] if request.messages else None
    prefilled = last is not None and last.role == "assistant" and last.prefix
    if plain and not prefilled and not request.logprobs:
        return ()
    wanted: list[str] = []
    if _has_tools(request):
        wanted.append("tools")
    form = request.response_format
    if form is not None and form.type in ("json_object", "json_schema"):
        wanted.append(form.type)
    if request.logprobs:
        wanted.append("logprobs")
    if any(_has_image(message) for message in request.messages):
        wanted.append("vision")
    if prefilled:
        wanted.append("prefill")
    return tuple(wanted)


def count_images(request: ChatRequest) -> int:
    """How many images the prompt has."""
    return sum(
        part.type == "image_url"
        for message in request.messages
        if message.content is not None and not isinstance(message.content, str)
        for part in message.content
    )


def _has_tools(request: ChatRequest) -> bool:
    return bool(
        (request.tools and request.tool_choice != "none") or (request.functions and request.function_call != "none")
    )


def _has_image(message: Message) -> bool:
    content = message.content
    if content is None or isinstance(content, str):
        return False
    return any(part.type == "image_url" for part in content)
