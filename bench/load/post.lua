-- One request again and again: $BODY by POST, with the headers of the command line.
wrk.method = "POST"
wrk.body = os.getenv("BODY")

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"seconds":%.6f,"errors":%d,"p50Us":%d,"p99Us":%d,"counted":{}}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
