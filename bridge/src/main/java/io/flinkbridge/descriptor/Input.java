package io.flinkbridge.descriptor;

import java.io.Serializable;
import org.jspecify.annotations.Nullable;

/**
 * One thing that feeds a segment or sink: a source, or a segment on one of its routes (0 when it
 * has none). The program is that of a custom partition.
 */
public record Input(
    boolean fromSource, int index, int route, Partition partition, @Nullable String partitionBy)
    implements Serializable {}
