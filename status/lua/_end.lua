-- What `complete` and `abandon` share: a run ends, and with it all that it has in Redis gets an end.
--
-- A child owes its parents the news of it. Every key of it expires after its retention. The state it was in is left, and
-- the listing forgets what Redis forgets, a few runs at each end of one.
local TELL_MS = 24 * 3600 * 1000
local function end_run(was, state, result, error, token, now)
  local f = redis.call('HMGET', RUN, 'retention_ms', 'deadline_ms', 'loose', 'tells', 'bits')
  local keep_ms = tonumber(f[1])
  count_run(state, now)
  redis.call('HSET', RUN, 'ctoken', token, 'finished_ms', int(now))
  redis.call('HDEL', RUN, 'turn')
  if result ~= '' then redis.call('HSET', RUN, 'result', result) end
  if error ~= '' then redis.call('HSET', RUN, 'error', error) else redis.call('HDEL', RUN, 'error') end
  set_state(was, state, now)
  redis.call('ZREM', DUE, RUN_ID)
  if f[2] then drop_timer('run', '', '', '') end
  event('run.' .. state, '', error)

  -- For those who wait for the end alone: a stream of one entry, and not for long, since who comes later reads the state.
  redis.call('XADD', EVENTS .. '/end', '*', 'k', state)
  redis.call('PEXPIRE', EVENTS .. '/end', int(math.min(keep_ms, 60000)))
  for _, key in ipairs({ RUN, JOURNAL, STEPS, EVENTS, LATE, PROMISES, CHANNELS, JOINS .. 'input' }) do
    redis.call('PEXPIRE', key, int(keep_ms))
  end
  -- What nobody has read stays as long: a retry of the run may.
  for _, name in ipairs(redis.call('SMEMBERS', CHANNELS)) do
    redis.call('PEXPIRE', CHANNELS .. '/q/' .. name, int(keep_ms))
  end
  if f[4] then
    look_at(part_id('tell', ''), 0)
    -- Its parents must be able to hear of it, however short it is kept; `told` sets it right.
    redis.call('PEXPIRE', RUN, int(math.max(keep_ms, TELL_MS)))
  end
  for n in string.gmatch(f[5] or '', '%d+') do redis.call('PEXPIRE', JOINS .. n .. ':done', int(keep_ms)) end
  -- A join that still has a claim goes when the claim does; this is for a claim that nobody gives back.
  if tonumber(f[3] or '0') > 0 then
    local awaits = redis.call('HKEYS', JOURNAL)
    for _, n in ipairs(awaits) do
      redis.call('PEXPIRE', JOINS .. n, int(keep_ms))
      redis.call('PEXPIRE', JOINS .. n .. ':live', int(keep_ms))
    end
  end
  redis.call('ZADD', ENDED, int(now + keep_ms), state .. '|' .. RUN_ID)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', ENDED, '-inf', int(now), 'LIMIT', 0, 10)) do
    local ended_as, run_id = string.match(member, '^([^|]*)|(.*)$')
    redis.call('ZREM', STATES .. ended_as, run_id)
    redis.call('ZREM', ENDED, member)
  end
end
