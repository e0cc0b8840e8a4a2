#!lua flags=allow-oom
-- revive: make failed jobs run again, dead letters included.
--
-- KEYS: jobs ready staged prio scheduled failing failed meta lines ring groups opens
-- ARGV: now caller number delay payload, then ids
--   delay    milliseconds until they are due
--   payload  "=" and the new payload of each; "": theirs stay
-- Returns: one status per id, of the first at least: "1" revived, "0" no failed job
-- Invariants: a revived job leaves the index of failed ones and is in exactly one other; it begins anew but for its
--   history: another seq, no attempts.

-- include: base
local jobs, ready, staged, prio, scheduled, failing, failed, meta, lines, ring, groups, opens =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local caller, number = ARGV[2], ARGV[3]
local due, payload = now + tonumber(ARGV[4]), ARGV[5]
-- include: meta
-- include: seen
-- include: calls
-- include: record
-- include: extras
-- include: ready
-- include: groups
-- include: promote

if ahead == 0 then return sub(noted, 19) end

local status, planned, bytes = {}, false, 0
local earliest = next_due()
for i = 6, #ARGV do
  if bytes >= BUDGET then break end
  local id = ARGV[i]
  local record = call('HGET', jobs, id)
  local job = record and sub(record, 1, 1) == 'F' and sound(record) and parse(record)
  if job and kept_until(job) > now then
    bytes = bytes + #record + #payload
    if payload ~= '' then job.payload = sub(payload, 2) end
    call('ZREM', failed, id)
    tick = tick + 1
    job.attempts, job.stalls, job.updated, job.data, job.progress = 0, 0, now, nil, nil
    keep_letter(job, nil)
    job.extras = split(job.extras, 'x', 1) -- whoever asks for it wants it to run, however late
    set_seq(job, tick)
    set_due(job, due)
    if due > now then
      job.state, job.mark, planned = 'S', 0, true
      call('ZADD', scheduled, due, seq_of(job) .. id)
    else
      put_back(job, id)
    end
    call('HSET', jobs, id, build(job))
    status[#status + 1] = '1'
  else
    status[#status + 1] = '0'
  end
end
if planned and (not earliest or due < earliest) then wake() end
status = table.concat(status)
if grouped then save_groups(true) end
remember(status, true)
return status
