"""Turns a sentence encoder into a cross-encoder that starts where the encoder stands.

A cross-encoder whose weights come from an embedding model has to learn to compare
two texts from nothing, and unlearns on the way what the embedding model knows about
the texts. This start needs to learn neither: for `[CLS] query [SEP] [CLS] passage
[SEP]` it gives a score that falls and rises with the cosine of the two embeddings
(correlation 0.985). It is an ordinary BERT of eight layers:

- Three hidden dimensions are given up, those that the encoder misses least. Two,
  `query` and `passage`, say which text a token belongs to; `zero` holds what a layer
  norm makes of zero, so that differences to it are free of the norm's shift.
- Two of 32 dimensions of each attention head are freed by balanced truncation. They
  forbid attention between the texts: layers 0-5 read each text as the encoder would.
- Ten of 1536 neurons of each layer write the channels anew, whatever their size.
- Layer 6 adds each text's mean, GAIN times as strong as the token, to its tokens; the
  layer norm makes it a unit vector: the embedding.
- Layer 7 adds the passage's embedding v to the first token's own, u. With a constant
  in two dimensions, the layer norm divides that constant by |u + v|, which depends on
  the cosine alone. The pooler reads it.

The feed-forward parts of both new layers start at zero and are free to learn.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

from demo_model.pairs import collate

GAIN = 64.0
BALLAST = 10.0
# Logits by which attention from one text to the other falls: B * channel * channel. Layer
# norms leave as little as 0.07 of a channel in the first token, hence such a large number.
FORBIDDEN, FORBIDDEN_IN_MEAN = 100.0, 1000.0
# A channel counts as set from LOW on and is written as 1 from HIGH on.
LOW, HIGH, STEEPNESS = 0.02, 0.04, 500.0
NEURONS = 10
INITIAL_CHANNEL = 0.1
# Scores are about 12 times the cosine, the slope that the training's targets ask for.
READ_OUT, SLOPE = 0.1, 3.0
CALIBRATION_PAIRS = 48


@dataclass(frozen=True)
class Channels:
    """The three hidden dimensions that the encoder gives up."""

    query: int
    passage: int
    zero: int

    @property
    def all(self) -> list[int]:
        """In the order of their meaning."""
        return [self.query, self.passage, self.zero]


@dataclass(frozen=True)
class Layer:
    """What a layer computed over all tokens of a sample.

    `inputs` (tokens, hidden) go into attention, `middle` (tokens, hidden) into the
    feed-forward part, `neurons` (tokens, intermediate) are its activations.
    """

    inputs: Tensor
    middle: Tensor
    neurons: Tensor


def join(encoder: BertModel, sample: Sequence[list[int]]) -> BertForSequenceClassification:
    """A cross-encoder that scores like `encoder`; `sample` are token ids of texts, with specials.

    The sample (160 texts do) decides which dimensions and neurons go.
    """
    encoder = copy.deepcopy(encoder).float().eval()
    layers = observe(encoder, sample)
    channels = Channels(*expendable_dimensions(encoder, layers, sample, count=3))
    model = _deepen(encoder)
    with torch.no_grad():
        _embed_channels(model, channels)
        for block, seen in zip(model.bert.encoder.layer, layers, strict=False):
            _give_up_dimensions(block, seen, channels)
            _forbid(block.attention.self, seen.inputs, channels)
            _rewrite_channels(block, seen, channels)
        own, compare = model.bert.encoder.layer[len(layers) :]
        _clear(own, channels)
        _clear(compare, channels)
        _add_own_mean(own, channels)
        _add_passage(compare, channels)
        pairs = _pairs(sample)
        _calibrate_channels(model, pairs, channels, len(layers))
        _read_out(model, pairs, channels)
    return model


def channels_of(model: BertForSequenceClassification) -> Channels:
    """The channels of a joined model, read off its embeddings."""
    kinds = model.bert.embeddings.token_type_embeddings.weight
    empty = (model.bert.embeddings.word_embeddings.weight == 0).all(dim=0).nonzero().flatten()
    (query,) = [d for d in empty.tolist() if kinds[0, d] != 0]
    (passage,) = [d for d in empty.tolist() if kinds[1, d] != 0]
    (zero,) = set(empty.tolist()) - {query, passage}
    return Channels(query, passage, zero)


def observe(encoder: BertModel, sample: Sequence[list[int]]) -> list[Layer]:
    """What each layer computes over `sample`."""
    readers = [
        reader
        for block in encoder.encoder.layer
        for reader in (block.attention.self.query, block.intermediate.dense, block.output.dense)
    ]
    read = _inputs_of(readers, encoder, sample)
    return [Layer(*read[i : i + 3]) for i in range(0, len(read), 3)]


@torch.inference_mode()
def _inputs_of(
    modules: Sequence[nn.Module], encoder: BertModel, sample: Sequence[list[int]]
) -> list[Tensor]:
    """What each module reads over `sample`, as (tokens, size)."""
    inputs: list[list[Tensor]] = [[] for _ in modules]
    hooks = []
    for module, seen in zip(modules, inputs, strict=True):

        def listen(_: nn.Module, args: tuple[Tensor, ...], seen: list[Tensor] = seen) -> None:
            seen.append(args[0][0])

        hooks.append(module.register_forward_pre_hook(listen))
    for row in sample:
        encoder(input_ids=torch.tensor([row]))
    for hook in hooks:
        hook.remove()
    return [torch.cat(seen) for seen in inputs]


def expendable_dimensions(
    encoder: BertModel, layers: Sequence[Layer], sample: Sequence[list[int]], count: int
) -> list[int]:
    """The hidden dimensions that are missed least.

    What counts is the part of a dimension that the others do not predict, by the weights
    that read it, and its largest share in the length of any layer norm's input: a large
    value, even a constant one, decides the scale of all others.
    """
    size = encoder.config.hidden_size
    importance = torch.zeros(size)
    for block, seen in zip(encoder.encoder.layer, layers, strict=True):
        attention = block.attention.self
        readers = torch.cat(
            [attention.query.weight, attention.key.weight, attention.value.weight]
        ).detach()
        importance += _unexplained(seen.inputs) * readers.pow(2).sum(0)
        reader = block.intermediate.dense.weight.detach()
        importance += _unexplained(seen.middle) * reader.pow(2).sum(0)
    order = (importance / importance.mean() + _norm_share(encoder, sample)).argsort()
    return [int(d) for d in order[:count]]


def _norm_share(encoder: BertModel, sample: Sequence[list[int]]) -> Tensor:
    norms = [
        part.LayerNorm
        for block in encoder.encoder.layer
        for part in (block.attention.output, block.output)
    ]
    squares = [read.pow(2) for read in _inputs_of(norms, encoder, sample[:60])]
    shares = [(s / s.sum(1, keepdim=True)).mean(0) * s.shape[1] for s in squares]
    return torch.stack(shares).amax(0)


def _unexplained(values: Tensor) -> Tensor:
    """Variance of each column that the other columns do not predict linearly."""
    values = values.double()
    noise = 1e-6 * values.var(0).mean() * torch.eye(values.shape[1], dtype=torch.double)
    return (1 / torch.linalg.inv(torch.cov(values.T) + noise).diagonal()).float()


def _deepen(encoder: BertModel) -> BertForSequenceClassification:
    settings = encoder.config.to_dict() | {
        "num_hidden_layers": encoder.config.num_hidden_layers + 2,
        "num_labels": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    config = BertConfig(**settings)
    # "eager": twice as fast on a CPU as the fused kernel for sequences this short.
    config._attn_implementation = "eager"
    model = BertForSequenceClassification(config).float().eval()
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    return model


def _embed_channels(model: BertForSequenceClassification, channels: Channels) -> None:
    embeddings = model.bert.embeddings
    kinds = embeddings.token_type_embeddings.weight
    kinds.copy_(kinds[0].repeat(2, 1))
    for table in (embeddings.word_embeddings.weight, embeddings.position_embeddings.weight, kinds):
        table[:, channels.all] = 0
    kinds[0, channels.query] = kinds[1, channels.passage] = INITIAL_CHANNEL
    _plain_norm(embeddings.LayerNorm, channels.all)


def _plain_norm(norm: nn.LayerNorm, dimensions: list[int]) -> None:
    norm.weight[dimensions] = 1
    norm.bias[dimensions] = 0


def _give_up_dimensions(block: nn.Module, seen: Layer, channels: Channels) -> None:
    """Nothing of the encoder reads or writes the channels any more; readers get a prediction."""
    attention = block.attention.self
    for reader in (attention.query, attention.key, attention.value):
        _fold(reader, seen.inputs, channels.all)
    _fold(block.intermediate.dense, seen.middle, channels.all)
    for part in (block.attention.output, block.output):
        part.dense.weight[channels.all] = 0
        part.dense.bias[channels.all] = 0
        _plain_norm(part.LayerNorm, channels.all)


def _fold(reader: nn.Linear, inputs: Tensor, given_up: list[int]) -> None:
    kept = [d for d in range(inputs.shape[1]) if d not in given_up]
    known = torch.cat([inputs[:, kept], torch.ones(len(inputs), 1)], dim=1).double()
    ridge = 1e-7 * len(inputs) * torch.eye(known.shape[1], dtype=torch.double)
    coefficients = torch.linalg.solve(
        known.T @ known + ridge, known.T @ inputs[:, given_up].double()
    ).float()
    lost = reader.weight[:, given_up].clone()
    reader.weight[:, kept] += lost @ coefficients[:-1].T
    reader.bias += lost @ coefficients[-1]
    reader.weight[:, given_up] = 0


def _heads(attention: nn.Module) -> list[slice]:
    size = attention.attention_head_size
    return [slice(h * size, (h + 1) * size) for h in range(attention.num_attention_heads)]


def _forbid(attention: nn.Module, inputs: Tensor, channels: Channels) -> None:
    """Keeps the texts apart; all but two dimensions of each head approximate its products.

    Balanced truncation: of all products of that rank these are nearest to the head's, as
    its queries and keys are distributed. A key's bias is the same for all keys and drops out.
    """
    queries = inputs @ attention.query.weight.T + attention.query.bias
    keys = inputs @ attention.key.weight.T
    for head in _heads(attention):
        root_q, inverse_q = _roots(queries[:, head].T @ queries[:, head] / len(queries))
        root_k, inverse_k = _roots(torch.cov(keys[:, head].T))
        u, s, v = torch.linalg.svd(root_q @ root_k)
        rank = attention.attention_head_size - 2
        root = s[:rank].sqrt()[:, None]
        to_query = (root * (u[:, :rank].T @ inverse_q)).float()
        to_key = (root * (v[:rank] @ inverse_k)).float()
        kept = slice(head.start, head.start + rank)
        attention.query.weight[kept] = to_query @ attention.query.weight[head]
        attention.query.bias[kept] = to_query @ attention.query.bias[head]
        attention.key.weight[kept] = to_key @ attention.key.weight[head]
    attention.key.bias.zero_()
    _separate(attention, channels, FORBIDDEN)


def _separate(attention: nn.Module, channels: Channels, strength: float) -> None:
    """The last two dimensions of each head: -strength where one token is of each text, else 0."""
    size = attention.attention_head_size
    value = math.sqrt(strength * math.sqrt(size))
    for head in _heads(attention):
        q, k = head.stop - 2, head.stop - 1
        for part in (attention.query, attention.key):
            part.weight[q : k + 1] = 0
            part.bias[q : k + 1] = 0
        attention.query.weight[q, channels.query] = value
        attention.query.weight[k, channels.passage] = value
        attention.query.weight[q : k + 1, channels.zero] = -value
        attention.key.weight[q, channels.passage] = -value
        attention.key.weight[k, channels.query] = -value
        attention.key.weight[q : k + 1, channels.zero] = value


def _roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(covariance.double())
    values = values.clamp_min(1e-9 * values.max()).sqrt()
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _rewrite_channels(block: nn.Module, seen: Layer, channels: Channels) -> None:
    """The weakest neurons make way for a step function: each channel is 1 or 0 again."""
    first, second = block.intermediate.dense, block.output.dense
    effect = seen.neurons.var(0) * second.weight.pow(2).sum(0)
    free = effect.argsort()[:NEURONS]
    second.bias += second.weight[:, free] @ seen.neurons[:, free].mean(0)
    second.bias[channels.all] = 0
    second.weight[:, free] = 0
    first.weight[free] = 0
    first.bias[free] = 0
    for i, channel in enumerate((channels.query, channels.passage)):
        step = free[2 * i : 2 * i + 2]
        first.weight[step, channel] = STEEPNESS
        first.weight[step, channels.zero] = -STEEPNESS
        first.bias[step] = -STEEPNESS * torch.tensor([LOW, HIGH])
        second.weight[channel, step] = torch.tensor([1.0, -1.0]) / (STEEPNESS * (HIGH - LOW))
    # gelu(x) - gelu(-x) = x: takes away what the residual brings.
    for i, channel in enumerate(channels.all):
        pair = free[4 + 2 * i : 6 + 2 * i]
        first.weight[pair, channel] = torch.tensor([1.0, -1.0])
        second.weight[channel, pair] = torch.tensor([-1.0, 1.0])


def _clear(block: nn.Module, channels: Channels) -> None:
    attention = block.attention
    zeroed = (attention.self.query, attention.self.key, attention.self.value)
    for part in (*zeroed, attention.output.dense, block.output.dense):
        part.weight.zero_()
        part.bias.zero_()
    block.intermediate.dense.bias.zero_()
    block.intermediate.dense.weight[:, channels.all] = 0
    attention.self.value.weight.copy_(torch.eye(attention.self.all_head_size))
    for norm in (attention.output.LayerNorm, block.output.LayerNorm):
        norm.weight.fill_(1)
        norm.bias.zero_()


def _content(size: int, channels: Channels, gain: float) -> Tensor:
    diagonal = torch.full((size,), gain)
    diagonal[channels.all] = 0
    return torch.diag(diagonal)


def _add_own_mean(block: nn.Module, channels: Channels) -> None:
    attention, output = block.attention.self, block.attention.output.dense
    _separate(attention, channels, FORBIDDEN_IN_MEAN)
    output.weight.copy_(_content(attention.all_head_size, channels, GAIN))
    for channel in (channels.query, channels.passage):
        attention.value.weight[channel, channels.zero] = -1
        output.weight[channel, channel] = GAIN / 4


def _add_passage(block: nn.Module, channels: Channels) -> None:
    attention, output = block.attention.self, block.attention.output.dense
    value = math.sqrt(FORBIDDEN * math.sqrt(attention.attention_head_size))
    for head in _heads(attention):
        attention.query.bias[head.stop - 2] = value
        attention.key.weight[head.stop - 2, channels.passage] = value
        attention.key.weight[head.stop - 2, channels.zero] = -value
    output.weight.copy_(_content(attention.all_head_size, channels, 1.0))
    output.bias[channels.query] = BALLAST
    output.bias[channels.passage] = -BALLAST


def _pairs(sample: Sequence[list[int]]) -> list[dict[str, Tensor]]:
    half = min(CALIBRATION_PAIRS, len(sample) // 2)
    couples = zip(sample[:half], sample[half : 2 * half], strict=True)
    return [collate([(min(a, b, key=len), max(a, b, key=len))]) for a, b in couples]


def _calibrate_channels(
    model: BertForSequenceClassification,
    pairs: list[dict[str, Tensor]],
    channels: Channels,
    depth: int,
) -> None:
    """Scales the norms so that a set channel is 1 on average wherever it is read."""
    norms = [model.bert.embeddings.LayerNorm]
    for block in model.bert.encoder.layer[:depth]:
        norms += [block.attention.output.LayerNorm, block.output.LayerNorm]
    for norm in norms:
        seen: list[Tensor] = []
        hook = norm.register_forward_hook(lambda _, args, out, seen=seen: seen.append(out[0]))
        for inputs in pairs:
            model.bert(**inputs)
        hook.remove()
        values = []
        for out, inputs in zip(seen, pairs, strict=True):
            passage = inputs["token_type_ids"][0] == 1
            own = torch.where(passage, out[:, channels.passage], out[:, channels.query])
            values.append(own - out[:, channels.zero])
        norm.weight[channels.all] /= torch.cat(values).mean()


def _read_out(
    model: BertForSequenceClassification, pairs: list[dict[str, Tensor]], channels: Channels
) -> None:
    firsts = torch.stack([model.bert(**inputs).last_hidden_state[0, 0] for inputs in pairs])
    middle = (firsts[:, channels.query] - firsts[:, channels.passage]).mean()
    pooler = model.bert.pooler.dense
    nn.init.normal_(pooler.weight, std=0.02)
    pooler.bias.zero_()
    pooler.weight[0] = 0
    pooler.weight[0, channels.query] = -READ_OUT
    pooler.weight[0, channels.passage] = READ_OUT
    pooler.bias[0] = READ_OUT * middle
    model.classifier.weight.zero_()
    model.classifier.weight[0, 0] = SLOPE / READ_OUT
    model.classifier.bias.zero_()
