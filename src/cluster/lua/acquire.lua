-- Locks free shards for a node; a lock that it has already stays as it is.
-- ARGV: node id, its address, time to live in ms, shards.
-- Answers pairs: a shard that is the node's now, the lock's text.
local got, taken = {}, false
for i = 4, #ARGV do
  local key = 'tollgate:shard:' .. ARGV[i]
  local lock = redis.call('GET', key)
  if not lock then
    lock = ARGV[1] .. ' ' .. redis.call('INCR', 'tollgate:term') .. ' ' .. ARGV[2]
    taken = true
  end
  if string.sub(lock, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then
    redis.call('SET', key, lock, 'PX', ARGV[3])
    got[#got + 1] = ARGV[i]
    got[#got + 1] = lock
  end
end
if taken then redis.call('PUBLISH', 'tollgate:moved', ARGV[1]) end
return got
