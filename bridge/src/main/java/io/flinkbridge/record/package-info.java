/**
 * What flows between the operators of a pipeline: a payload, headers, event time, key; and how it
 * is serialised.
 */
package io.flinkbridge.record;
