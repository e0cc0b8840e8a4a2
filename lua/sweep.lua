#!lua flags=allow-oom
-- sweep: take away those of the given jobs whose lease has expired.
--
-- KEYS: jobs running ready staged prio completed failed cancelled meta
-- ARGV: now channel queue stalled_error, then ids, oldest claim first
-- Returns: for each job taken: id, state ("Q" recovered, "F" abandoned, "X" cancelled), attempts, stalls, worker
-- Invariants: idempotent; a swept job gets a new fence, so that its former holder's writes are refused.

-- include: base
local jobs, running, ready, staged, prio, completed, failed, cancelled, meta =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local channel, queue, stalled_error = ARGV[2], ARGV[3], ARGV[4]
-- include: meta
-- include: record
-- include: ready
-- include: ended

local answer, swept, recovered = {}, {}, {}
for i = 5, #ARGV do
  local id = ARGV[i]
  local record = call('HGET', running, id)
  local job = record and parse(record)
  if job and job.mark <= now then
    local worker = job.worker
    call('HDEL', running, id)
    tick = tick + 1
    job.id, job.fence, job.stalls, job.updated = id, tick, job.stalls + 1, now
    local most_stalls, ttl = sunpack('>I4I6', job.core, 7)
    if job.cancelling ~= 0 then
      finish_cancelled(job, id)
    else
      local before = call('HGET', jobs, id)
      job.payload = before and parse(before).payload or ''
      if job.stalls > most_stalls then
        finish(job, id, 'F', stalled_error, now + ttl)
      else
        recovered[#recovered + 1] = job
      end
    end
    swept[#swept + 1] = job
    local state = job.state == 'P' and 'Q' or job.state
    for _, value in ipairs({ id, state, job.attempts, job.stalls, worker }) do
      answer[#answer + 1] = value
    end
  end
end
if #recovered > 0 then put_front(recovered) end
for _, job in ipairs(swept) do call('HSET', jobs, job.id, build(job)) end
publish()
if #swept > 0 then save_meta() end
return answer
