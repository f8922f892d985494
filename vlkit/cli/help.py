"""How the help of a command reads: plain names, and examples to copy."""

from __future__ import annotations

from typing import Any

# by command; each is run or checked in tests/docs
EXAMPLES: dict[str, tuple[str, ...]] = {
    "quickstart": ("vlkit quickstart", "vlkit quickstart --out runs/second"),
    "train": (
        "vlkit train contrastive/tiny",
        "vlkit train quickstart/multilingual 'data.languages=[en,de,fr]' --dry-run",
        "vlkit train contrastive/tiny --resume",
        "torchrun --nproc-per-node 8 -m vlkit train contrastive/lit 'data.sources.0.path=shards/{000000..000999}.tar'",
    ),
    "show": ("vlkit show contrastive/tiny", "vlkit show quickstart/multilingual optim.lr=1e-4"),
    "explain": ("vlkit explain", "vlkit explain model.image", "vlkit explain optim.lr"),
    "classify": (
        "vlkit classify cat.jpg --labels 'chat,chien,fusée' --language fr",
        "vlkit classify photos/ 'more/*.png' --labels-file labels.txt --json",
        "vlkit classify https://example.org/cat.jpg --labels cat,dog --model open_clip:ViT-B-32/laion2b_s34b_b79k",
        "vlkit classify cat.jpg --labels cat,dog --templates 'a photo of a {}.' --device cpu",
    ),
    "index": (
        "vlkit index photos/ --out photos.index",
        "vlkit index photos.zip --out photos.index --model open_clip:ViT-B-32/laion2b_s34b_b79k",
    ),
    "search": (
        "vlkit search 'قارچ' --index photos.index",
        "vlkit search 'a cat' 'eine Katze' --index photos.index -k 20 --out found.html",
        "vlkit search --image cat.jpg --index photos.index --json",
    ),
    "caption": (
        "vlkit caption photo.jpg --language sw,de",
        "vlkit caption photos/ --language ar --model runs/mine/model --json",
        "vlkit caption photo.jpg --language fr --prefix 'La photo montre' --beams 5",
    ),
    "ask": (
        "vlkit ask '这是什么？' photo.jpg --language zh",
        "vlkit ask 'What differs between <image> and <image>?' one.jpg two.jpg --model runs/mine/model",
        "vlkit ask 'Wie heißt die Hauptstadt von Kenia?' --language de --temperature 0.7 --seed 1",
    ),
    "generate": (
        "vlkit generate 'قارچ' --language fa -n 4 --out grid.png",
        "vlkit generate 'a red mushroom' 'ein roter Pilz' -n 8 --seed 7 --out grid.png",
        "vlkit generate 'a blue hat' --image hat.png --mask mask.png --out other.png",
    ),
    "inspect": ("vlkit inspect vlm/tiny", "vlkit inspect runs/mine/model --digests", "vlkit inspect MODEL --json"),
    "average": (
        "vlkit average runs/mine --out averaged",
        "vlkit average runs/mine --last 20 --weights linear --out averaged",
    ),
    "merge": (
        "vlkit merge runs/mine/model --out merged",
        "vlkit merge adapters/ --base runs/first/model --out merged",
        "vlkit merge hf:Gregor/mblip-mt0-xl --peft language_model=lora/ --out merged",
    ),
    "data": ("vlkit data info captions.jsonl",),
    "data build": (
        "vlkit data build flags",
        "vlkit data build openmoji --languages en,de --out shards/openmoji",
        "vlkit data build smpqa --languages en,de,ru",
    ),
    "data shard": (
        "vlkit data shard captions.jsonl --out shards --image-size 256",
        "vlkit data shard photos/ --out shards --language de --max-mb 500",
    ),
    "data info": ("vlkit data info captions.jsonl", "vlkit data info 'shards/{000000..000009}.tar' --json"),
    "data translate": (
        "vlkit data translate captions.csv --to de,sw,zh --model hf:facebook/nllb-200-distilled-600M --out translated",
    ),
    "data convert": ("vlkit data convert captions.csv --out llava --form llava --task caption",),
    "eval": (
        "vlkit eval runs/quickstart/model drawings",
        "vlkit eval runs/quickstart/model drawings 'languages=[en,de,sw]' --out runs/eval/mine",
        "vlkit eval MODEL retrieval tasks.0.source.path=captions.jsonl",
        "torchrun --nproc-per-node 8 -m vlkit eval MODEL drawings",
    ),
    "mteb": ("vlkit mteb runs/quickstart/model XM3600T2IRetrieval --languages de,sw --out runs/mteb",),
    "compare": (
        "vlkit compare runs/eval/one runs/eval/other --out runs/compare",
        "vlkit compare runs/quickstart/results.json runs/quickstart/results.json --models multilingual,english_only",
    ),
    "correlate": (
        "vlkit correlate reference:babel_imagenet runs/eval/mine --given log-classes",
        "vlkit correlate reference:babel_imagenet/OC-B32 runs/eval/mine/results.json",
    ),
    "scaling": (
        "vlkit scaling --table runs.csv",
        "vlkit scaling runs/small runs/middle runs/large --metric loss --out runs/scaling",
    ),
    "score": ("vlkit score geneval evaluation_metadata.jsonl found-en.jsonl found-hi.jsonl",),
    "score geneval": ("vlkit score geneval evaluation_metadata.jsonl found-en.jsonl found-hi.jsonl --json",),
    "score dpg": ("vlkit score dpg dpg_bench.csv answers.jsonl --compat --out dpg.json",),
    "align": (
        "vlkit align hf:intfloat/multilingual-e5-small --languages de,fr,sw",
        "vlkit align runs/quickstart/model --images openmoji --against runs/eval/mine",
        "vlkit align hf:ID --texts en=one.txt,de=other.txt --score mexa",
    ),
    "labels": ("vlkit labels check labels.json",),
    "labels build": ("vlkit labels build omw --source wordnets/ --out labels-omw.json",),
    "labels check": ("vlkit labels check labels.json", "vlkit labels check labels.tsv --json"),
    "export": (
        "vlkit train quickstart/exportable",
        "vlkit export runs/exportable/model --format open_clip --out exported",
        "vlkit export hf:openai/clip-vit-base-patch32 --format transformers --out exported",
        "vlkit export runs/quickstart/model --format onnx --out exported",
    ),
    "push": (
        "vlkit push runs/quickstart/model ORG/NAME",
        "vlkit push exported ORG/NAME --public -m 'Second version'",
    ),
    "list": (
        "vlkit list recipes",
        "vlkit list bridges",
        "vlkit list models 'open_clip:*B-32*'",
        "vlkit list languages chinese",
    ),
    "bench": ("vlkit bench data --steps 5 --repeats 1",),
    "bench zeroshot": ("vlkit bench zeroshot --images 100 --languages 3 --repeats 1",),
    "bench scoring": ("vlkit bench scoring --images 1000 --languages 2",),
    "bench prompts": ("vlkit bench prompts --templates prompts.json --check de,fr",),
    "bench data": ("vlkit bench data --steps 5 --repeats 1", "vlkit bench data 'shards/{000000..000009}.tar'"),
    "bench contrastive": ("vlkit bench contrastive --ranks 2 --batch 8192 --dim 512",),
    "bench grouped": ("vlkit bench grouped --ranks 4 --batch 1024",),
    "bench t2i": ("vlkit bench t2i", "vlkit bench t2i --batch 4 --json"),
    "bench vlm": ("vlkit bench vlm --json", "vlkit bench vlm --language-model llama --batch 4 --vocabulary 32000"),
    "bench vlm-eval": ("vlkit bench vlm-eval --json",),
    "doctor": ("vlkit doctor", "vlkit doctor --json"),
    "cache": ("vlkit cache list", "vlkit cache clear features"),
    "cache list": ("vlkit cache list",),
    "cache clear": ("vlkit cache clear features", "vlkit cache clear all --yes"),
}


def make_readable(command: Any, name: str) -> Any:
    """The command with examples, and its arguments under the names they have in the texts; its subcommands too."""
    lines = "\n".join(f"  {line}" for line in EXAMPLES.get(name, ()))
    command.epilog = f"\b\nExamples:\n{lines}" if lines else None
    for param in command.params:
        if param.param_type_name == "argument":
            shown = f"{param.metavar}..." if param.nargs != 1 and not param.metavar.endswith("...") else param.metavar
            param.get_usage_pieces = lambda ctx, shown=shown, one=param: [shown if one.required else f"[{shown}]"]
            param.get_help_record = lambda ctx, shown=shown, one=param: (shown, one.help) if one.help else None
    for below, subcommand in getattr(command, "commands", {}).items():
        make_readable(subcommand, f"{name} {below}")
    return command
