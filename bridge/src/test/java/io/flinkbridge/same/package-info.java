/**
 * The same answer as Flink: random traces through Flink's own operators and through the bridge,
 * compared.
 *
 * <p>A {@link io.flinkbridge.same.Case} is a step of a pipeline and the native operator that means
 * the same; {@link io.flinkbridge.same.Trace} makes what happens out of a seed; a {@link
 * io.flinkbridge.same.Player} plays it to an operator, whichever; {@link
 * io.flinkbridge.same.SameAnswerTest} compares what came out. A new kind of step (a window, a join)
 * is a new constant of {@link io.flinkbridge.same.Cases} and a native operator.
 */
package io.flinkbridge.same;
