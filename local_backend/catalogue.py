"""What is known about Mixtral files before one is downloaded: where they are, how large, how much memory, how fast.

Data, each with its source and date. `mixgate pull` reads the true sizes from the hub; these are for advice ("you would
need about 31 GB") and for refusing what is known not to load.
"""

from dataclasses import dataclass
from typing import Final, Literal

PublishedState = Literal["recommended", "unverified", "does_not_load"]
FILES_PAGE: Final = "the repository's file list"
COMPUTED: Final = "computed from the model's published config.json"
AS_OF: Final = "2026-11"


@dataclass(frozen=True, slots=True)
class QuantisationFacts:
    """One quantisation of one model. Sizes are of published files, which differ a little between publishers."""

    name: str
    size_gb_min: float
    """In units of 10^9 bytes, as the hub shows it."""
    size_gb_max: float
    memory_gb: float
    """Memory to ask of a machine: weights, 4,096 tokens of context and 1.5 GB."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A place on the hub with GGUF files of a model."""

    name: str
    instruct: bool
    """Has it learned to follow instructions? A base model continues text instead."""
    state: PublishedState
    note: str
    source: str
    as_of: str


@dataclass(frozen=True, slots=True)
class MixtralFacts:
    """One Mixtral."""

    model: str
    """The public Model name that its files stand for."""
    parameters: int
    active_parameters: int
    """Parameters that one token passes through."""
    context_tokens: int
    kv_bytes_per_token: int
    """Attention memory of one token, 16-bit."""
    active_share: float
    """Share of the file's bytes that one token reads."""
    licence: str
    repositories: tuple[Repository, ...]
    quantisations: tuple[QuantisationFacts, ...]
    source: str
    as_of: str

    def tokens_per_s_max(self, size_bytes: int, bandwidth_bytes_per_s: float) -> float:
        """The speed that memory alone allows one stream: a token reads all active weights once."""
        return bandwidth_bytes_per_s / (size_bytes * self.active_share)


MIXTRAL_8X7B: Final = MixtralFacts(
    model="mixtral-8x7b",
    parameters=46_702_792_704,
    active_parameters=12_879_925_248,
    context_tokens=32_768,
    kv_bytes_per_token=131_072,
    active_share=0.276,
    licence="Apache-2.0",
    repositories=(
        Repository(
            name="mradermacher/Mixtral-8x7B-Instruct-v0.1-GGUF",
            instruct=True,
            state="recommended",
            note="merged experts; named as the working replacement for the older files",
            source="https://github.com/ggml-org/llama.cpp/issues/10244",
            as_of="2024-11",
        ),
        Repository(
            name="MaziyarPanahi/Mixtral-8x7B-Instruct-v0.1-GGUF",
            instruct=True,
            state="unverified",
            note="whether its experts are merged was not checked; the header check decides after the download",
            source=FILES_PAGE,
            as_of="2026-11",
        ),
        Repository(
            name="TheBloke/Mixtral-8x7B-Instruct-v0.1-GGUF",
            instruct=True,
            state="does_not_load",
            note="one tensor per expert, which llama.cpp no longer reads",
            source="https://github.com/ggml-org/llama.cpp/issues/10244",
            as_of="2024-11",
        ),
    ),
    quantisations=(
        QuantisationFacts("Q2_K", 17.0, 20.0, 20),
        QuantisationFacts("Q3_K_M", 22.5, 22.5, 25),
        QuantisationFacts("Q4_K_M", 26.4, 28.4, 31),
        QuantisationFacts("Q5_K_M", 33.0, 33.2, 36),
        QuantisationFacts("Q6_K", 38.4, 38.4, 41),
        QuantisationFacts("Q8_0", 49.6, 49.6, 52),
    ),
    source=COMPUTED,
    as_of=AS_OF,
)

MIXTRAL_8X22B: Final = MixtralFacts(
    model="mixtral-8x22b",
    parameters=140_630_071_296,
    active_parameters=39_161_468_928,
    context_tokens=65_536,
    kv_bytes_per_token=229_376,
    active_share=0.278,
    licence="Apache-2.0",
    repositories=(
        Repository(
            name="MaziyarPanahi/Mixtral-8x22B-Instruct-v0.1-GGUF",
            instruct=True,
            state="unverified",
            note="split files; name and contents were not checked against the hub, the header check decides",
            source=FILES_PAGE,
            as_of="2026-11",
        ),
        Repository(
            name="bartowski/Mixtral-8x22B-v0.1-GGUF",
            instruct=False,
            state="recommended",
            note="the base model, made by llama.cpp b2636, split files; a base file may carry no chat template",
            source=FILES_PAGE,
            as_of="2026-11",
        ),
    ),
    quantisations=(
        QuantisationFacts("Q2_K", 52.1, 52.1, 55),
        QuantisationFacts("Q3_K_M", 67.8, 67.8, 71),
        QuantisationFacts("IQ4_XS", 76.4, 76.4, 79),
        QuantisationFacts("Q4_K_S", 80.5, 80.5, 83),
        QuantisationFacts("Q4_K_M", 85.6, 85.6, 88),
        QuantisationFacts("Q5_K_M", 100.0, 100.0, 103),
    ),
    source=COMPUTED,
    as_of=AS_OF,
)

MIXTRALS: Final = (MIXTRAL_8X7B, MIXTRAL_8X22B)


def find_repository(name: str) -> Repository | None:
    """What is known about a repository of the hub; case does not matter there."""
    known = {repository.name.lower(): repository for facts in MIXTRALS for repository in facts.repositories}
    return known.get(name.lower())
