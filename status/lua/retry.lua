-- Take up a run that has failed again, from await n on, in a new generation; or let a parked one look again.
--
-- ARGV[1] n          the await that failed; what the journal has from it on is forgotten
-- ARGV[2] finished   when the run that the caller has read ended, ms, or ''   ARGV[3] token
-- ARGV[4] the operator who asks, or ''
--
-- Answers {gone}; {parked}, {retried}: publish its turn; {refused, state}: it goes on, or ended in a way that
--         leaves nothing to try again; {undone, state, by}: another run has begun to undo what it did; {moved}: it is not as it was read; {busy, claims}: some of its steps still run
--
-- Parts of await n that had succeeded keep their outcome, so that they don't have their effect again: `kept`
-- has the generation that each of them ran in. `gens` has the await that each generation began with.
-- Messages that the forgotten awaits had received are unread again, in the order in which they were sent.
local f = redis.call('HMGET', RUN, 'state', 'error', 'finished_ms', 'rtoken', 'gen', 'loose', 'gens', 'kept',
  'deadline_ms', 'since_ms', 'submitted_ms', 'undoer', 'bits', 'phase')
local state, n, now = f[1], tonumber(ARGV[1]), now_ms()
local by = ARGV[4] ~= '' and cjson.encode({ by = ARGV[4] }) or ''
if not state then return { 'gone' } end
if not FINAL[state] then
  if f[4] == ARGV[3] then return { 'retried' } end
  if not f[2] then return { 'refused', state } end
  redis.call('HSET', RUN, 'waits', 0)
  redis.call('HDEL', RUN, 'turn', 'turns', 'given_up', 'gone')
  look_at(RUN_ID, LOOK_TICKS)
  if by ~= '' then event('operator.retry', f[5], by) end
  return { 'parked' }
end
if f[12] then return { 'undone', state, f[12] } end
if state ~= 'failed' and state ~= 'timed_out' and state ~= 'cancelled' then return { 'refused', state } end
if f[3] ~= ARGV[2] then return { 'moved' } end
if tonumber(f[6] or '0') > 0 then return { 'busy', f[6] } end

-- Whether a field is about await n or a later one, and the part it is an outcome of.
local function place_of(field)
  local m = tonumber(string.match(field, '^%d+'))
  return m >= n, m == n and string.match(field, '^%d+%.(%d+)$')
end

local generation = 0 -- of await n, as it was
local at = 0
for start in string.gmatch(f[7] or '', '%d+') do
  at = at + 1
  if tonumber(start) <= n then generation = at end
end

local entry = redis.call('HGET', JOURNAL, n)
entry = entry and cjson.decode(entry) or {}
local fp = entry['fp'] or ''
-- A sibling that succeeded after the decision, and was not undone, has succeeded.
local late = redis.call('HGETALL', LATE)
for i = 1, #late, 2 do
  local _, p = place_of(late[i])
  local undone = redis.call('HEXISTS', LATE, late[i] .. 'u') == 1
  if p and string.sub(late[i + 1], 1, 1) == 'v' and not undone then
    redis.call('HSET', JOURNAL, late[i], late[i + 1])
    if string.sub(fp, 1, 6) == 'quorum' then
      local order = redis.call('HGET', JOURNAL, n .. ':order')
      redis.call('HSET', JOURNAL, n .. ':order', order and (order .. ',' .. p) or p)
    end
  end
