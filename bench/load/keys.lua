-- POSTs $BODY with each of the keys in the file $KEYS in turn, so that the calls of all
-- connections are spread over all accounts. From $STOP_MS (epoch milliseconds) on every
-- connection asks $REST instead, which costs nothing: then each call that was sent has its
-- answer, and what was charged can be compared with what was answered, to the cent.
-- $BEGIN_MS ends the warm-up; calls sent before are counted apart.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long us; } tollgate_time; int gettimeofday(tollgate_time *, void *); ]]
local now = ffi.new("tollgate_time")
local begin, stop = tonumber(os.getenv("BEGIN_MS")), tonumber(os.getenv("STOP_MS"))
local requests, rest, at = {}, nil, 0
local threads = {}
-- wrk asks for one request that it only looks at, before the first that it sends.
warm, measured, idle = -1, 0, 0

function setup(thread) table.insert(threads, thread) end

function init()
  for key in io.lines(os.getenv("KEYS")) do
    requests[#requests + 1] = wrk.format("POST", nil, { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. key }, os.getenv("BODY"))
  end
  rest = wrk.format("GET", os.getenv("REST"))
end

function request()
  ffi.C.gettimeofday(now, nil)
  local ms = tonumber(now.s) * 1000 + tonumber(now.us) / 1000
  if ms >= stop then
    idle = idle + 1
    return rest
  end
  if ms >= begin then measured = measured + 1 else warm = warm + 1 end
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e, thread = summary.errors, threads[1]
  io.write(string.format('\n{"requests":%d,"seconds":%.6f,"errors":%d,"p50Us":%d,"p99Us":%d,"counted":{"warm":%d,"measured":%d,"idle":%d}}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99),
    thread:get("warm"), thread:get("measured"), thread:get("idle")))
end
