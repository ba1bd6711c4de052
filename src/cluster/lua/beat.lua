-- A node says that it lives, keeps its locks, and reads how everything stands.
-- ARGV: node id, time to live in ms, its record ('' while it is no member),
--       secret to use when there is none, the highest term it knows of, number
--       of shards, then pairs: a shard it holds, the lock's text.
-- Answers: {records of living nodes}, {text of each lock, false when free}, number of the last news, secret, whether its record was there.
-- What was wiped is written again: nobody else has taken it.
local node, ttl, record = ARGV[1], ARGV[2], ARGV[3]
local known = 0
if record ~= '' then
  local before = redis.call('GET', 'tollgate:node:' .. node)
  if before then known = 1 end
  redis.call('SADD', 'tollgate:nodes', node)
  redis.call('SET', 'tollgate:node:' .. node, record, 'PX', ttl)
  if before ~= record then redis.call('PUBLISH', 'tollgate:moved', node) end
end
redis.call('SET', 'tollgate:secret', ARGV[4], 'NX')
if tonumber(redis.call('GET', 'tollgate:term') or '0') < tonumber(ARGV[5]) then redis.call('SET', 'tollgate:term', ARGV[5]) end

for i = 7, #ARGV, 2 do
  local key = 'tollgate:shard:' .. ARGV[i]
  local lock = redis.call('GET', key)
  if not lock or lock == ARGV[i + 1] then redis.call('SET', key, ARGV[i + 1], 'PX', ttl) end
end

local records = {}
for _, id in ipairs(redis.call('SMEMBERS', 'tollgate:nodes')) do
  local found = redis.call('GET', 'tollgate:node:' .. id)
  if found then records[#records + 1] = found else redis.call('SREM', 'tollgate:nodes', id) end
end
local shards = {}
for n = 1, tonumber(ARGV[6]) do shards[n] = 'tollgate:shard:' .. n end
return { records, redis.call('MGET', unpack(shards)), tonumber(redis.call('GET', 'tollgate:news') or '0'), redis.call('GET', 'tollgate:secret'), known }
