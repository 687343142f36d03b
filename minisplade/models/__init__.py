"""Masked-language models: weights from a checkpoint, and the functions that run them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minisplade.arrays import BoolArray, FloatArray, IdArray, Params
from minisplade.checkpoint import open_checkpoint, read_json
from minisplade.models.bert import BertConfig, Step, hidden_states, steps
from minisplade.models.heads import mlm_logits, mlm_transform
from minisplade.models.names import find_architecture, read_config, read_params, stored_name

__all__ = ["MaskedLanguageModel", "Step", "load_model"]


@dataclass(frozen=True, slots=True)
class MaskedLanguageModel:
    """A configuration and its weights."""

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
        architecture = find_architecture(self.raw_config)
        return {
            stored_name(architecture, name): weight
            for name, weight in self.params.items()
            if name != "head.decoder.weight" or not self.is_tied
        }

    @property
    def is_tied(self) -> bool:
        """Whether the head's decoder is the word embedding matrix itself."""
        return self.params["head.decoder.weight"] is self.params["embeddings.word.weight"]


def load_model(folder: Path) -> MaskedLanguageModel:
    """Read config.json and the weights of a model folder; raises CheckpointError."""
    raw = read_json(folder / "config.json")
    config = read_config(raw)
    return MaskedLanguageModel(config, read_params(open_checkpoint(folder), raw, config), raw)
