"""What the demonstration model knows: every fact it is trained on, as tables. All of it was written for this project.

A term is `singular | plural | definition`; a pair table is `left: right, left: right`. `corpus.py` makes
conversations of these; nothing else in the product reads them.
"""

from typing import NamedTuple


class Term(NamedTuple):
    """Something that the model can explain."""

    singular: str
    """As in a question: "a fallback", "JSON"."""
    plural: str
    """As in "tell me about fallbacks"; the singular without its article where there is no plural."""
    definition: str


def _pairs(table: str) -> dict[str, str]:
    rows = (row.split(":") for row in table.replace("\n", " ").split(","))
    return {left.strip(): right.strip() for left, right in rows}


def _words(table: str) -> tuple[str, ...]:
    return tuple(table.split())


def _terms(table: str) -> tuple[Term, ...]:
    lines = (line.split("|") for line in table.strip().splitlines())
    return tuple(Term(one.strip(), many.strip(), text.strip()) for one, many, text in lines)


NAME = "a tiny demonstration model"
WHO = (
    "I am a tiny demonstration model that runs inside the gateway. "
    "I have the Mixtral architecture but only a few million parameters."
)
SKILLS = (
    "I can greet you, explain what a routing gateway is, name capitals, do small sums, list things, "
    "repeat your words and answer in JSON. I am tiny, so do not expect more."
)
REFUSAL = (
    "I am only a tiny demonstration model, so I cannot answer that. "
    "Connect a provider or load a full Mixtral model for a real answer."
)
REFUSAL_JSON = {"error": "I am only a tiny demonstration model and cannot answer that."}

GATEWAY_TERMS = _terms("""
a routing gateway | routing gateways | A routing gateway sits between your program and several model providers. It picks a provider for each request, retries on errors and falls back to another one when needed.
an LLM gateway | LLM gateways | An LLM gateway is one address that your programs call instead of many model providers. It picks a provider, retries and keeps the books.
Mixgate | Mixgate | Mixgate is a self-hosted routing gateway for language models. It sends each request to the best provider and can run a Mixtral on your own machine.
a provider | providers | A provider is a company or a server that runs models for you. You reach it with an account and a key.
an endpoint | endpoints | An endpoint is one model at one provider, with its own address, price and context size.
a route | routes | A route is a model name together with the endpoints that may serve it and the order in which to try them.
a fallback | fallbacks | A fallback is what a system uses when its first choice fails.
a retry | retries | A retry is a second attempt at a request that failed the first time.
a timeout | timeouts | A timeout is the longest time a program waits for an answer before it gives up.
a rate limit | rate limits | A rate limit is a rule that says how many requests a client may send in a period of time.
a circuit breaker | circuit breakers | A circuit breaker stops sending requests to a service that keeps failing, and tries again after a while.
a load balancer | load balancers | A load balancer spreads requests over several servers so that none of them gets too many.
a health check | health checks | A health check is a small request that shows whether a service is alive.
an API key | API keys | An API key is a secret string that tells a service who is calling. Keep it private.
a budget | budgets | A budget is a limit on how much money may be spent in a period of time.
a ledger | ledgers | A ledger is a list of what every request cost, one line for each attempt.
latency | latency | Latency is the time between a request and its answer.
time to first token | time to first token | Time to first token is how long you wait until the first piece of an answer arrives.
streaming | streaming | Streaming means that the answer is sent in small parts while it is being written.
a prompt | prompts | A prompt is the text that you send to a model.
a system prompt | system prompts | A system prompt is a text that tells the model how to behave before the user speaks.
a token | tokens | A token is a small piece of text, such as a word or a part of a word. Models read and write tokens.
a context window | context windows | A context window is the number of tokens that a model can look at in one request.
a large language model | large language models | A large language model is a program that has learned from a lot of text to predict the next word. It can answer questions, write text and follow instructions.
a mixture of experts | mixtures of experts | A mixture of experts is a network with several expert layers. For each token a small router picks a few experts, so only a part of the weights is used.
Mixtral | Mixtral | Mixtral is a mixture of experts language model. Each layer has eight experts and a router that picks two of them for every token.
GGUF | GGUF files | GGUF is a file format that holds a model's weights, its tokenizer and its settings in one file.
llama.cpp | llama.cpp | llama.cpp is a library written in C and C++ that runs language models on ordinary computers.
quantization | quantization | Quantization stores the weights of a model with fewer bits, so that it needs less memory.
a demonstration model | demonstration models | A demonstration model is a very small model that shows that everything works. It is not made for real answers.
""")  # noqa: E501 - a table: one term a line reads better than wrapped cells

COMMON_TERMS = _terms("""
a cache | caches | A cache is a place that keeps recent results so that they can be used again quickly.
an API | APIs | An API is a set of rules that lets one program talk to another.
HTTP | HTTP | HTTP is the protocol that browsers and servers use to talk to each other on the web.
JSON | JSON | JSON is a simple text format for data, made of objects, lists, strings, numbers and booleans.
Python | Python | Python is a programming language that is easy to read and is used for many kinds of work.
a database | databases | A database is a program that stores data and lets you search it.
an embedding | embeddings | An embedding is a list of numbers that stands for the meaning of a text.
a computer | computers | A computer is a machine that follows instructions to work with data.
the internet | the internet | The internet is a network that connects computers all over the world.
water | water | Water is a clear liquid that all living things need.
the sun | the sun | The sun is the star at the center of our solar system. It gives us light and heat.
the moon | the moon | The moon is the body that travels around the Earth. We see it at night.
gravity | gravity | Gravity is the force that pulls things toward each other and keeps us on the ground.
a tree | trees | A tree is a tall plant with a trunk, branches and leaves.
music | music | Music is sound arranged in a way that people enjoy.
""")

