-- A worker runs a part whose claim Redis does not know: the claim was in the second that a restart has lost.
--
-- ARGV[1] n   ARGV[2] p   ARGV[3] nonce   ARGV[4] attempt   ARGV[5] token   ARGV[6] where   ARGV[7] 1 if interruptible
-- ARGV[8] time limit of an attempt, ms or 0 (it starts anew)   ARGV[9] delay of the retry after it, ms, or -1
--
-- Answers held: the claim is there (again)
--         noted: this life of the part is not there, or another holds it; for a lease nobody else may begin it
--         over: the part has an outcome, or a later attempt; or no restart was met of late
local n, p, nonce, attempt, token = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local join, np, member = JOINS .. n, n .. '.' .. p, part_id(n, p)
local twin = string.sub(p, -1) == 'u'
if redis.call('EXISTS', GRACE) == 0 then return 'over' end
local function note()
  redis.call('ZADD', RUNNING, tick() + LEASE_TICKS, member)
  return 'noted'
end
local f = redis.call('HMGET', join, 'nonce', 's' .. p, 'decided', 'a' .. p, 'b' .. p)
if f[1] ~= nonce or not f[2] then return note() end
if redis.call('HEXISTS', JOURNAL, np) == 1 or redis.call('HEXISTS', LATE, np) == 1 then return 'over' end
local known, claim, limit_ms, now = tonumber(f[4] or '1'), claim_of(join, p), tonumber(ARGV[8]), now_ms()
if claim and claim.token == token then return 'held' end
if attempt < known then return 'over' end
if claim and attempt == known then return note() end
let_go(n, p, nonce) -- of an earlier attempt, whose end is lost
if f[5] then
  redis.call('HDEL', join, 'b' .. p)
  drop_timer('start', n, p, nonce)
  drop_timer('retry', n, p, nonce)
end
if limit_ms > 0 then
  redis.call('HSET', join, 'x' .. p, token .. '|' .. ARGV[9])
  set_timer('attempt', n, p, nonce, now + limit_ms)
end
redis.call('HSET', join, 'c' .. p, token .. '|' .. ARGV[6] .. '|' .. ARGV[7], 'a' .. p, attempt)
if f[3] and not twin and not claim then loosen(n, 1) end
look_at(member, LEASE_TICKS)
step_is(n, p, 'running', attempt, int(now))
return 'held'
