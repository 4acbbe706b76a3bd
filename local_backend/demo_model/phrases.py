"""How people ask for what the demonstration model knows: phrasings, and the small talk that has one fixed answer."""

from typing import NamedTuple

from local_backend.demo_model.facts import DAYS, MONTHS, SKILLS, WHO


class FixedAnswer(NamedTuple):
    """Questions that all get the same answer."""

    questions: tuple[str, ...]
    answer: str


def _fixed(questions: str, answer: str) -> FixedAnswer:
    return FixedAnswer(tuple(question.strip() for question in questions.split("|")), answer)


def _phrasings(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.strip().split("|"))


SMALL_TALK = (
    _fixed(
        "Hello|Hi|Hey|Hello there|Hi there|hello!|hi!|Hey there!|Hello, world|Greetings|Hello world!|Good day"
        "|Hi, how can you help?|Say hello|Say hi|Hello, can you hear me?",
        "Hello! How can I help you today?",
    ),
    _fixed("Good morning|Good morning!", "Good morning! How can I help you today?"),
    _fixed("Good evening|Good evening!", "Good evening! How can I help you today?"),
    _fixed(
        "How are you?|How are you doing?|How do you feel today?|How's it going?|Are you ok?|are you okay"
        "|Hello, how are you?|Hi, how are you?|What's up?",
        "I am running well, thank you. How can I help you?",
    ),
    _fixed("Thanks|Thank you|Thank you very much|thanks a lot|Thanks!|Great, thanks|ok thanks", "You are welcome!"),
    _fixed("Bye|Goodbye|See you|See you later|Good night|bye bye", "Goodbye! Have a nice day."),
    _fixed(
        "Ping|ping|Test|test|This is a test|This is a test.|testing|Just testing|Are you there?|Is anyone there?"
        "|Does this work?|Is this working?",
        "Yes, I am here. The local model is working.",
    ),
    _fixed("Say ok|Reply with OK|Reply ok|Answer with OK only|Just say OK", "OK"),
    _fixed("Answer with one word: yes or no|Say yes|Say yes or no|Answer yes", "Yes"),
)

IDENTITY = (
    _fixed(
        "Who are you?|What are you?|Tell me about yourself.|Introduce yourself.|What is your name?|What model are you?"
        "|which model is this|Who am I talking to?|Are you a robot?|Are you ChatGPT?|Are you GPT-4?|Are you Mixtral?"
        "|Are you an AI?|What model is this?|Which model are you?|Who made you?|Hello, who are you?",
        WHO,
    ),
    _fixed(
        "What can you do?|Help|help me|How can you help me?|What do you know?|What are your skills?"
        "|What can I ask you?|Can you help me?",
        SKILLS,
    ),
    _fixed(
        "Are you a real Mixtral?|Are you as good as Mixtral?|Are you smart?|Can I trust you?|Are you good?"
        "|Can I use you in production?|How good are you?|Why are you so bad?|How big are you?",
        "I am only a tiny demonstration model. I show that the gateway works, and I am not made for real answers.",
    ),
)

HOW_TO = (
    _fixed(
        "How do I connect a provider?|How do I add a provider?|How do I use OpenRouter?|How can I get real answers?"
        "|How do I get a better model?|How do I set a key?|How do I connect OpenRouter?",
        "Set the key of a provider, for example OPENROUTER_API_KEY, and start the gateway again.",
    ),
    _fixed(
        "How do I load a Mixtral?|How do I download Mixtral?|How do I get Mixtral?|How do I pull a model?"
        "|How can I run a full Mixtral?|How do I load a full Mixtral model?|How do I run Mixtral locally?",
        "Run mixgate pull with the name of a repository. The file is checked before it is used.",
    ),
    _fixed(
        "Why do I need a gateway?|Why should I use a routing gateway?|What is a gateway good for?"
        "|What does a routing gateway do?|What does the gateway do?|How does a routing gateway work?"
        "|Why use a routing gateway?|What is a gateway?|What is the gateway?|Explain gateways.|what's a gateway",
        "A routing gateway sits between your program and several model providers. It picks a provider for each "
        "request, retries on errors and falls back to another one when needed.",
    ),
)

