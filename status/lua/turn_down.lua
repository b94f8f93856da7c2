-- A worker has taken a message that asks for code which it does not have. It goes to another, and the status says so.
--
-- ARGV[1] n, or '' for the run's turn   ARGV[2] p   ARGV[3] nonce   ARGV[4] attempt
-- ARGV[5] what it waits for: a line for a part, an error (JSON) for a turn
--
-- Answers 1 if the sweep will send it again, 0 if nobody wants this message any more.
-- A turn's run is parked with the error, as by `park`, until a turn of it opens or ends something.
local n, p = ARGV[1], ARGV[2]
-- 1, 2, 4, 8 ticks: both this and the sweep that sends it again count a look.
local function wait_after(looks) return math.min(2 ^ math.floor(looks / 2), 8) end

local f = redis.call('HMGET', RUN, 'state', 'error')
if not f[1] then return 0 end

if n == '' then
  if FINAL[f[1]] or not redis.call('ZSCORE', DUE, RUN_ID) then return 0 end
  redis.call('HSET', RUN, 'gone', 1)
  look_at(RUN_ID, wait_after(redis.call('HINCRBY', RUN, 'waits', 1)))
  if f[2] == ARGV[5] then return 1 end
  redis.call('HSET', RUN, 'error', ARGV[5])
  -- One that is being cancelled or undone stays shown as that.
  if f[1] == 'pending' or f[1] == 'running' then set_state(f[1], 'suspended', now_ms()) end
  event('run.status', 'parked', ARGV[5])
  return 1
end

local join = JOINS .. n
local part = redis.call('HMGET', join, 'nonce', 's' .. p, 'c' .. p, 'a' .. p, 'b' .. p)
if part[1] ~= ARGV[3] or not part[2] or part[3] or part[5] or (part[4] or '1') ~= ARGV[4] then return 0 end
if not redis.call('ZSCORE', DUE, part_id(n, p)) then return 0 end
redis.call('HSET', join, 'g' .. p, 1)
look_at(part_id(n, p), wait_after(redis.call('HINCRBY', join, 'r' .. p, 1)))
redis.call('HSET', STEPS, n .. '.' .. p .. ':w', ARGV[4] .. '|' .. ARGV[5])
return 1