end
local kept, known = f[8] or '', {}
for place in string.gmatch(kept, '(%S+)=%d+') do known[place] = true end
local journal, unread = redis.call('HGETALL', JOURNAL), {}
for i = 1, #journal, 2 do
  local field, value = journal[i], journal[i + 1]
  local later, p = place_of(field)
  local good = string.sub(value, 1, 1) == 'v'
  local channel = later and good and string.match(redis.call('HGET', STEPS, field) or '', '^|channel (.*)$')
  if channel then
    local m, q = string.match(field, '^(%d+)%.(%d+)$')
    unread[#unread + 1] = { tonumber(m), tonumber(q), channel, value }
    redis.call('HDEL', JOURNAL, field)
  elseif p and good then
    -- No undo of a saga asks for a part of a batch.
    if not known[field] and not entry['n'] then kept = kept .. ' ' .. field .. '=' .. generation end
    known[field] = 'now'
  elseif later and field ~= n .. ':order' then
    redis.call('HDEL', JOURNAL, field)
  end
end
-- A promise that was rejected may be answered anew, if it was awaited in what is forgotten.
local function forget_rejection(step)
  local name = string.match(step, '^|promise (.*)$')
  local said = name and redis.call('HGET', PROMISES, name)
  if said and string.match(said, '^[^|]*|[^|]*|e') then redis.call('HDEL', PROMISES, name) end
end
-- Awaits come one after the other, and in one of them the first part that waits gets the next message.
table.sort(unread, function(a, b) return a[1] > b[1] or (a[1] == b[1] and a[2] > b[2]) end)
for _, one in ipairs(unread) do
  redis.call('LPUSH', CHANNELS .. '/q/' .. one[3], one[4])
  redis.call('SADD', CHANNELS, one[3])
end
local order = redis.call('HGET', JOURNAL, n .. ':order')
if order and #unread > 0 then
  local left = {}
  for p in string.gmatch(order, '%d+') do
    if redis.call('HEXISTS', JOURNAL, n .. '.' .. p) == 1 then left[#left + 1] = p end
  end
  redis.call('HDEL', JOURNAL, n .. ':order')
  if #left > 0 then redis.call('HSET', JOURNAL, n .. ':order', table.concat(left, ',')) end
end
for _, key in ipairs({ STEPS, LATE }) do
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local later = place_of(field)
    local stays = key == STEPS and known[string.match(field, '^[^:]+')] == 'now'
    if later and key == STEPS then forget_rejection(redis.call('HGET', key, field)) end
    if later and not stays then redis.call('HDEL', key, field) end
  end
end

-- Of the items of batches: await n begins with what is done, a later one with nothing.
local bits = {}
for m in string.gmatch(f[13] or '', '%d+') do
  if tonumber(m) > n then redis.call('UNLINK', JOINS .. m .. ':done') else bits[#bits + 1] = m end
  if tonumber(m) == n then redis.call('PERSIST', JOINS .. m .. ':done') end
end
if f[13] then redis.call('HSET', RUN, 'bits', table.concat(bits, ',')) end

local before = n > 0 and redis.call('HGET', JOURNAL, n - 1)
local gen = int(tonumber(f[5] or '0') + 1)
local seen = (before and cjson.decode(before)['x'] or '') .. '#' .. gen
for _, key in ipairs({ RUN, JOURNAL, STEPS, EVENTS, LATE, PROMISES, CHANNELS, JOINS .. 'input' }) do redis.call('PERSIST', key) end
for _, name in ipairs(redis.call('SMEMBERS', CHANNELS)) do redis.call('PERSIST', CHANNELS .. '/q/' .. name) end
redis.call('UNLINK', EVENTS .. '/end')
redis.call('ZREM', ENDED, state .. '|' .. RUN_ID)
redis.call('HDEL', RUN, 'error', 'result', 'finished_ms', 'ctoken', 'cancel', 'cancels', 'kill', 'killed')
redis.call('HSET', RUN, 'gen', gen, 'gens', (f[7] and f[7] .. ',' or '') .. int(n), 'kept', kept, 'again', int(n) .. '|' .. fp,
  'seen', seen, 'open', '', 'waits', 0, 'since_ms', int(now), 'rtoken', ARGV[3])
-- The phase that it goes on in was counted as far as it had come, and begins anew.
if f[14] then redis.call('HSET', RUN, 'phase_ms', int(now)) end
set_state(state, 'running', now)
if f[9] then -- the same time again
  local ends_ms = now + tonumber(f[9]) - tonumber(f[10] or f[11])
  redis.call('HSET', RUN, 'deadline_ms', int(ends_ms))
  set_timer('run', '', '', '', ends_ms)
end
look_at(RUN_ID, LOOK_TICKS)
event('operator.retry', gen, by)
return { 'retried' }
