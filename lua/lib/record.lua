-- The record of a job: packed bytes, big-endian. Needs: base.
--
-- core (43): priority h2, max_attempts 4, max_stalls 4, ttl 6, spare 6, created 6, due 6, spare 2, seq 7
-- short, a job that was never claimed ("q" ready, "w" ready with waiters, "s" scheduled):
--     state 1, core 43, size of waiters 3 | waiters, payload
-- full ("Q" ready, "S" scheduled, "R" failing, "P" processing, "C" completed, "F" failed, "X" cancelled):
--     state 1, flags 1, updated 6, mark 7, attempts 4, stalls 4, fence 7, core 43,
--     sizes of waiters 3, progress 4, data 4, worker 2 | waiters, progress, data, worker, payload
--
-- flags: 1 asked to cancel, 2 has waiters, 4 has progress. The sizes of progress and data are one too large,
-- so that 0 means absent. `mark` is the position of a ready job, the end of the lease of a processing one,
-- the expiry of an ended one. A short ready job's position is its seq. The waiters (see ended) stand each after
-- their length in one byte.
-- What changes together stands together: the scripts cut records into few pieces.

-- Whether a record can be read: what foreign hands have cut or written is left out, and shown by fsck.
local LETTERS, SHORTEST, FULL = 'QSRPCFX', 47, 86
local function sound(rec)
  local state, size = sub(rec, 1, 1), #rec
  if state == 'q' or state == 'w' or state == 's' then
    return size >= SHORTEST and size >= SHORTEST + sunpack('>I3', rec, 45)
  end
  if size < FULL or not string.find(LETTERS, state, 1, true) then return false end
  local waiters, progress, data, worker = sunpack('>I3I4I4I2', rec, 74)
  return size >= FULL + waiters + math.max(0, progress - 1) + math.max(0, data - 1) + worker
end

-- Leave a job where it is, in no index: nobody can run it. It is taken from an index once, and so told once.
local function set_aside(key, id)
  redis.log(redis.LOG_WARNING, 'jobqueue: a record in ' .. key .. ' cannot be read: run jobqueue fsck; its id: ' .. id)
end

local function parse(rec)
  local state = sub(rec, 1, 1)
  if state == 'q' or state == 'w' or state == 's' then
    local size = sunpack('>I3', rec, 45)
    return {
      state = state == 's' and 'S' or 'Q', attempts = 0, stalls = 0, fence = 0,
      updated = sunpack('>I6', rec, 24), mark = sunpack('>I7', rec, 38), cancelling = 0,
      core = sub(rec, 2, 44), waiters = sub(rec, 48, 47 + size), worker = '', payload = sub(rec, 48 + size),
    }
  end
  local job = { state = state, core = sub(rec, 31, 73), cancelling = byte(rec, 2) % 2 }
  job.updated, job.mark, job.attempts, job.stalls, job.fence = sunpack('>I6I7I4I4I7', rec, 3)
  local waiters, progress, data, worker = sunpack('>I3I4I4I2', rec, 74)
  local at = 87
  local function field(size)
    at = at + size
    return sub(rec, at - size, at - 1)
  end
  job.waiters = field(waiters)
  if progress > 0 then job.progress = field(progress - 1) end
  if data > 0 then job.data = field(data - 1) end
  job.worker = field(worker)
  job.payload = sub(rec, at)
  return job
end

local function build(job)
  local waiters, progress, data, worker = job.waiters, job.progress, job.data, job.worker
  local flags = job.cancelling + (waiters == '' and 0 or 2) + (progress and 4 or 0)
  return job.state
    .. spack('>BI6I7I4I4I7', flags, job.updated, job.mark, job.attempts, job.stalls, job.fence) .. job.core
    .. spack('>I3I4I4I2', #waiters, progress and #progress + 1 or 0, data and #data + 1 or 0, #worker)
    .. waiters .. (progress or '') .. (data or '') .. worker .. job.payload
end

local function priority_of(job) return (sunpack('>h', job.core, 1)) end
local function seq_of(job) return sub(job.core, 37, 43) end

-- Whether an ended record has expired; live ones never have.
local function expired(rec)
  local state = byte(rec)
  return (state == 67 or state == 70 or state == 88) and sunpack('>I7', rec, 9) <= now
end
