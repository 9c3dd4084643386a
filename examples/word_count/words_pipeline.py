"""The word count's pipeline, written in Python: `python -m flink_bridge.pipeline words_pipeline -o pipeline.yaml`, in this folder."""

from flink_bridge.pipeline import Pipeline
from words import Count, split

word_count = Pipeline("word_count")
lines = word_count.source("lines", "file", path="${LINES:-examples/word_count/lines.txt}")
words = lines.step(split).key_by(".word", name="by_word")
counts = words.step(Count, name="count", state={"seen": "value"}, options={"least": "${LEAST:-1}"}, parallelism=2)
counts.sink("counts", "file", path="${OUT:-out}/counts.jsonl")
