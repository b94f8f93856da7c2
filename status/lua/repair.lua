-- Something is due: say what would put it back on its way, and look again after twice the wait.
--
-- ARGV[1] n, or '' for the run's turn   ARGV[2] p   ARGV[3] ticks it has waited (0: the first look)
--
-- Answers {none}: nothing is owed any more (the entry is gone)
--         {turn, workflow}: publish a turn      {waiting, queue, part}: publish `part` if its message must be lost
--         {claimed, nonce}: a claim nobody vouches for; release it
local n, p = ARGV[1], ARGV[2]
local member = n == '' and RUN_ID or part_id(n, p)
local score = redis.call('ZSCORE', DUE, member)
if not score or tonumber(score) > tick() then return { 'none' } end
local state = redis.call('HGET', RUN, 'state')
if not state or (FINAL[state] and n == '') then
  redis.call('ZREM', DUE, member)
  return { 'none' }
end
if n == '' then
  local waits = redis.call('HINCRBY', RUN, 'waits', 1)
  look_at(member, math.min(2 ^ waits, 64))
  return { 'turn', redis.call('HGET', RUN, 'workflow') }
end
local f = redis.call('HMGET', JOINS .. n, 'nonce', 'c' .. p, 's' .. p, 'a' .. p)
if not f[1] or not f[3] then
  redis.call('ZREM', DUE, member)
  return { 'none' }
end
if f[2] then return { 'claimed', f[1] } end
local waits = redis.call('HINCRBY', JOINS .. n, 'r' .. p, 1)
look_at(member, math.min(2 ^ (waits + 1), 64))
local undoes = string.match(p, '^(%d+)u$')
local queue = string.match(redis.call('HGET', STEPS, n .. '.' .. p) or '', '^([^|]*)|')
return { 'waiting', queue, { p, f[4] or '1', f[3], f[1], undoes and redis.call('HGET', LATE, n .. '.' .. undoes) or '' } }
