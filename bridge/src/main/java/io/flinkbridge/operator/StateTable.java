package io.flinkbridge.operator;

/**
 * The live table of a session's state: what deltas go into, checkpoints copy, and a restore reads.
 */
interface StateTable {
  /** Sets an entry; the value must not change any more. */
  void put(StateKey key, byte[] value) throws Exception;

  /** Takes an entry out. */
  void remove(StateKey key) throws Exception;

  /** Reads all entries; those that the reader says no to are taken out. */
  void readAll(Reader reader) throws Exception;

  /** Puts into Flink's hands what is not there yet; in the synchronous part of a checkpoint. */
  void snapshot() throws Exception;

  /** Takes an entry; returns whether the table keeps it. */
  interface Reader {
    boolean read(StateKey key, byte[] value) throws Exception;
  }
}
