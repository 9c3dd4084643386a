package io.flinkbridge.descriptor;

import java.io.Serializable;

/**
 * One thing that feeds a segment or sink: a source, or a segment on one of its routes (0 when it
 * has none).
 */
public record Input(boolean fromSource, int index, int route, Partition partition)
    implements Serializable {}
