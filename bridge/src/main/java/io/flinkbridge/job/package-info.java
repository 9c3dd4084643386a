/** Sources, segments, sinks and settings into a Flink job. */
package io.flinkbridge.job;
