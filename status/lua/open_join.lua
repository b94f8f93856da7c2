-- Open await n of a run and file every part of it in `due`, if the run is still where the turn believes.
--
-- ARGV[1] n          await number                ARGV[2] seen    the end of the journal as the turn has read it (see is_read)
-- ARGV[3] nonce      made once by this turn      ARGV[4] fp      fingerprint: kind and step names; then, in a second
--                    line, where it is awaited (file:line), which may change
-- ARGV[5] policy     all|settle|first|quorum|settled             ARGV[6] need  successes a quorum needs
-- ARGV[7] state      of the run from now on      ARGV[8] undo    1 if this await undoes something
-- ARGV[9] timeout    of the whole await, ms or 0 ARGV[10] where   the worker's node name, for the parts that it runs itself
-- ARGV[11] those parts: `p token limit delay` each, joined by spaces: the claim's token, the attempt's time limit, ms or 0,
--          and the delay of the retry after it, ms or -1: none. '' for no part
-- ARGV[12] how many values of status follow (0 or 3)
-- then phase, progress, metadata (JSON); then the number of events and, for each, kind, name, detail;
-- then for each part: kind (step|sleep|promise|receive), delay ms, within ms, queue, label (of a promise or a channel: its
-- name), spec (JSON)
-- or, of a batch: kind `batch`, size, window, queue, label, spec without arguments (JSON), 0 if outcomes are not kept,
-- items in a chunk, then the chunks: each a JSON list of items, the one argument of a part each; no chunk: the items are
-- the run's input (see stage.lua). `wide` in the place of the 0: these are calls of a fan-out, all of which the timeline
-- shows; a chunk is a list of their arguments, [args, kwargs] each. Of a batch of children the queue is `>` and their run ids, with % for the part.
--
-- Answers {opened}: created by this token, publish every step that has no delay
--         {opened, p, attempt, ...}: ... publish these: some ended at once, or had before a retry of the run
--         {granted, now in ms, deadline in ms or 0, ...}: ... but these parts, which are claimed and to be run where this turn is
--         {answered}: ... and is in the journal already: take the next turn
--         {exists, nonce, p, attempt, ...}: open already; these parts nobody has claimed
--         {moved}: the journal is not what the turn has read; start over
--         {foreign, fp, line}: another await is open, or was recorded, under this number
--         {gone}: the run is not there or has ended
local state = redis.call('HMGET', RUN, 'state', 'seen', 'open', 'cancel', 'cancels', 'error', 'again', 'decider')
if not state[1] or FINAL[state[1]] then return { 'gone' } end
local n, nonce, fp, line = ARGV[1], ARGV[3], string.match(ARGV[4], '^([^\n]*)\n?(.*)$')
local join = JOINS .. n
local entry = redis.call('HGET', JOURNAL, n)
if entry then return { cjson.decode(entry)['x'] == nonce and 'answered' or 'moved' } end
if not is_read(state[2], state[8], ARGV[2]) then return { 'moved' } end
if state[3] ~= '' and state[3] ~= n then return { 'moved' } end