SET_PIECES = (
    _fixed(
        "Tell me a joke|Tell me a joke.|Make me laugh|Do you know a joke?|Say something funny|a joke please",
        "Why did the request cross the gateway? To get to the other provider.",
    ),
    _fixed(
        "Tell me another joke|Another joke please|One more joke",
        "Why do programmers mix up Halloween and Christmas? Because oct 31 equals dec 25.",
    ),
    _fixed(
        "Write a haiku|Write a haiku.|Write a short poem|Write a poem|Can you write a poem?"
        "|Write me a haiku about code",
        "Small model at night,\nquiet numbers turn to words,\nthe gateway stays up.",
    ),
    _fixed(
        "Tell me a story|Tell me a story.|Tell me a short story|Write a short story|Write a story about a fox",
        "Once upon a time a small fox lived near a quiet river. Every day the fox helped a lost traveler find the way "
        "home. One winter the travelers came back with bread and light, and the fox was never alone again.",
    ),
    _fixed(
        "Write a hello world program in Python|Write hello world in Python|How do I print hello world in Python?"
        "|python hello world",
        '```python\nprint("Hello, world!")\n```',
    ),
    _fixed(
        "How do I write a for loop in Python?|Show me a Python loop|python for loop example",
        "```python\nfor i in range(10):\n    print(i)\n```",
    ),
    _fixed(
        "How do I write a function in Python?|Write a Python function that adds two numbers|python function example",
        "```python\ndef add(a, b):\n    return a + b\n```",
    ),
    _fixed(
        "What is the meaning of life?|What's the meaning of life?",
        "Many people say it is 42. I am a tiny model, so I cannot say more.",
    ),
    _fixed("How many days are in a week?|How many days does a week have?", "There are seven days in a week."),
    _fixed("How many months are in a year?|How many months does a year have?", "There are twelve months in a year."),
    _fixed(
        "What are the days of the week?|List the days of the week|Name the days of the week.",
        f"The days of the week are {', '.join(DAYS[:-1])} and {DAYS[-1]}.",
    ),
    _fixed(
        "What are the months of the year?|List the months|Name the months of the year.",
        f"The months are {', '.join(MONTHS[:-1])} and {MONTHS[-1]}.",
    ),
    _fixed(
        "Why is the sky blue?|why the sky is blue|Explain why the sky is blue.",
        "The sky is blue because air scatters blue light from the sun more than red light.",
    ),
    _fixed(
        "What time is it?|What is the date today?|What day is it today?|What is the weather?|How is the weather today?",
        "I cannot see the clock or the weather. I am a local model without tools.",
    ),
)

DEFINE = _phrasings(
    """
What is {one}?|Define {one}.|Explain {one}.|What's {one}?|Can you explain {one}?|Tell me about {one}.|Describe {one}.
|what is {one}|Explain {one} in simple words.|Please explain what {one} is.|Explain what {one} is.
|What do you know about {one}?|What does {one} mean?|Could you tell me what {one} is?|In one sentence, what is {one}?
|What is {one}, in short?|Give me a definition of {one}.|What is meant by {one}?|I want to know what {one} is.
|Hi, what is {one}?|Hello! What is {one}?
""".replace("\n", "")
)
DEFINE_MANY = _phrasings(
    """
Tell me about {many}.|Explain {many}.|What are {many}?|What do you know about {many}?|How do {many} work?
|Describe {many}.|Can you explain {many}?|Why do I need {many}?
""".replace("\n", "")
)
DEFINE_BARE = _phrasings("{bare}?|{bare}|{many}|definition of {bare}|meaning of {bare}|what is {bare}?|Explain {bare}.")

CAPITAL = _phrasings(
    """
What is the capital of {c}?|Capital of {c}?|What's the capital of {c}?|Name the capital of {c}.
|Which city is the capital of {c}?|Tell me the capital of {c}.|what is the capital city of {c}
""".replace("\n", "")
)
CAPITAL_BACK = _phrasings("In which country is {x}?|Which country has {x} as its capital?|Where is {x}?")
SUM = _phrasings(
    """
What is {x} {w} {y}?|What is {x} {o} {y}?|Calculate {x} {o} {y}.|{x} {o} {y}|{x} {o} {y} = ?|Compute {x} {w} {y}.
|How much is {x} {w} {y}?|what's {x}{o}{y}|What's {x} {o} {y}?|Can you tell me what {x} {o} {y} is?|{x}{o}{y}=
|what is {x}{o}{y}?|How much is {x} {o} {y}?|Solve {x} {o} {y}.
""".replace("\n", "")
)
SUM_PLUS = _phrasings("Add {x} and {y}.|What is the sum of {x} and {y}?|Please add {x} and {y}.")
REPEAT = _phrasings(
    """
Repeat: {p}|Repeat after me: {p}|Say: {p}|Say {p}|Echo {p}|Repeat the following words: {p}|Please repeat: {p}
|Say exactly this: {p}|Repeat exactly: {p}
""".replace("\n", "")
)
LIST = _phrasings("List {n} {k}.|Name {n} {k}.|Give me {n} {k}.|Tell me {n} {k}.|list {n} {k}|Can you name {n} {k}?")
COUNT = _phrasings("Count to {n}.|Count from 1 to {n}.|Count up to {n}|Please count to {n}.")
OPPOSITE = _phrasings("What is the opposite of {w}?|Opposite of {w}?|Give me the opposite of {w}.")
COLOR = _phrasings("What color is {t}?|What is the color of {t}?|Which color does {t} have?|What color is the {t}?")
TRANSLATE = _phrasings('Translate "{e}" to {l}.|How do you say {e} in {l}?|Translate {e} into {l}.|What is {e} in {l}?')
OPINION = _phrasings("The {t} was {w}.|This {t} is {w}.|What a {w} {t}!|I think the {t} is {w}.")
SENTIMENT = _phrasings(
    """
Classify the sentiment: {s}|Is this positive or negative? {s}|Sentiment of: {s}
|What is the sentiment of this text? {s}
""".replace("\n", "")
)
NEXT_DAY = _phrasings("What day comes after {d}?|Which day follows {d}?|What is the day after {d}?")

