"""What `--model` names: the name under which the store knows a folder's model, and the content of its files."""

import hashlib
import re
from pathlib import Path

TINY_MODEL = "tiny"
"""The model name that stands for a two-layer BERT of random weights over the train split's own words."""

# Names that trainers give, and that say nothing of the model within.
GENERIC = re.compile(
    r"(model|checkpoint|weight|output|encoder)s?([-_]?\d+)?|(best|last|final)([-_](model|checkpoint))?"
)
HUB_CACHE = re.compile(r"snapshots|[0-9a-f]{40}")  # below the folder that the hub's cache names after the model
NUM_DIGITS = 8  # of a hash, in hexadecimal: one in four billion
ADAPTER = "adapter_config.json"  # names a model that lies elsewhere
SETTINGS = ("config.json", "tokenizer_config.json")  # which may name files that lie elsewhere
INDICES_OF_SHARDS = "*.index.json"  # name the files of the weights where they are many, in other folders too
_PATH_OF_SHARD = re.compile(r':\s*"[^"]*[/\\][^"]*"')
_ABSOLUTE_PATH = re.compile(r'"(/[^"]+)"')


def name_of_folder(folder: Path, content_hash: str) -> str:
    """The folder's own name, those above it before it where it is generic, and the first digits of the content hash.

    Two folders called `model` are two models in the store, and a folder that was trained on is another than before.
    """
    names: list[str] = []
    for part in reversed(folder.resolve().parts[1:]):
        if HUB_CACHE.fullmatch(part):
            continue
        names.insert(0, part)
        if not GENERIC.fullmatch(part.lower()):
            break
    return "-".join([*names, content_hash[:NUM_DIGITS]])


def files_of_model(name_or_dir: str) -> tuple[str, ...] | None:
    """What the model is loaded from: its place, and each file of its folder with a hash of its content.

    None where that is not all: a name that the hub is asked about, an adapter, or a file of another folder. The tiny
    model follows from the corpus.
    """
    if name_or_dir.lower() == TINY_MODEL:
        return (TINY_MODEL,)
    folder = Path(name_or_dir)
    try:
        if not folder.is_dir() or (folder / ADAPTER).exists() or _names_files_elsewhere(folder):
            return None
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return (str(folder.resolve()), *(part for path in files for part in (path.name, _hash_of_file(path))))
    except (OSError, ValueError):  # what cannot be read, or is no text: loading it says so
        return None


def _names_files_elsewhere(folder: Path) -> bool:
    settings = [path for name in SETTINGS if (path := folder / name).is_file()]
    if any(Path(named).is_file() for path in settings for named in _ABSOLUTE_PATH.findall(_text(path))):
        return True
    return any(_PATH_OF_SHARD.search(_text(path)) for path in folder.glob(INDICES_OF_SHARDS))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
