-- News to all nodes: each has the next number, by which whoever missed one
-- notices it. ARGV: news, each packed. Without any, the number is raised alone:
-- something was lost on its way here.
if #ARGV == 0 then return redis.call('INCR', 'tollgate:news') end
for i = 1, #ARGV do
  redis.call('PUBLISH', 'tollgate:news', redis.call('INCR', 'tollgate:news') .. ' ' .. ARGV[i])
end
