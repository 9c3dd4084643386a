/** For those who write their own Flink job and want a segment of a pipeline in it. */
package io.flinkbridge.api;
