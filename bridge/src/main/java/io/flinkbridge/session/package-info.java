/**
 * One Session stream to the sidecar: messages out, answers in, limits. It knows the wire contract
 * and gRPC, and nothing of Flink's operators or state.
 */
package io.flinkbridge.session;
