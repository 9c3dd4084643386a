/**
 * The Java half of {@code make bench-flink}: the jobs that are compared, one JVM for each, driven
 * by {@code bench/flink/bench_flink.py}. Read {@code Bench}, then {@code Native}. Nothing here is a
 * test, and nothing is in the jar.
 */
package io.flinkbridge.bench;
