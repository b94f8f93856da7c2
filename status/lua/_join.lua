-- What happens to the parts of a join: they start, end, are stopped, and decide it. Beside `_run.lua`, in the scripts
-- that move a part; it writes nothing by itself.
-- The parts of a join that may be waiting or claimed. Of a batch these are few, however many items it has.
local function parts_of(n)
  local f = redis.call('HMGET', JOINS .. n, 'size', 'window')
  if f[2] then return redis.call('SMEMBERS', JOINS .. n .. ':live') end
  local parts = {}
  for p = 0, tonumber(f[1] or '0') - 1 do parts[p + 1] = p end
  return parts
end

-- Whether part p has come to its end. Of a batch that does not keep outcomes, only the parts that live are known.
local function has_ended(n, p)
  return redis.call('HEXISTS', JOURNAL, n .. '.' .. p) == 1 or redis.call('HEXISTS', JOINS .. n, 's' .. p) == 0
end

local function drop_join(n) redis.call('UNLINK', JOINS .. n, JOINS .. n .. ':items', JOINS .. n .. ':live') end

-- The claims that outlive their part, flat: p, token, where, interruptible, ... The caller stops them.
local function loose_claims(n)
  local join, found = JOINS .. n, {}
  for _, p in ipairs(parts_of(n)) do
    local claim = claim_of(join, p)
    if claim then
      for _, value in ipairs({ tostring(p), claim.token, claim.where, claim.interruptible }) do
        found[#found + 1] = value
      end
    end
  end
  return found
end

local function loosen(n, by)
  redis.call('HINCRBY', JOINS .. n, 'loose', by)
  return redis.call('HINCRBY', RUN, 'loose', by)
end

-- A part will not run (again): nothing is due for it any more.
local function retire(n, p, nonce)
  local join = JOINS .. n
  local waits = redis.call('HMGET', join, 'b' .. p, 'w' .. p)
  if waits[1] then
    drop_timer('start', n, p, nonce)
    drop_timer('retry', n, p, nonce)
    drop_timer('sleep', n, p, nonce)
  end
  if waits[2] then drop_timer('within', n, p, nonce) end
end

-- A part ended after its join was decided, or its time was up: its outcome goes to `late`. If it carries an undo and
-- succeeded, or may have, the undo is owed at once as the part `<p>u`. Returns the undo to publish (see start_part) or {}.
local function end_late(n, p, outcome, now)
  local join, kind = JOINS .. n, string.sub(outcome, 1, 1)
  local spec = redis.call('HGET', join, 's' .. p)
  local undo = kind ~= 'e' and spec and cjson.decode(spec)['undo']
  local first = redis.call('HSETNX', LATE, n .. '.' .. p, outcome) == 1
  end_with_run(LATE)
  if not undo or not first then return {} end
  loosen(n, 1)
  local twin = p .. 'u'
  redis.call('HSET', join, 's' .. twin, spec)
  redis.call('HSET', STEPS, n .. '.' .. twin, undo['queue'] .. '|' .. undo['label'])
  look_at(part_id(n, twin), LOOK_TICKS)
  event('saga.undoing', undo['label'], '')
  return { twin, '1', spec, redis.call('HGET', join, 'nonce'), outcome }
end

-- Nobody waits for what has not ended. Returns how many claims and undos outlive the join.
local function stop_rest(n, nonce, now)
  local join, loose, undos = JOINS .. n, 0, 0
  for _, p in ipairs(parts_of(n)) do
    if not has_ended(n, p) then
      retire(n, p, nonce)
      local claim = claim_of(join, p)
      if claim then
        loose = loose + 1
        stop_child(n, p, claim.where)
      else
        redis.call('ZREM', DUE, part_id(n, p))
        local f = redis.call('HMGET', join, 'a' .. p, 'l' .. p, 'z' .. p)
        step_is(n, p, 'stopped', f[1] or '1')
        event('step.stopped', step_name(n, p))
        -- It is not running now, but it was: an attempt that failed or died may have had its effect.
        local began = f[2] and 'u' or f[3]
        if began and #end_late(n, p, began, now) > 0 then undos = undos + 1 end
      end
    end
  end
  stop_outside(n)
  if loose > 0 then loosen(n, loose) end
  return loose + undos
end

-- Whether the process that ends a part takes the turn that this may owe: then it has the lease of that.
local goes_on = false

-- The entry of await n, and where the journal ends now. `size`: the outcomes of so many parts there may be; 0 where that is not
-- known, or many. `counts`: of a batch, how many succeeded and failed.
local function write_entry(n, verdict, index, by, now, nonce, fp, line, size, counts)
  local entry = { v = verdict, i = index, at = now, x = nonce, by = by, fp = fp, l = line or nil, n = counts }
  if size > 0 then entry['s'] = size end
  redis.call('HSET', JOURNAL, n, cjson.encode(entry))
  redis.call('HSET', RUN, 'seen', nonce, 'decider', by, 'open', '', 'updated_ms', int(now), 'waits', 0,
    'turn', goes_on and lease(end_of(nonce, by), by, LOOK_TICKS) or '')
end

-- One decision a join: writes the entry of await n, stops what is left of it and owes the run a turn.
-- Returns the claims that are to be stopped (see loose_claims).
local function decide(n, verdict, index, by, now)
  local join = JOINS .. n
  local f = redis.call('HMGET', join, 'size', 'nonce', 'fp', 'ok', 'bad', 'loose', 'timeout', 'window', 'line', 'keep')
  local size, nonce, ended = tonumber(f[1]), f[2], tonumber(f[4]) + tonumber(f[5])
  local of_batch = f[8] and f[10] ~= 'wide'
  if of_batch then keep_bits(n, verdict) end
  write_entry(n, verdict, index, by, now, nonce, f[3], f[9], of_batch and 0 or size,
    of_batch and (f[4] .. '|' .. f[5]) or nil)
  if f[7] then drop_timer('join', n, '', nonce) end
  local loose = tonumber(f[6] or '0') + (ended < size and stop_rest(n, nonce, now) or 0)
  look_at(RUN_ID, LOOK_TICKS)
  event('join.decided', n, verdict)
  if loose == 0 then
    drop_join(n)
    return {}
  end
  if f[8] then redis.call('UNLINK', join .. ':items') end
  redis.call('HSET', join, 'decided', 1)
  return loose_claims(n)
end

-- Whether the outcomes so far decide await n: its verdict and the part it rests on, or nil.
local function verdict_of(policy, size, need, ok, bad, p, good)
  if policy == 'all' then
    if not good then return 'failed', p end
    if ok == size then return 'all', '' end
  elseif policy == 'settle' then
    if ok + bad == size then return 'all', '' end
  elseif policy == 'first' then
    if good then return 'won', p end
    if bad == size then return 'lost', '' end
  elseif policy == 'quorum' then
    if ok == need then return 'all', '' end
    if bad > size - need then return 'lost', '' end
  end
  return nil
end

-- A part of a batch has ended: it leaves nothing but its outcome, and that only where it is wanted.
local BATCH_SHOWN = 1000 -- parts of a batch that stay in the timeline, and as many failures
local function leave_window(n, p, good, bad, keep)
  local join = JOINS .. n
  redis.call('HDEL', join, 's' .. p, 'a' .. p, 't' .. p, 'l' .. p, 'r' .. p, 'd' .. p, 'y' .. p, 'g' .. p, 'w' .. p, 'z' .. p,
    'e' .. p)
  -- A claim that outlives its part is still to be found.
  if redis.call('HEXISTS', join, 'c' .. p) == 0 then redis.call('SREM', join .. ':live', p) end
  if keep ~= 'wide' and tonumber(p) >= BATCH_SHOWN and (good or bad > BATCH_SHOWN) then
    redis.call('HDEL', STEPS, n .. '.' .. p, n .. '.' .. p .. ':s', n .. '.' .. p .. ':h')
  end
end

-- Steps and sleeps or promises were awaited together. If no step is left, the run only waits for the outside.
local function only_outside(n, outside, left, now)
  for p in string.gmatch(outside, '%d+') do
    if redis.call('HEXISTS', JOURNAL, n .. '.' .. p) == 0 then left = left - 1 end
  end
  if left == 0 and redis.call('HGET', RUN, 'state') == 'running' then set_state('running', 'suspended', now) end
end

-- A part of an undecided join has ended with `outcome`. Returns whether that decided it, whom to stop, and whether
-- another part may have its place.
local function end_part(n, p, outcome, by, now)
  local join, good = JOINS .. n, string.sub(outcome, 1, 1) == 'v'
  local f = redis.call('HMGET', join, 'policy', 'size', 'need', 'ok', 'bad', 'nonce', 'b' .. p, 'w' .. p, 'window', 'keep',
    'outside')
  local ok, bad = tonumber(f[4]), tonumber(f[5])
  if good then ok = ok + 1 else bad = bad + 1 end
  if f[10] ~= '0' or (not good and f[1] == 'all') then
    redis.call('HSET', JOURNAL, n .. '.' .. p, outcome)
  elseif good then
    redis.call('SETBIT', join .. ':done', p, 1)
  end
  redis.call('HSET', join, 'ok', ok, 'bad', bad)
  if good and f[1] == 'quorum' then
    local order = redis.call('HGET', JOURNAL, n .. ':order')
    redis.call('HSET', JOURNAL, n .. ':order', order and (order .. ',' .. p) or p)
  end
  if f[7] or f[8] then retire(n, p, f[6]) end
  if f[9] then leave_window(n, p, good, bad, f[10]) end
  local verdict, index = verdict_of(f[1], tonumber(f[2]), tonumber(f[3]), ok, bad, p, good)
  if not verdict then
    if f[11] then only_outside(n, f[11], tonumber(f[2]) - ok - bad, now) end
    return false, {}, f[9] or not good
  end
  return true, decide(n, verdict, index, by, now)
end

-- Part p may start now. Returns what is to be published: p, attempt, spec, nonce, the outcome that it undoes or ''.
local function start_part(n, p, now)
  local join = JOINS .. n
  local f = redis.call('HMGET', join, 'a' .. p, 's' .. p, 'nonce', 'w' .. p)
  local waited = redis.call('HDEL', join, 'b' .. p) == 1
  if waited then redis.call('HDEL', join, 'r' .. p) end -- looks at a former message
  redis.call('HSET', RUN, 'updated_ms', int(now))
  look_at(part_id(n, p), LOOK_TICKS)
  -- Once, when its delay is over: neither a retry nor a lost process makes its time longer.
  if f[4] and waited and not f[1] then set_timer('within', n, p, f[3], now + tonumber(f[4])) end
  local undoes = string.match(p, '^(%d+)u$')
  return { tostring(p), f[1] or '1', f[2], f[3], undoes and redis.call('HGET', LATE, n .. '.' .. undoes) or '' }
end

-- The next part of a batch gets the place of one that has ended. It is filed as a part of any join is.
local function enter_window(n, now)
  local join = JOINS .. n
  local f = redis.call('HMGET', join, 'size', 'next', 'chunk', 'tpl', 'step', 'again', 'input', 'keep')
  local size, p, chunk = tonumber(f[1]), tonumber(f[2]), tonumber(f[3])
  if f[6] then p = first_undone(join .. ':done', p) end
  while p < size and redis.call('HEXISTS', JOURNAL, n .. '.' .. p) == 1 do p = p + 1 end -- kept by a retry of the run
  redis.call('HSET', join, 'next', int(p + 1))
  if p >= size then return {} end
  local place, items = math.floor(p / chunk), f[7] and (JOINS .. 'input') or (join .. ':items')
  -- Its text is put together as it is: read and written by Lua, a number or an empty list would be another.
  local spec = string.sub(f[4], 1, -2) .. ',"items":' .. redis.call('LINDEX', items, place) .. ',"at":' .. int(p % chunk) .. '}'
  if p % chunk == chunk - 1 and not f[7] then redis.call('LSET', items, place, '') end
  redis.call('HSET', join, 's' .. int(p), spec)
  redis.call('SADD', join .. ':live', int(p))
  if f[8] ~= 'wide' then -- whose parts are all in the timeline from the beginning
    -- Of a child: `>` and its run id, in which the part's number is yet to be put.
    local step = string.sub(f[5], 1, 1) == '>' and string.gsub(f[5], '%%', int(p), 1) or f[5]
    redis.call('HSET', STEPS, n .. '.' .. int(p), step)
  end
  local within = string.match(f[4], '^{"within_ms":(%d+)')
  if within then
    redis.call('HSET', join, 'w' .. int(p), within)
    set_timer('within', n, int(p), redis.call('HGET', join, 'nonce'), now + tonumber(within))
  end
  return start_part(n, int(p), now)
end

-- What may start since a part has ended: in a race a delayed part, as soon as all parts before it have failed.
local function start_next(n, now)
  local join = JOINS .. n
  local f = redis.call('HMGET', join, 'policy', 'size', 'nonce', 'decided', 'window')
  if f[5] and not f[4] then return enter_window(n, now) end
  if f[1] ~= 'first' or f[4] then return {} end
  for p = 0, tonumber(f[2]) - 1 do
    if redis.call('HEXISTS', JOURNAL, n .. '.' .. p) == 0 then
      local delayed = redis.call('ZSCORE', TIMERS, 'start|' .. RUN_ID .. '|' .. n .. '|' .. p .. '|' .. f[3])
      if not delayed then return {} end
      drop_timer('start', n, p, f[3])
      return start_part(n, p, now)
    end
  end
  return {}
end

-- The claim goes with its attempt, whatever came of it.
local function let_go(n, p, nonce)
  local join = JOINS .. n
  if redis.call('HDEL', join, 'x' .. p) == 1 then drop_timer('attempt', n, p, nonce) end
  redis.call('HDEL', join, 'c' .. p)
  redis.call('ZREM', DUE, part_id(n, p))
end

-- The timeline keeps how the attempts before the last ended: `attempt|started ms|ended ms|how` a line, the last few.
-- Asked before the part's state is set anew; `how` is e (failed), t (timed out) or l (its process died).
local TRIES_KEPT_BYTES = 1000
local function keep_try(n, p, how, now)
  local at = n .. '.' .. p
  local f = redis.call('HMGET', STEPS, at .. ':s', at .. ':h')
  local attempt, started = string.match(f[1] or '', '^%a+|(%d+)|(%d+)|')
  if not attempt then return end
  local kept = (f[2] or '') .. attempt .. '|' .. started .. '|' .. int(now) .. '|' .. how .. '\n'
  if #kept > TRIES_KEPT_BYTES then kept = string.match(kept, '\n(.*)$') end
  redis.call('HSET', STEPS, at .. ':h', kept)
end

-- A claim is over without an outcome: that is a life, unless its worker was told to stop. A step that must not run
-- twice (`once`) has lost its only one all the same. Returns how many are lost; also 0 is on record, for stop_rest.
local function lose_life(n, p, claim, once)
  local join, leaving = JOINS .. n, redis.call('HMGET', JOINS .. n, 'y' .. p, 'd' .. p)
  keep_try(n, p, 'l', now_ms())
  if leaving[1] == claim.token and not once then return redis.call('HINCRBY', join, 'l' .. p, 0) end
  redis.call('HSET', join, 'd' .. p, leaving[2] and (leaving[2] .. ', ' .. claim.where) or claim.where)
  return redis.call('HINCRBY', join, 'l' .. p, 1)
end

-- Put names and numbers into an error (JSON), in the place of `{name}`.
local function fill(text, values)
  return (string.gsub(text, '{(%a+)}', function(name)
    return values[name] and string.sub(cjson.encode(tostring(values[name])), 2, -2)
  end))
end

-- An attempt has failed (`left` is e) or timed out (t) and is to be made again after `delay_ms`. One that timed out
-- still runs, and keeps its claim: the next does not begin before it lets go.
local function retry_part(n, p, nonce, attempt, token, delay_ms, why, now, began_ms, left)
  if left == 't' then redis.call('HDEL', JOINS .. n, 'x' .. p) else let_go(n, p, nonce) end
  redis.call('HSET', JOINS .. n, 'a' .. p, attempt + 1, 'b' .. p, 1, 't' .. p, token)
  if redis.call('HGET', JOINS .. n, 'z' .. p) ~= 't' then redis.call('HSET', JOINS .. n, 'z' .. p, left) end
  set_timer('retry', n, p, nonce, now + delay_ms)
  keep_try(n, p, left, now)
  step_is(n, p, 'retrying', attempt, began_ms, int(now))
  local name = step_name(n, p)
  event('step.retrying', name, why)
  count('t', name, '')
end

-- An attempt that had timed out lets go of its claim. Returns the next one to publish, unless its time is yet to come.
local function let_next(n, p, nonce, now)
  let_go(n, p, nonce)
  return redis.call('HEXISTS', JOINS .. n, 'b' .. p) == 0 and start_part(n, p, now) or {}
end

-- A claim that had outlived its part is over. Returns whether that decided the settle that waits for it.
local function tighten(n, by, now)
  local left = loosen(n, -1)
  if tonumber(redis.call('HGET', JOINS .. n, 'loose')) == 0 and redis.call('HEXISTS', JOINS .. n, 'decided') == 1 then
    drop_join(n)
  end
  if left > 0 then return false end
  local open = redis.call('HGET', RUN, 'open') or ''
  if open == '' or redis.call('HGET', JOINS .. open, 'policy') ~= 'settled' then return false end
  redis.call('HSET', JOURNAL, open .. '.late', cjson.encode(redis.call('HGETALL', LATE)))
  decide(open, 'all', '', by, now)
  return true
end

-- Of a claim: its fields are added to `fields`, and the timer of its attempt is set, which may take `limit_ms` (0: as long as
-- it likes); its retry after that starts `retry_in_ms` later. Returns when its time is up, or 0, in ms.
local function file_claim(fields, n, p, nonce, token, where, interruptible, limit_ms, retry_in_ms, now)
  for _, value in ipairs({ 'c' .. p, token .. '|' .. where .. '|' .. interruptible }) do fields[#fields + 1] = value end
  if limit_ms == 0 then return 0 end
  for _, value in ipairs({ 'x' .. p, token .. '|' .. retry_in_ms }) do fields[#fields + 1] = value end
  set_timer('attempt', n, p, nonce, now + limit_ms)
  return now + limit_ms
end

-- Part p is claimed from now on by the delivery with `token` (see file_claim). Returns the answer of a grant: when it begins,
-- and when its time is up or 0, in ms.
local function claim_part(n, p, nonce, attempt, token, where, interruptible, limit_ms, retry_in_ms, name, now)
  local fields = {}
  local deadline_ms = file_claim(fields, n, p, nonce, token, where, interruptible, limit_ms, retry_in_ms, now)
  redis.call('HSET', JOINS .. n, unpack(fields))
  look_at(part_id(n, p), LEASE_TICKS)
  step_is(n, p, 'running', attempt, int(now))
  event('step.started', name, attempt)
  return int(now), int(deadline_ms)
end
