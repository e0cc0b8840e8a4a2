#!lua flags=allow-oom
-- get: read records, and register a waiter at the live ones in the same step.
--
-- KEYS: jobs running
-- ARGV: now reply_to payload letters, then ids
--   reply_to  address to register; "" for none
--   payload   "1" to have the payloads
--   letters   "1" to have dead letters, too
-- Returns: for each id, of the first at least, its full record, "" where absent
-- Invariants: only the waiters of live records change.

-- include: base
local jobs, running = KEYS[1], KEYS[2]
local reply_to, payload, letters = ARGV[2], ARGV[3] == '1', ARGV[4] == '1'
-- include: record
-- include: extras
-- include: waiters

local answer, bytes = {}, 0
for i = 5, #ARGV do
  if bytes >= BUDGET then break end
  local id = ARGV[i]
  local record = call('HGET', jobs, id)
  if not record or not sound(record) or expired(record) and not (letters and kept_until(parse(record)) > now) then
    answer[i - 4] = ''
  else
    local live = call('HGET', running, id)
    if live and not sound(live) then live = nil end
    local job = parse(live or record)
    local ended = job.state == 'C' or job.state == 'F' or job.state == 'X'
    if reply_to ~= '' and not ended then
      local waiters = with_waiter(job.waiters, reply_to)
      if waiters ~= job.waiters then
        job.waiters = waiters
        call('HSET', live and running or jobs, id, rebuild(live or record, job))
      end
    end
    if not payload then
      job.payload = ''
    elseif live then
      job.payload = parse(record).payload
    end
    job.waiters = ''
    save(job, nil)
    answer[i - 4] = build(job)
    bytes = bytes + #answer[i - 4]
  end
end
return answer
