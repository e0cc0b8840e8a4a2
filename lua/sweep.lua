#!lua flags=allow-oom
-- sweep: take away the jobs whose lease has expired, oldest claim first.
--
-- KEYS: jobs running lease ready staged prio completed failed cancelled meta
-- ARGV: now limit channel queue stalled_error
-- Returns: for each job: id, state ("Q" recovered, "F" abandoned, "X" cancelled), attempts, stalls, worker
-- Invariants: idempotent; a swept job gets a new fence, so that its former holder's writes are refused;
--   what idle workers moved aside goes back, so that a dead one keeps nobody asleep.

-- include: base
local jobs, running, lease, ready, staged, prio, completed, failed, cancelled, meta =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local limit, channel, queue, stalled_error = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
-- include: meta
-- include: record
-- include: ready
-- include: ended

local MOST = 5000 -- leases looked at in one step
unstage()
local ids = call('ZRANGEBYSCORE', lease, '-inf', now, 'LIMIT', 0, MOST)
if #ids == 0 or limit <= 0 then return {} end

local list = {}
for i = 1, #ids do
  local record = call('HGET', running, ids[i])
  if record then list[#list + 1] = { id = ids[i], record = record, fence = sub(record, 24, 30) } end
end
table.sort(list, function(a, b) return a.fence < b.fence end)

local answer, recovered, fields = {}, {}, {}
for i = 1, math.min(limit, #list) do
  local id = list[i].id
  local job = parse(list[i].record)
  local worker = job.worker
  call('ZREM', lease, id)
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
  list[i] = job
  local state = job.state == 'P' and 'Q' or job.state
  for _, value in ipairs({ id, state, job.attempts, job.stalls, worker }) do
    answer[#answer + 1] = value
  end
end
if #recovered > 0 then put_front(recovered) end
for i = 1, #answer / 5 do call('HSET', jobs, list[i].id, build(list[i])) end
publish()
save_meta()
return answer
