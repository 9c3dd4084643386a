"""The pipeline of the contract tests: segments that each do one thing, so that a test can pick what it needs by name."""

PIPELINE = """
name: wire
sources:
  in: {kind: generator, count: 1}
steps:
  - {name: same, kind: passthrough, from: in}
  - {name: upper, kind: map, from: in, payload: text, program: ascii_upcase}
  - {name: double, kind: map, from: in, program: .v *= 2}
  - {name: fan, kind: flat_map, from: in, program: 'range(.n) as $i | {i: $i, pad: ("x" * .pad)}'}
  - {name: bundle, kind: batch, from: in, size: 3, time: 10s}
  - {name: by_user, kind: key_by, from: in, key: .user}
  - {name: after, kind: map, from: by_user, program: '{seen: .}'}
  - name: split
    kind: route
    from: in
    routes: {big: .v > 100, rest: default}
sinks:
  out: {kind: discard, from: [same, upper, double, fan, bundle, after, split.big, split.rest]}
"""

SAME, UPPER, DOUBLE, FAN, BUNDLE, BY_USER, AFTER, SPLIT = range(8)
SEGMENTS = 8

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
