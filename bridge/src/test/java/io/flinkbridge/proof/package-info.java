/**
 * The proof: whole pipelines on a Flink cluster, with a real sidecar and a real Kafka, while
 * everything that can break is broken. What has been committed at the end is compared with what
 * {@link io.flinkbridge.proof.Workload} computes by itself.
 */
package io.flinkbridge.proof;
