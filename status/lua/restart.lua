-- The workflow asked to begin anew, with other arguments: another round of the run, with an empty journal.
--
-- ARGV[1] seen     the end of the journal as the turn has read it (see is_read)   ARGV[2] token, made once by this turn
-- ARGV[3] input (JSON)                ARGV[4] first: the await that the round begins with, the next that nobody has had
-- ARGV[5] entries of sagas so far                      ARGV[6] status that the round begins with (JSON)
-- ARGV[7] how many values of status follow (0 or 3), then phase, progress, metadata (JSON); then the
-- number of events and, for each, kind, name, detail
--
-- Answers {restarted}: by this token, and a turn is owed; {moved}: start over; {gone}: it is not there or has ended
--
-- Awaits are numbered on: so nothing of a former round can be taken for something of this one, be it a message, a claim,
-- an idempotency key or a child. What stays: unread messages, promises, deadline, status, a cancel that is noted.
local f = redis.call('HMGET', RUN, 'state', 'seen', 'open', 'round_token', 'round', 'loose', 'bits', 'decider',
  'since_ms', 'submitted_ms')
if not f[1] or FINAL[f[1]] then return { 'gone' } end
if f[4] == ARGV[2] then return { 'restarted' } end
if not is_read(f[2], f[8], ARGV[1]) or f[3] ~= '' then return { 'moved' } end
local now, run = now_ms(), {}
hear_news(run, ARGV, 7, now)
if #run > 0 then redis.call('HSET', RUN, unpack(run)) end

-- A join that still has claims needs what is known of its parts: whoever ends late must not be taken for new.
local all_are = tonumber(f[6] or '0') <= 0
local function is_over(field) return all_are or redis.call('EXISTS', JOINS .. string.match(field, '^%d+')) == 0 end
local steps, forgotten, gathered = redis.call('HGETALL', STEPS), {}, {}
for i = 1, #steps, 2 do
  if is_over(steps[i]) then
    forgotten[#forgotten + 1] = steps[i]
    forgotten[#forgotten + 1] = steps[i + 1]
  end
end
gather_steps(gathered, forgotten, tonumber(f[9] or f[10]))
write_counts(gathered)
for _, key in ipairs({ JOURNAL, STEPS, LATE }) do
  for _, field in ipairs(all_are and {} or redis.call('HKEYS', key)) do
    if is_over(field) then redis.call('HDEL', key, field) end
  end
  if all_are then redis.call('UNLINK', key) end
end
-- Which items of a batch were done is for a retry of that await.
for n in string.gmatch(f[7] or '', '%d+') do redis.call('UNLINK', JOINS .. n .. ':done') end
local round = int(tonumber(f[5] or '1') + 1)
redis.call('HDEL', RUN, 'error', 'again', 'kept', 'bits', 'turn', 'turns', 'given_up', 'gone')
redis.call('HSET', RUN, 'round_input', ARGV[3], 'first', ARGV[4], 'entries', ARGV[5], 'carried', ARGV[6], 'round', round,
  'round_ms', int(now), 'round_token', ARGV[2], 'seen', ARGV[2] .. '#', 'waits', 0, 'updated_ms', int(now))
if f[1] == 'pending' then redis.call('HSET', RUN, 'started_ms', int(now)) end
if f[1] == 'pending' or f[1] == 'suspended' then set_state(f[1], 'running', now) end
look_at(RUN_ID, LOOK_TICKS)
event('run.restarted', round)
return { 'restarted' }
