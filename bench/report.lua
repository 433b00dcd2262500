-- Prints wrk's own summary as one line that compare.py reads. It defines no per-request hook:
-- wrk then sends its prebuilt request, and the load generator stays as cheap as it can be.
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    "SUMMARY %d %d %d %d %d %d",
    summary.requests, summary.duration,
    e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
