package io.flinkbridge.operator;

import io.flinkbridge.record.BridgeRecord;
import org.apache.flink.streaming.api.operators.AbstractStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.ChainingStrategy;
import org.apache.flink.streaming.api.operators.OneInputStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.StreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;

/**
 * Makes the operator of a segment where it runs; only this and the settings are serialised into the
 * job.
 */
public final class BridgeOperatorFactory extends AbstractStreamOperatorFactory<BridgeRecord>
    implements OneInputStreamOperatorFactory<BridgeRecord, BridgeRecord> {
  private static final long serialVersionUID = 1L;

  private final SegmentSettings settings;

  public BridgeOperatorFactory(SegmentSettings settings) {
    this.settings = settings;
    setChainingStrategy(ChainingStrategy.ALWAYS);
  }

  public SegmentSettings settings() {
    return settings;
  }

  @Override
  @SuppressWarnings("unchecked")
  public <T extends StreamOperator<BridgeRecord>> T createStreamOperator(
      StreamOperatorParameters<BridgeRecord> parameters) {
    return (T) new BridgeOperator(parameters, settings);
  }

  @Override
  @SuppressWarnings("rawtypes")
  public Class<? extends StreamOperator> getStreamOperatorClass(ClassLoader loader) {
    return BridgeOperator.class;
  }
}
