-- What every transition of a run shares: the names of its keys and the few verbs that more than one
-- transition needs. Put in front of each of them when it is loaded; it writes nothing by itself.
--
-- KEYS[1]   run      hash: workflow, state, phase, input, result, error, times in ms, ...
-- KEYS[2]   journal  hash: `n` -> the entry of await n (JSON), `n.p` -> the outcome of its part p
-- KEYS[3]   joins    stem: joins .. n is the hash of await n while it is open or has a claim left; joins .. input is a
--                    list of the items that the run was submitted with, where they are a batch's (see stage.lua)
-- KEYS[4]   steps    hash: `n.p` -> `queue|name`, `n.p:s` -> state, attempt and times (the timeline), `n.p:h` -> the
--                    attempts before (see keep_try in _join.lua)
-- KEYS[5]   events   stream, capped
-- KEYS[6]   late     hash: `n.p` -> an outcome that came after the decision
-- KEYS[7]   due      zset of the shard: everything unfinished, scored by the tick at which to look at it
-- KEYS[8]   timers   zset of the shard, scored in ms of this server's TIME
-- KEYS[9]   tick     counter of the shard, raised once a second by the sweep
-- KEYS[10]  states   stem: states .. state is the zset of the shard's runs in it, scored by submission, ms
-- KEYS[11]  ended    zset of the shard: `state|run id`, scored by the end of retention, ms
-- KEYS[12]  wake     channel of the shard: told of a timer that is earlier than all others
-- KEYS[13]  promises hash: name -> `token|await that it decided, or nothing|outcome` (see resolve.lua)
-- KEYS[14]  channels set: the channels with unread messages; and a stem, of two kinds of keys more:
--   channels/q/<name>   list: the unread messages of a channel, oldest first: `v` + JSON value
--   channels/s/<sender> string with a short life: the last message of a sender (see send.lua)
-- After a restart of Redis, and only then, a shard has two more (see meet.lua and reassert.lua):
--   tick:grace    the tick at which claims are granted again     tick:running  zset: step ids that a worker runs
--   although their claim, or all of their join, was in the second that was lost; scored by the tick they are good for
--
-- Fields of a join: policy size need nonce fp ok bad loose decided, and for a part p:
--   s<p> its spec (JSON)      c<p> its claim `token|where|interruptible`      a<p> the attempt to run next
--   b<p> it waits for a timer, or for the outside, and is not to be sent   t<p> the token of its last failed attempt       l<p> lives lost
--   r<p> looks of the sweep at its message            g<p> 1: its message is known to be gone
--   d<p> where its lives were lost                    y<p> the token of a claim whose worker was told to stop
--   w<p> ms it may take from its start (`within`)                             x<p> `token|delay_ms` of its attempt limit
--   z<p> how its failed attempts ended: t if one timed out, else e
--   p:<name> the parts that wait for a promise, as `0,2`   q:<name> those that wait for a message of a channel
--   outside  those that are no steps, where there are steps too
--   e<p> the parts that entered the window of a wide join as this one began, as `40,41`
-- A batch also has window next chunk tpl step keep, in <join>:items its items, `chunk` to an element of the list, and
-- in <join>:live the parts that have begun and not ended: only these have fields of their own (see open_join.lua).
-- A wide join, of many calls that differ by their arguments alone, is kept as a batch is: its `keep` is `wide`.
-- The claim of a part that is a child workflow is `message id of the part|>child run id|0`: no worker holds it, and
-- nobody vouches for it. In `due`, `n.pc` is: tell that child to stop; `tell.` of the child: tell its parents how it ended.
-- An outcome is `v` + JSON value, `e` + JSON error, `t` timed out, `u` unknown (its claim died).
local RUN, JOURNAL, JOINS, STEPS, EVENTS, LATE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local DUE, TIMERS, TICK, STATES, ENDED, WAKE = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local PROMISES, CHANNELS = KEYS[13], KEYS[14]
local GRACE, RUNNING = TICK .. ':grace', TICK .. ':running'
local RUN_ID = string.match(RUN, ':run:(.*)$')

local LEASE_TICKS = 4   -- a claim not vouched for this long is dead
local LOOK_TICKS = 3    -- when the sweep first looks at something nobody has begun
local EVENTS_KEPT = 1000
local FINAL = { completed = 1, failed = 1, compensated = 1, compensation_failed = 1, cancelled = 1, timed_out = 1 }

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- %.0f: tostring() would round a time in ms to 1.7e+12.
local function int(number) return string.format('%.0f', number) end