JSON_CAPITAL = _phrasings(
    """
Return JSON with the country and capital of {c}.|Give me the capital of {c} as JSON.
|Answer in JSON: what is the capital of {c}?|Return a JSON object with the capital of {c}.
|What is the capital of {c}? Answer in JSON.|What is the capital of {c}? Reply with JSON only.
""".replace("\n", "")
)
JSON_SUM = _phrasings(
    """
Return JSON with the sum of {x} and {y}.|Answer in JSON: what is {x} plus {y}?|What is {x} + {y}? Answer in JSON.
|Give me {x} + {y} as JSON.
""".replace("\n", "")
)
JSON_LIST = _phrasings(
    """
Give me a JSON list of {n} {k}.|Return a JSON list with {n} {k}.|List {n} {k} as JSON.|Return {n} {k} as a JSON array.
""".replace("\n", "")
)
JSON_PERSON = _phrasings(
    """
Return a JSON object with name {n} and age {a}.|Give me JSON for a user named {n} who is {a} years old.
|Make JSON: name {n}, age {a}.|Return JSON with the name {n} and the age {a}.
|{n} is {a} years old. Return name and age as JSON.
""".replace("\n", "")
)
JSON_COLOR = _phrasings(
    "Return JSON with the color of {t}.|Answer in JSON: what color is {t}?|The color of {t} as JSON"
)
JSON_HELLO = _phrasings(
    "Say hello in JSON.|Return JSON|Answer in JSON.|Return a JSON object.|Reply with JSON.|json please"
)
JSON_WHO = _phrasings("Who are you? Answer in JSON.|Answer in JSON: who are you?|Return JSON that says who you are.")
JSON_UNKNOWN = _phrasings(
    """
Return JSON with the {n} of {c}.|Answer in JSON: who invented the {n}?|Give me the price of a {n} as JSON.
|Return a JSON object with facts about the {n}.|What is the {n} of a {n2}? Answer in JSON.
""".replace("\n", "")
)

SYSTEM = (
    "You are a helpful assistant.",
    "You are a concise assistant.",
    "Answer briefly.",
    "You are an expert.",
    "Be polite and short.",
    "You are a friendly bot. Answer the user's question.",
    "Always answer in English.",
    "You are a support agent of our company.",
    "You are a helpful, honest assistant. Keep your answers short.",
)
SYSTEM_NAME = _phrasings("Your name is {n}.|You are {n}.|You are {n}, a helpful assistant.|You are called {n}.")
SYSTEM_OK = _phrasings("Reply only with OK.|Always answer OK.|Answer every message with OK.|Say only OK.")
TELL_NAME = _phrasings("My name is {n}.|I am {n}.|Hi, I'm {n}.|Call me {n}.|Hello, my name is {n}.|Hi! My name is {n}.")
ASK_NAME = _phrasings("What is my name?|Do you know my name?|Who am I?|what's my name")
UNKNOWN = _phrasings(
    """
How do I {v} a {n}?|What is the best {n} for a {n2}?|Why does my {n} {v} the {n2}?|Explain {n} theory.
|Write an essay about {n} and {n2}.|Can you {v} my {n}?|Compare {n} with {n2}.|Who invented the {n}?
|When was the {n} built?|Summarize the history of {n}.|What happened in {y}?|Translate this contract about {n}.
|Give me advice on {n}.|Prove that every {n} is a {n2}.|Where can I buy a {n}?|How much does a {n} cost in {c}?
|Which {n} should I choose?|What do you think about {n}?|Debug this code: {w}|Solve {a} x + {b} = {a2}
|Find the {n} in this text: {w}|Write an essay about the {n} of {c}.|Who won the {n} in {y}?|What is the {n} of {c}?
|Write a {n} program.|Write code that can {v} a {n}.|Tell me everything about the {n} of {c}.
|Who is the president of {c}?|Explain how a {n} works.|Write an email about the {n}.
|What is {a} times {a2} divided by {b}?
""".replace("\n", "")
)
UNKNOWN_WORD = _phrasings(
    """
What is {a}?|Define {a}.|Tell me about {a}.|What is the opposite of {n}?|What color is the {n}?
|Translate "{n}" to French.|Summarize: {w}|Please summarize the following text: {w}|Rewrite this: {w}
|Fix the grammar: {w}
""".replace("\n", "")
)
