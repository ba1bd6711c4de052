-- Lets go of what a node has of these shards. ARGV: node id, shards.
local freed = 0
for i = 2, #ARGV do
  local key = 'tollgate:shard:' .. ARGV[i]
  local lock = redis.call('GET', key)
  if lock and string.sub(lock, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then freed = freed + redis.call('DEL', key) end
end
if freed > 0 then redis.call('PUBLISH', 'tollgate:moved', ARGV[1]) end
return freed
