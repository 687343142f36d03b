"""Models: weights from a checkpoint, and the functions that run them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minisplade.arrays import BoolArray, FloatArray, IdArray, Params
from minisplade.checkpoint import open_checkpoint, open_file, read_json
from minisplade.models import bert
from minisplade.models.bert import BertConfig, Step, hidden_states, steps
from minisplade.models.heads import (
    class_logits,
    class_shapes,
    mlm_logits,
    mlm_transform,
    token_weights,
)
from minisplade.models.names import (
    find_architecture,
    num_classes,
    param_shapes,
    read_config,
    read_params,
    stored_weights,
)

__all__ = [
    "MaskedLanguageModel",
    "PairClassifier",
    "Step",
    "TokenWeigher",
    "load_classifier",
    "load_model",
    "load_token_weigher",
]


@dataclass(frozen=True, slots=True)
class MaskedLanguageModel:
    """A configuration and its weights, with a score for every term at every token."""

    config: BertConfig
    params: Params
    raw_config: dict[str, Any]  # config.json as it was

    def hidden_states(self, input_ids: IdArray, attention_mask: BoolArray) -> FloatArray:
        """Run the encoder: int32 and bool (B, T) to float32 (B, T, D)."""
        return hidden_states(self.params, self.config, input_ids, attention_mask)

    def transformed(self, input_ids: IdArray, attention_mask: BoolArray) -> FloatArray:
        """Run the encoder and the head's transform: int32 and bool (B, T) to (B, T, D)."""
        states = self.hidden_states(input_ids, attention_mask)
        return mlm_transform(self.params, self.config, states)

    def logits(self, input_ids: IdArray, attention_mask: BoolArray) -> FloatArray:
        """Run everything: int32 and bool (B, T) to float32 (B, T, V)."""
        return self.head_logits(self.hidden_states(input_ids, attention_mask))

    def head_logits(self, hidden_states: FloatArray) -> FloatArray:
        """Run the head alone: float32 (B, T, D) to (B, T, V)."""
        return mlm_logits(self.params, mlm_transform(self.params, self.config, hidden_states))

    def steps(self, input_ids: IdArray, attention_mask: BoolArray) -> Iterator[Step]:
        """Run the encoder step by step: the embeddings, then one layer after the other."""
        return steps(self.params, self.config, input_ids, attention_mask)

    def stored_weights(self) -> Params:
        """Return the weights under the names of the checkpoint, a tied decoder only once."""
        return stored_weights(self.params, self.raw_config)

    @property
    def is_tied(self) -> bool:
        """Whether the head's decoder is the word embedding matrix itself."""
        return self.params["head.decoder.weight"] is self.params["embeddings.word.weight"]


@dataclass(frozen=True, slots=True)
class PairClassifier:
    """A configuration and its weights, with a few scores for each pair of texts."""

    config: BertConfig
    params: Params
    raw_config: dict[str, Any]

    def hidden_states(
        self, input_ids: IdArray, attention_mask: BoolArray, token_type_ids: IdArray
    ) -> FloatArray:
        """Run the encoder: int32, bool and int32 (B, T) to float32 (B, T, D)."""
        return hidden_states(self.params, self.config, input_ids, attention_mask, token_type_ids)

    def logits(self, first_states: FloatArray) -> FloatArray:
        """Score pairs by the hidden state of their first token: float32 (B, D) to (B, C)."""
        bend = find_architecture(self.raw_config, "class").class_bend
        return class_logits(self.params, first_states, bend)

    def stored_weights(self) -> Params:
        """Return the weights under the names of the checkpoint."""
        return stored_weights(self.params, self.raw_config, "class")

    @property
    def num_classes(self) -> int:
        """Scores that each pair gets: C."""
        return self.params["classifier.output.bias"].size


@dataclass(frozen=True, slots=True)
class TokenWeigher:
    """A configuration and its weights, with one weight for each token: bge-m3's sparse part."""

    config: BertConfig
    params: Params
    raw_config: dict[str, Any]

    def weights(self, input_ids: IdArray, attention_mask: BoolArray) -> FloatArray:
        """Weigh tokens: int32 and bool (B, T) to float32 (B, T)."""
        states = hidden_states(self.params, self.config, input_ids, attention_mask)
        return self.weights_of(states)

    def weights_of(self, states: FloatArray) -> FloatArray:
        """Weigh tokens by their hidden states: float32 (..., D) to (...)."""
        return token_weights(self.params, states)

    def stored_weights(self) -> Params:
        """Return the encoder's weights under the names of the checkpoint."""
        encoder = {name: w for name, w in self.params.items() if not name.startswith("sparse.")}
        return stored_weights(encoder, self.raw_config, "encoder")


def load_model(folder: Path) -> MaskedLanguageModel:
    """Read config.json and the weights of a model folder; raises CheckpointError."""
    raw = read_json(folder / "config.json")
    config = read_config(raw)
    params = read_params(open_checkpoint(folder), raw, param_shapes(config))
    return MaskedLanguageModel(config, params, raw)


def load_classifier(folder: Path) -> PairClassifier:
    """Read the same of a model with a classification head; raises CheckpointError."""
    raw = read_json(folder / "config.json")
    config = read_config(raw, "class")
    shapes = bert.param_shapes(config) | class_shapes(config, num_classes(raw))
    params = read_params(open_checkpoint(folder), raw, shapes, "class")
    return PairClassifier(config, params, raw)


def load_token_weigher(folder: Path, head: Path) -> TokenWeigher:
    """Read an encoder, and from a file of its own the layer that weighs tokens.

    Raises CheckpointError.
    """
    raw = read_json(folder / "config.json")
    config = read_config(raw, "encoder")
    params = read_params(open_checkpoint(folder), raw, bert.param_shapes(config), "encoder")
    layer = open_file(head)
    params["sparse.weight"] = layer.weight("weight", (1, config.hidden_size))
    params["sparse.bias"] = layer.weight("bias", (1,))
    return TokenWeigher(config, params, raw)
