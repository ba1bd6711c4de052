-- A node that holds nothing any more is no member. ARGV: node id.
redis.call('DEL', 'tollgate:node:' .. ARGV[1])
redis.call('SREM', 'tollgate:nodes', ARGV[1])
return redis.call('PUBLISH', 'tollgate:moved', ARGV[1])
