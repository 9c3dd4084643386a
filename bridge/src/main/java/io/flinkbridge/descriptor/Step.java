package io.flinkbridge.descriptor;

import java.io.Serializable;

/** One step of a segment. */
public record Step(String name, String kind, String onError, Options options)
    implements Serializable {}
