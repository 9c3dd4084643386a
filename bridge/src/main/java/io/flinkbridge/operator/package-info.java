/** The bridge operator: one segment of a pipeline in a Flink job; its logic runs in the sidecar. */
package io.flinkbridge.operator;
