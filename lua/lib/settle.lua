-- Ending a run in any way but the plain "completed". Needs: base, record, groups, extras, ended,
-- packs, KEYS jobs running failing.
--
-- The data of "f" and "r" are size of summary 2, summary, error.
local released = {} -- jobs to put in front; and by id, the fences of these
local retried -- the earliest due time among the retries

-- The payload stays behind in jobs while a job runs.
local function payload_of(id)
  local record = call('HGET', jobs, id)
  return record and sound(record) and parse(record).payload or ''
end

local function settle(id, job, action, data, ttl, delay)
  if job.cancelling ~= 0 then action = 'x' end
  call('HDEL', running, id)
  if grouped and group_of(job.extras) then end_run(group_of(job.extras)) end
  job.updated = now
  if action == 'c' then
    finish(job, id, 'C', data, now + ttl)
    file(string.format(WHOLE, now + ttl), { id }, 1, 1)
  elseif action == 'x' then
    finish_cancelled(job, id)
  else
    job.payload = payload_of(id)
    if action ~= 'l' then
      local size = sunpack('>I2', data)
      add_attempt(job, sub(data, 3, 2 + size))
      data = sub(data, 3 + size)
    end
    if action == 'f' then
      finish(job, id, 'F', data, now + ttl)
    elseif action == 'r' then
      local due = now + delay
      job.state, job.data, job.worker, job.mark = 'R', data, '', 0
      set_due(job, due)
      call('ZADD', failing, due, seq_of(job) .. id)
      if not retried or due < retried then retried = due end
    else -- released: stored when its place is known
      job.attempts, job.id = job.attempts - 1, id
      released[#released + 1] = job
      released[id] = job.fence
      return 'A'
    end
  end
  call('HSET', jobs, id, build(job))
  return action == 'x' and 'X' or 'A'
end
