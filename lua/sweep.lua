#!lua flags=allow-oom
-- sweep: take away those of the given jobs whose lease has expired.
--
-- KEYS: jobs running ready staged prio completed failed cancelled meta lines ring groups opens
-- ARGV: now caller number channel queue stalled_error, then ids, oldest claim first
-- Returns: {how many of the ids were looked at, from the last on; then for each job taken: id, state ("Q" recovered, "F" abandoned,
--   "X" cancelled), attempts, stalls, worker}
-- Invariants: idempotent; a swept job gets a new fence, so that its former holder's writes are refused.

-- include: base
local jobs, running, ready, staged, prio, completed, failed, cancelled, meta, lines, ring, groups, opens =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12],
  KEYS[13]
local caller, number = ARGV[2], ARGV[3]
local channel, queue, stalled_error = ARGV[4], ARGV[5], ARGV[6]
-- include: meta
-- include: seen
-- include: calls
-- include: record
-- include: extras
-- include: ready
-- include: groups
-- include: front
-- include: ended

-- Noted is the answer: its parts, each after its length.
if ahead == 0 then
  local parts, at = {}, 19
  while at <= #noted do
    local size = sunpack('>I4', noted, at)
    parts[#parts + 1] = sub(noted, at + 4, at + 3 + size)
    at = at + 4 + size
  end
  return parts
end

-- From the last on, since each call puts what it recovers in front of what the calls before have.
local looked, bytes, found = 0, 0, {}
for i = #ARGV, 7, -1 do
  if bytes >= BUDGET then break end
  looked = looked + 1
  local id = ARGV[i]
  local record = call('HGET', running, id)
  local job = record and sound(record) and parse(record)
  if record and not job then
    call('HDEL', running, id)
    set_aside(jobs, id)
  end
  if job and job.mark <= now then
    local queued = job.cancelling == 0 and call('HGET', jobs, id)
    job.id, job.payload = id, queued and sound(queued) and parse(queued).payload or ''
    bytes = bytes + #record + #job.payload
    found[#found + 1] = job
  end
end

local answer, recovered = { tostring(looked) }, {}
for i = #found, 1, -1 do
  local job = found[i]
  local id, worker = job.id, job.worker
  call('HDEL', running, id)
  if grouped and group_of(job.extras) then end_run(group_of(job.extras)) end
  tick = tick + 1
  job.fence, job.stalls, job.updated = tick, job.stalls + 1, now
  add_attempt(job, stalled_error)
  local most_stalls, ttl = sunpack('>I4I6', job.core, CORE_STALLS)
  if job.cancelling ~= 0 then
    finish_cancelled(job, id)
  elseif job.stalls > most_stalls then
    finish(job, id, 'F', stalled_error, now + ttl)
  else
    recovered[#recovered + 1] = job
  end
  for _, value in ipairs({ id, job.state == 'P' and 'Q' or job.state, job.attempts, job.stalls, worker }) do
    answer[#answer + 1] = tostring(value)
  end
end
if #recovered > 0 then put_front(recovered) end
for _, job in ipairs(found) do call('HSET', jobs, job.id, build(job)) end
publish()
if #found > 0 then
  if grouped then save_groups(true) end
  -- Who was told that nothing may start waits on this channel: more may now.
  if counters[6] then announce() end
  local parts = {}
  for i, part in ipairs(answer) do parts[i] = spack('>I4', #part) .. part end
  remember(table.concat(parts))
end
return answer
