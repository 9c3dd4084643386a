package io.flinkbridge.descriptor;

import java.io.Serializable;

/** Where records come from. */
public record Source(String name, String kind, int parallelism, Options options)
    implements Serializable {}
