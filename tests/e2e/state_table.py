"""A client's table of state, as docs/wire.md has it: fed by StateDelta, copied with a checkpoint, sent back in RestoreChunks.

It computes hashes, key groups and checksums by itself, so that the sidecar's are judged by another implementation.
"""

import ctypes
import ctypes.util

_xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
_xxhash.XXH3_64bits.restype = ctypes.c_uint64
_xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

VALUE, MAP, LIST, TIMERS = range(4)  # StateKind
BY_KEY, SPLIT, UNION = range(3)  # StatePartition


def xxh3(data):
    """XXH3-64 with seed 0."""
    return _xxhash.XXH3_64bits(data, len(data))


def key_hash(key):
    """What Flink keys its stream by: the low 32 bits, signed."""
    low = xxh3(key) & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low


def key_group(hash_of_key, max_parallelism=128):
    """Flink's MathUtils.murmurHash of the hash, modulo the max parallelism."""

    def rotate(word, bits):
        return (word << bits | word >> (32 - bits)) & 0xFFFFFFFF

    code = hash_of_key * 0xCC9E2D51 & 0xFFFFFFFF
    code = rotate(code, 15) * 0x1B873593 & 0xFFFFFFFF
    code = (rotate(code, 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    code ^= 4
    code = (code ^ code >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    code = (code ^ code >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    code ^= code >> 16
    code = code - (1 << 32) if code >= 1 << 31 else code
    return (code if code >= 0 else 0 if code == -(1 << 31) else -code) % max_parallelism


def subtask_of(group, parallelism, max_parallelism=128):
    """The subtask that has a key group."""
    return group * parallelism // max_parallelism


def groups_of(subtask, parallelism, max_parallelism=128):
    """First and last key group of a subtask."""
    own = [group for group in range(max_parallelism) if subtask_of(group, parallelism, max_parallelism) == subtask]
    return own[0], own[-1]


def checksum_of(message):
    """The checksum that a StateDelta or RestoreChunk has to have."""
    return xxh3(type(message)(entries=message.entries).SerializeToString())


class StateTable:
    """(state, key, sub_key) to StateEntry, and the manifest that says what the states are."""

    def __init__(self, manifest=(), entries=()):
        self.manifest = list(manifest)
        self.entries = {self.name_of(entry): entry for entry in entries}
        self.partial = None  # the parts of a large value that have come

    @staticmethod
    def name_of(entry):
        return entry.state, entry.key, entry.sub_key

    def apply(self, delta):
        """Takes a StateDelta over."""
        assert delta.checksum == checksum_of(delta)
        assert delta.entries, "a StateDelta without entries"
        for entry in delta.entries:
            self.apply_entry(entry)

    def apply_entry(self, entry):
        assert entry.state < len(self.manifest)
        if self.partial is not None:
            assert self.name_of(self.partial) == self.name_of(entry), "the parts of a value follow one another"
            assert not entry.removed
            self.partial.value += entry.value
            if entry.more:
                return
            entry, self.partial = self.partial, None
        elif entry.more:
            self.partial = type(entry)()
            self.partial.CopyFrom(entry)
            self.partial.more = False
            return
        if entry.removed:
            assert not entry.value
            self.entries.pop(self.name_of(entry), None)
        else:
            kept = type(entry)()
            kept.CopyFrom(entry)
            self.entries[self.name_of(entry)] = kept

    def copy(self):
        """As it stands: what goes with a checkpoint."""
        assert self.partial is None, "a checkpoint in the middle of a value"
        return StateTable(self.manifest, self.entries.values())

    def state(self, step, name):
        """The entries of one state, by (key, sub_key)."""
        index = next(i for i, one in enumerate(self.manifest) if (one.step, one.name) == (step, name))
        return {(key, sub): entry.value for (state, key, sub), entry in self.entries.items() if state == index}

    def forget_unkeyed(self):
        """After RestoreAck: entries without keys come anew."""
        self.entries = {
            name: entry for name, entry in self.entries.items() if self.manifest[name[0]].partition == BY_KEY
        }

    def translate(self, manifest):
        """The same entries by the numbers of another manifest; those of states that it lacks are gone."""
        index = {(one.step, one.name): i for i, one in enumerate(manifest)}
        moved = StateTable(manifest)
        for entry in self.entries.values():
            old = self.manifest[entry.state]
            if (old.step, old.name) in index:
                one = type(entry)()
                one.CopyFrom(entry)
                one.state = index[old.step, old.name]
                moved.entries[self.name_of(one)] = one
        return moved


def share(tables, subtask, parallelism, max_parallelism=128):
    """What a subtask of a new parallelism has to get of the tables of all old ones."""
    manifest = tables[0].manifest
    chosen, split = [], 0
    for table in tables:
        assert [(one.step, one.name) for one in table.manifest] == [(one.step, one.name) for one in manifest]
        for entry in table.entries.values():
            partition = manifest[entry.state].partition
            if partition == SPLIT:
                split += 1
                wanted = split % parallelism == subtask
            else:
                wanted = partition == UNION or subtask_of(entry.key_group, parallelism, max_parallelism) == subtask
            if wanted:
                chosen.append(entry)
    return manifest, chosen


def chunks(bridge, entries, size=64 << 10):
    """RestoreChunks of about so many bytes; larger values are cut into parts."""
    chunk, filled = bridge.RestoreChunk(), 0

    def close():
        chunk.checksum = checksum_of(chunk)
        return chunk

    for entry in entries:
        for start in range(0, max(len(entry.value), 1), size):
            part = bridge.StateEntry()
            part.CopyFrom(entry)
            part.value = entry.value[start : start + size]
            part.more = start + size < len(entry.value)
            if filled > 0 and filled + part.ByteSize() > size:
                yield close()
                chunk, filled = bridge.RestoreChunk(), 0
            chunk.entries.append(part)
            filled += part.ByteSize()
    if filled > 0:
        yield close()
