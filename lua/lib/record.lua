-- The record of a job: packed bytes, big-endian. Needs: base.
--
-- core (43): priority h2, max_attempts 4, max_stalls 4, ttl 6, token 8, seq 7, created 6, due 6
-- short, a job that was never claimed ("q" ready, "s" scheduled):
--     state 1, core 43, size of waiters 3 | waiters, payload
-- full ("Q" ready, "S" scheduled, "R" failing, "P" processing, "C" completed, "F" failed, "X" cancelled):
--     state 1, attempts 4, stalls 4, fence 7, updated 6, mark 7, cancelling 1, core 43,
--     sizes of waiters 3, progress 4, data 4, worker 2 | waiters, progress, data, worker, payload
--
-- The sizes of progress and data are one too large, so that 0 means absent. `mark` is the position of a
-- ready job, the end of the lease of a processing one, the expiry of an ended one. A short ready job's
-- position follows from its seq. `token` names the call that inserted the job. The waiters are addresses,
-- each after its length in one byte.
local BIAS = 4503599627370496 -- 2^52: a position is BIAS + tick at the back, BIAS - tick at the front

local function parse(rec)
  local state = sub(rec, 1, 1)
  if state == 'q' or state == 's' then
    local size = sunpack('>I3', rec, 45)
    local seq, created = sunpack('>I7I6', rec, 26)
    return {
      state = state == 'q' and 'Q' or 'S', attempts = 0, stalls = 0, fence = 0, updated = created,
      mark = BIAS + seq, cancelling = 0, core = sub(rec, 2, 44), waiters = sub(rec, 48, 47 + size),
      worker = '', payload = sub(rec, 48 + size),
    }
  end
  local job = { state = state, core = sub(rec, 31, 73) }
  job.attempts, job.stalls, job.fence, job.updated, job.mark, job.cancelling =
    sunpack('>I4I4I7I6I7B', rec, 2)
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
  local progress, data = job.progress, job.data
  return job.state
    .. spack('>I4I4I7I6I7B', job.attempts, job.stalls, job.fence, job.updated, job.mark, job.cancelling)
    .. job.core
    .. spack('>I3I4I4I2', #job.waiters, progress and #progress + 1 or 0, data and #data + 1 or 0, #job.worker)
    .. job.waiters .. (progress or '') .. (data or '') .. job.worker .. job.payload
end

local function priority_of(job) return (sunpack('>h', job.core, 1)) end
local function seq_of(job) return (sunpack('>I7', job.core, 25)) end

-- Whether an ended record has expired; live ones never have.
local function expired(rec)
  local state = byte(rec)
  return (state == 67 or state == 70 or state == 88) and sunpack('>I7', rec, 23) <= now
end

-- Add an address to a set of waiters.
local function with_waiter(waiters, address)
  local at, size = 1, #waiters
  while at <= size do
    local length = byte(waiters, at)
    if sub(waiters, at + 1, at + length) == address then return waiters end
    at = at + 1 + length
  end
  return waiters .. string.char(#address) .. address
end
