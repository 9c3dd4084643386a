/** descriptor.yaml into immutable records, with everything checked that the sidecar checks. */
package io.flinkbridge.descriptor;