-- Asked once: nothing changes it while a script runs.
local ticks
local function tick()
  ticks = ticks or tonumber(redis.call('GET', TICK) or '0')
  return ticks
end

local function look_at(member, in_ticks) redis.call('ZADD', DUE, tick() + in_ticks, member) end

local function part_id(n, p) return RUN_ID .. '/' .. n .. '.' .. p end

local function event(kind, name, detail)
  redis.call('XADD', EVENTS, 'MAXLEN', '~', EVENTS_KEPT, '*', 'k', kind, 'n', name, 'd', detail or '')
end

local function step_is(n, p, state, attempt, started_ms, finished_ms)
  redis.call('HSET', STEPS, n .. '.' .. p .. ':s', state .. '|' .. attempt .. '|' .. (started_ms or '') .. '|' .. (finished_ms or ''))
end

-- When its last attempt began, ms; '' if none has.
local function began_at(n, p)
  return string.match(redis.call('HGET', STEPS, n .. '.' .. p .. ':s') or '', '^%a+|%d+|(%d*)') or ''
end

local function step_name(n, p)
  return string.match(redis.call('HGET', STEPS, n .. '.' .. p) or '', '^[^|]*|(.*)$') or ''
end

local function set_state(old, new, now)
  if old ~= new then
    redis.call('ZREM', STATES .. old, RUN_ID)
    redis.call('ZADD', STATES .. new, redis.call('HGET', RUN, 'submitted_ms'), RUN_ID)
  end
  redis.call('HSET', RUN, 'state', new, 'updated_ms', int(now))
end

-- Whether the journal ends with what a turn has read: `nonce of its last await|token that decided it`. The nonce alone won't
-- do: when Redis has lost its last second, the same await may be decided a second time, and otherwise.
local function is_read(seen, decider, read)
  local nonce, by = string.match(read, '^([^|]*)|?(.*)$')
  return nonce == seen and (by == '' or by == decider)
end

-- The end of the journal, in one text.
local function end_of(seen, decider) return seen .. '|' .. (decider or '') end

-- The lease of a turn, in the field `turn` of the run: `end of the journal|token|the tick it is good for`. While it is good no other
-- turn begins at that end; and who has it may go ahead of the journal, if he came first (see read.lua and pass.lua).
local function lease(at, token, ticks) return at .. '|' .. token .. '|' .. int(tick() + ticks) end
local function lease_of(text) return string.match(text or '', '^(.*)|([^|]*)|(%d+)$') end

-- The lease with this token is good for so many ticks, and its turn is looked at then, if that stands where it stood. Returns
-- whether it does.
local function prolong(token, good_ticks, look_ticks)
  local f = redis.call('HMGET', RUN, 'turn', 'seen', 'decider', 'open', 'state')
  local at, its = lease_of(f[1])
  if its ~= token or f[4] ~= '' or FINAL[f[5]] or at ~= end_of(f[2], f[3]) then return false end
  redis.call('HSET', RUN, 'turn', lease(at, token, good_ticks))
  look_at(RUN_ID, look_ticks)
  return true
end

local function timer_id(kind, n, p, nonce)
  return kind .. '|' .. RUN_ID .. '|' .. n .. '|' .. p .. '|' .. nonce
end

local function set_timer(kind, n, p, nonce, at_ms)
  local first = redis.call('ZRANGE', TIMERS, 0, 0, 'WITHSCORES')
  redis.call('ZADD', TIMERS, int(at_ms), timer_id(kind, n, p, nonce))
  if #first == 0 or tonumber(first[2]) > at_ms then redis.call('PUBLISH', WAKE, int(at_ms)) end
end

local function drop_timer(kind, n, p, nonce)
  redis.call('ZREM', TIMERS, timer_id(kind, n, p, nonce))
end

-- A run that has ended keeps its keys for a while only; what is written to it later must go with them.
local function end_with_run(key)
  local left = redis.call('PTTL', RUN)
  if left > 0 then redis.call('PEXPIRE', key, left) end
end

-- The child that part p was is to stop; that is owed to it until it has been told.
local function stop_child(n, p, where)
  if string.sub(where, 1, 1) == '>' then look_at(part_id(n, p .. 'c'), 0) end
end

local function parse_claim(claim)
  if not claim then return nil end
  local token, where, interruptible = string.match(claim, '^([^|]*)|(.*)|([01])$')
  return { token = token, where = where, interruptible = interruptible }
end

local function claim_of(join, p) return parse_claim(redis.call('HGET', join, 'c' .. p)) end