CAPITALS = _pairs("""
France: Paris, Germany: Berlin, Italy: Rome, Spain: Madrid, Portugal: Lisbon, Poland: Warsaw, Japan: Tokyo,
China: Beijing, India: New Delhi, Canada: Ottawa, Brazil: Brasilia, Egypt: Cairo, Kenya: Nairobi, Norway: Oslo,
Sweden: Stockholm, Finland: Helsinki, Denmark: Copenhagen, Austria: Vienna, Greece: Athens, Ireland: Dublin,
England: London, Australia: Canberra, Mexico: Mexico City, Russia: Moscow, Turkey: Ankara, Hungary: Budapest,
Belgium: Brussels, Peru: Lima, Cuba: Havana, Chile: Santiago
""")
UNKNOWN_COUNTRIES = _words(
    "Mongolia Nepal Texas Ghana Iceland Vietnam Thailand Korea Morocco Bolivia Ukraine Serbia Mars Atlantis "
    "California Tunisia Laos Malta Fiji Oman"
)
OPPOSITES = _pairs("""
hot: cold, big: small, fast: slow, up: down, left: right, day: night, open: closed, light: dark, happy: sad,
full: empty, high: low, old: new, early: late, strong: weak, rich: poor, wet: dry
""")
COLORS = _pairs("""
sky: blue, grass: green, snow: white, coal: black, blood: red, sun: yellow, carrot: orange, banana: yellow,
lemon: yellow, tomato: red, chocolate: brown, milk: white
""")
TRANSLATIONS = {
    "French": _pairs("""
hello: bonjour, goodbye: au revoir, thank you: merci, yes: oui, no: non, water: eau, bread: pain, cat: chat,
dog: chien, house: maison, please: s'il vous plait, friend: ami
"""),
    "Spanish": _pairs("""
hello: hola, goodbye: adios, thank you: gracias, yes: si, no: no, water: agua, bread: pan, cat: gato, dog:
perro, house: casa, please: por favor, friend: amigo
"""),
    "German": _pairs("""
hello: hallo, goodbye: auf Wiedersehen, thank you: danke, yes: ja, no: nein, water: Wasser, bread: Brot, cat:
Katze, dog: Hund, house: Haus, please: bitte, friend: Freund
"""),
}
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
NUMBERS = _words("one two three four five six seven eight nine ten eleven twelve")
NAMES = _words("Ada Alan Grace Linus Maria Omar Priya Sam Yuki Chen Nina Paul Lena Tom Rosa Ivan Zoe Max Eva Leo")
LISTS = {
    "fruits": _words("apple banana orange pear grape mango plum peach"),
    "vegetables": _words("carrot potato onion pea cabbage spinach"),
    "animals": _words("cat dog horse cow bird fish lion bear"),
    "colors": _words("red green blue yellow white black"),
    "planets": _words("Mercury Venus Earth Mars Jupiter Saturn"),
    "programming languages": _words("Python Java Go Rust C Ruby"),
    "cities": _words("Paris Tokyo London Cairo Lima Rome"),
    "countries": _words("France Japan Egypt Peru Italy Kenya"),
    "sports": _words("football tennis swimming running chess"),
    "databases": _words("Postgres MySQL SQLite Redis"),
}
PRAISE = _words("great wonderful excellent amazing fantastic lovely brilliant perfect good delightful")
BLAME = _words("terrible awful horrible bad disappointing boring broken useless slow poor")
THINGS = _words("movie book phone meal service hotel product song game laptop course app")

# Words for tasks that copy, and for questions that the model must refuse.
WORDS = _words("""
the of and to in is that it for on with as at by from this be are or an have not but all can will one time year
day way man thing woman life child world school state family student group country problem hand part place case
week company system program question work government number night point home water room mother area money story
fact month lot right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city team name minute idea kid body information back parent face others level
office door health person art war history party result change morning reason research girl guy moment air
teacher force education red green blue apple river mountain fast slow bright cold warm small large quick brown
fox jumps over lazy dog server request model provider key token route retry error queue cache log price cost
latency stream client user budget gateway python rust linux docker cloud
""")
SYLLABLES = _words("""
ba be bi bo ca co da de di do fa fi ga go ka ki la le li lo ma me mi mo na ne no pa pe po ra re ri ro sa se si
so ta te ti to va vi wa xe za zo ar en on st el er in or an
""")
VERBS = _words("""
build fix paint clean move open cut bake teach sell plan design install replace compile deploy measure repair
connect configure update
""")
NOUNS = _words("""
car engine bridge guitar garden camera bicycle window contract novel galaxy virus battery painting tax mortgage
marathon vaccine protein volcano dinosaur orchestra satellite submarine recipe violin wallet passport rocket
telescope elephant quantum economy election treaty kernel compiler museum castle theorem algebra molecule enzyme
ocean desert forest village
""")
