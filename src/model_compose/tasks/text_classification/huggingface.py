"""How does transformers classify texts?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.huggingface.encoder import Encoder
from model_compose.drivers.huggingface.load import read_config
from model_compose.drivers.huggingface.passes import Tokens
from model_compose.tasks.text_classification.labels import Labels, Row
from model_compose.tasks.text_classification.spec import TextClassification


class Classifier:
    """A `BatchModel` for text-classification."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights."""
        config = read_config(options)
        self._encoder = Encoder.load(options, "AutoModelForSequenceClassification", progress, config)
        self._encoder.pack()
        self._labels = Labels(
            tuple(str(config.id2label[i]) for i in range(config.num_labels)),
            config.problem_type,
            if_too_large="set `precision: bfloat16` or `float32`",
        )
        warm_up(self.prepare(TextClassification(text="warm up")), self.forward, options, progress)
        return self._encoder.info

    def budget(self) -> tuple[int, int]:
        """The most rows, and the most tokens with padding."""
        return self._encoder.budget()

    def prepare(self, request: TextClassification) -> list[Item]:
        """Tokenize."""
        self._labels.check(request)
        tokens = self._encoder.tokens(
            request.text, request.max_input_length, truncate=request.truncate, pair=request.text_pair
        )
        return [Item(len(tokens.ids), None, tokens)]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Row]:
        """A number for each label of each text."""
        texts: list[Tokens] = [item.payload for item in items]
        with self._encoder.passing(step.threads):
            logits = self._encoder.logits(texts).double().cpu().numpy()
        return [Row(row, len(text.ids), text.truncated) for row, text in zip(logits, texts, strict=True)]

    def finish(self, request: TextClassification, raws: Sequence[Row]) -> Outcome:
        """Choose the label."""
        (row,) = raws
        return self._labels.choose(request, row)

    def metrics(self) -> Mapping[str, float]:
        """Batches and their rows."""
        return self._encoder.metrics()

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs."""
        return self._encoder.memory()