-- Adds part and attempt of each part that nobody has claimed and that waits for no timer.
local function add_waiting(waiting)
  for _, p in ipairs(parts_of(n)) do
    local f = redis.call('HMGET', join, 'c' .. p, 'b' .. p, 'a' .. p)
    if not f[1] and not f[2] and not has_ended(n, p) then
      waiting[#waiting + 1] = tostring(p)
      waiting[#waiting + 1] = f[3] or '1'
    end
  end
  return waiting
end

-- The parts that this process runs itself.
local here, here_by_part = {}, {}
for p, token, limit_ms, retry_in_ms in string.gmatch(ARGV[11], '(%d+) (%x+) (%d+) (-?%d+)') do
  here[#here + 1] = { p = p, token = token, limit_ms = tonumber(limit_ms), retry_in_ms = retry_in_ms }
  here_by_part[tonumber(p)] = here[#here]
end

-- Asked again, since the answer was lost: when their time is up, if this process still has them all; else nil.
local function granted_before()
  local deadlines = {}
  for i, wanted in ipairs(here) do
    local claim = claim_of(join, wanted.p)
    if not claim or claim.token ~= wanted.token then return nil end
    deadlines[i] = redis.call('ZSCORE', TIMERS, timer_id('attempt', n, wanted.p, nonce)) or '0'
  end
  return deadlines
end

if state[3] == n then
  local open = redis.call('HMGET', join, 'nonce', 'fp', 'line')
  if open[1] == nonce then
    local deadlines = granted_before()
    if #here == 0 or not deadlines then return add_waiting({ 'opened' }) end
    return { 'granted', int(now_ms()), unpack(deadlines) }
  end
  if open[2] ~= fp then return { 'foreign', open[2], open[3] or '' } end
  return add_waiting({ 'exists', open[1] })
end

-- The await that a retry of the run begins with: its parts that had succeeded are not made again, if it still is
-- what it was.
local function take_up_again()
  redis.call('HDEL', RUN, 'again')
  local kept = {}
  local same = state[7] == n .. '|' .. fp
  for _, field in ipairs(redis.call('HKEYS', JOURNAL)) do
    local m, p = string.match(field, '^(%d+)[.:](.*)$')
    if m == n and same then
      kept[p] = p ~= 'order' or nil
    elseif m == n then
      redis.call('HDEL', JOURNAL, field)
      redis.call('HDEL', STEPS, field, field .. ':s', field .. ':h')
    end
  end
  return kept
end

local now, at = now_ms(), 12
local run = { 'open', n, 'updated_ms', int(now) }
at = hear_news(run, ARGV, at, now, n)
local batch = ARGV[at + 1] == 'batch'
local size = batch and tonumber(ARGV[at + 2]) or (#ARGV - at) / 6
redis.call('HSET', join, 'policy', ARGV[5], 'size', size, 'need', ARGV[6], 'nonce', nonce, 'fp', fp, 'ok', 0, 'bad', 0,
  'undo', ARGV[8], 'line', line)
redis.call('HSET', RUN, unpack(run))
redis.call('ZREM', DUE, RUN_ID)
if state[6] then redis.call('HDEL', RUN, 'error') end -- it was parked, and goes on
if state[1] == 'pending' then redis.call('HSET', RUN, 'started_ms', int(now)) end
if state[1] ~= ARGV[7] and (state[1] ~= 'cancelling' or ARGV[7] == 'compensating') then set_state(state[1], ARGV[7], now) end
event('join.opened', n, fp)

-- A cancel that came while nothing was open is answered here; after a second one only undos still run.
local stopping = ARGV[8] ~= '1' and (state[4] or (tonumber(state[5] or '0') > 1 and '409|cancelled again'))
if stopping then
  redis.call('HDEL', RUN, 'cancel')
  redis.call('HSET', join, 'size', 0)
  decide(n, 'cancelled', stopping, nonce, now)
  return { 'answered' }
end
if ARGV[5] == 'settled' and tonumber(redis.call('HGET', RUN, 'loose') or '0') == 0 then
  redis.call('HSET', JOURNAL, n .. '.late', cjson.encode(redis.call('HGETALL', LATE)))
  decide(n, 'all', '', nonce, now)
  return { 'answered' }
end

local timeout_ms = tonumber(ARGV[9])
if timeout_ms > 0 then
  redis.call('HSET', join, 'timeout', ARGV[9])
  set_timer('join', n, '', nonce, now + timeout_ms)
end

-- Gathered and written a few hundred at a time: one command a part would cost more than the part.
local CHUNK = 500
local steps, fields, due, look = {}, {}, {}, tick() + LOOK_TICKS
local function write()
  if #steps > 0 then redis.call('HSET', STEPS, unpack(steps)) end
  if #fields > 0 then redis.call('HSET', join, unpack(fields)) end
  if #due > 0 then redis.call('ZADD', DUE, unpack(due)) end
  steps, fields, due = {}, {}, {}
end
local function put(list, key, value)
  list[#list + 1] = key
  list[#list + 1] = value
end
-- After a restart of Redis what runs comes first: then they are messages, as any other.
local grants = #here > 0 and not state[7] and redis.call('EXISTS', GRACE) == 0
local kept, ok, first = state[7] and take_up_again() or {}, 0, ''
-- Name and part of each promise and receive; the field that names those that wait for one -> its parts.
local promised, waiters = {}, {}
local SAID = { promise = 'p:', receive = 'q:' }
local TITLE = { promise = 'promise ', receive = 'channel ' }
local outside = {}
for p = 0, (batch and 0 or size) - 1 do
  local kind, delay_ms, within_ms = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  put(steps, n .. '.' .. p, ARGV[at + 4] .. '|' .. (TITLE[kind] or '') .. ARGV[at + 5])
  put(fields, 's' .. p, ARGV[at + 6])
  if within_ms > 0 then put(fields, 'w' .. p, within_ms) end
  if kind ~= 'step' then outside[#outside + 1] = p end
  if kept[tostring(p)] then
    ok = ok + 1
    first = ok == 1 and p or first
  elseif SAID[kind] then
    local name, waits = ARGV[at + 5], SAID[kind] .. ARGV[at + 5]
    promised[#promised + 1] = { kind, name, p }
    waiters[waits] = waiters[waits] or {}
    table.insert(waiters[waits], p)
    put(fields, 'b' .. p, 1)
    if within_ms > 0 then set_timer('within', n, p, nonce, now + within_ms) end
  elseif kind == 'sleep' or delay_ms > 0 then
    put(fields, 'b' .. p, 1)
    set_timer(kind == 'sleep' and 'sleep' or 'start', n, p, nonce, now + delay_ms)
  else
    local mine = grants and here_by_part[p]
    put(due, mine and tick() + LEASE_TICKS or look, part_id(n, p))
    if within_ms > 0 then set_timer('within', n, p, nonce, now + within_ms) end
    if mine then
      mine.name = ARGV[at + 5]
      mine.deadline_ms = file_claim(fields, n, p, nonce, mine.token, ARGV[10], '0', mine.limit_ms, mine.retry_in_ms, now)
      put(steps, n .. '.' .. p .. ':s', 'running|1|' .. int(now) .. '|')
    end
  end
  if #steps >= CHUNK then write() end
  at = at + 6
end
for waits, parts in pairs(waiters) do put(fields, waits, table.concat(parts, ',')) end
if #outside > 0 and #outside < size then put(fields, 'outside', table.concat(outside, ',')) end
write()
if batch then
  redis.call('HSET', join, 'window', ARGV[at + 3], 'next', 0, 'step', ARGV[at + 4] .. '|' .. ARGV[at + 5], 'tpl', ARGV[at + 6],
    'keep', ARGV[at + 7], 'chunk', ARGV[at + 8])
  if #ARGV < at + 9 then redis.call('HSET', join, 'input', 1) end
  for i = at + 9, #ARGV, CHUNK do
    redis.call('RPUSH', join .. ':items', unpack(ARGV, i, math.min(i + CHUNK - 1, #ARGV)))
  end
  if ARGV[at + 7] == 'wide' then
    for p = 0, size - 1 do
      put(steps, n .. '.' .. p, ARGV[at + 4] .. '|' .. ARGV[at + 5])
      if #steps >= CHUNK then write() end
    end
    write()
  end
  for p in pairs(kept) do
    ok = ok + 1
    first = first == '' and p or first
  end
  local bits = join .. ':done'
  if state[7] == n .. '|' .. fp and redis.call('EXISTS', bits) == 1 then
    for p in pairs(kept) do redis.call('SETBIT', bits, p, 1) end
    ok = redis.call('BITCOUNT', bits)
    redis.call('HSET', join, 'again', 1)
  else
    redis.call('UNLINK', bits)
  end
  for _ = 1, math.min(size - ok, tonumber(ARGV[at + 3])) do enter_window(n, now) end
end
if state[7] then
  redis.call('HSET', join, 'ok', ok)
  -- What succeeded after the first decision may be all that was wanted.
  local need = tonumber(ARGV[6])
  local verdict, index = verdict_of(ARGV[5], size, need, need > 0 and math.min(ok, need) or ok, 0, first, ok > 0)
  if ok > 0 and verdict then
    decide(n, verdict, index, nonce, now)
    return { 'answered' }
  end
end
-- The oldest unread message of a channel, if there is one: read now.
local function receive(name)
  local unread = CHANNELS .. '/q/' .. name
  local message = redis.call('LPOP', unread)
  if not message then return nil end
  if redis.call('EXISTS', unread) == 0 then redis.call('SREM', CHANNELS, name) end
  event('message.received', name)
  return message
end

-- What the outside has said before counts now.
local ended = false
for _, one in ipairs(promised) do
  local kind, name, p = one[1], one[2], one[3]
  local outcome
  if kind == 'promise' then
    outcome = string.match(redis.call('HGET', PROMISES, name) or '', '^[^|]*|[^|]*|(.*)$')
  else
    outcome = receive(name)
  end
  if outcome then
    ended = true
    step_is(n, p, string.sub(outcome, 1, 1) == 'v' and 'done' or 'failed', '1', '', int(now))
    if end_part(n, p, outcome, nonce, now) then return { 'answered' } end
  end
end
if ended then
  start_next(n, now)
elseif grants then
  local answer = { 'granted', int(now) }
  for _, mine in ipairs(here) do
    event('step.started', mine.name, '1')
    answer[#answer + 1] = int(mine.deadline_ms)
  end
  return answer
elseif not state[7] then
  return { 'opened' }
end
return add_waiting({ 'opened' })
