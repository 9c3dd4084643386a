"""The files that all jobs read: JSON records of 100 bytes and of 1 KB, 10,000 users, the same bytes in every run."""

import json
import pathlib
import random

USERS = 10_000
FILES = 32
# Records in a file: of many for fast jobs, of few for slow ones, so that a short run of a slow one reads several files, too.
LARGE = {100: 16_384, 1000: 4_096}
SMALL = {100: 1_024, 1000: 512}
TEXT = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua"
WORDS = TEXT.split(" ")


def record(chance: random.Random, number: int, size: int) -> str:
    """One record, exactly this long."""
    fields: dict[str, object] = {"user": f"u{chance.randrange(USERS)}", "value": chance.randrange(1_000), "id": number}
    if size > 500:
        fields["kind"] = chance.choice(WORDS)
        fields["tags"] = chance.sample(WORDS, 4)
        fields["place"] = {"x": chance.randrange(1_000), "y": chance.randrange(1_000), "name": chance.choice(WORDS)}
        fields["on"] = chance.random() < 0.5
    fields["text"] = ""
    room = size - len(json.dumps(fields, separators=(",", ":")))
    text = " ".join(chance.choice(WORDS) for _ in range(room // 3 + 1))
    fields["text"] = text[:room]
    return json.dumps(fields, separators=(",", ":"))


def make(folder: pathlib.Path, size: int, records: int) -> list[str]:
    """The paths of the files of one kind; writes those that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(FILES):
        path = folder / f"{size}-{records}-{number}.jsonl"
        if not path.exists():
            chance = random.Random(f"{size} {records} {number}")
            lines = [record(chance, number * records + i, size) for i in range(records)]
            part = path.with_suffix(".part")
            part.write_text("\n".join(lines) + "\n")
            part.rename(path)
        paths.append(str(path))
    return paths


def files(folder: pathlib.Path, size: int, wanted: int, many: bool = False) -> tuple[list[str], int]:
    """Paths of files with about so many records together, some of them repeatedly, and how many those are; many: of the small ones, always."""
    each = SMALL[size] if many or wanted < FILES * SMALL[size] * 4 else LARGE[size]
    paths = make(folder, size, each)
    count = max(4, -(-wanted // each))
    return [paths[i % FILES] for i in range(count)], count * each
