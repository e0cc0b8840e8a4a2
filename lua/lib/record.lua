-- The record of a job: packed bytes, big-endian. Needs: base.
--
-- core (43): priority h2, max_attempts 4, max_stalls 4, ttl 6, size of extras 4, spare 2, created 6, due 6, spare 2,
--     seq 7
-- short, a job that was never claimed ("q" ready, "w" ready with waiters, "e" ready with extras and maybe waiters,
-- "s" scheduled, "t" scheduled with extras):
--     state 1, core 43, size of waiters 3 | waiters, extras, payload
-- full ("Q" ready, "S" scheduled, "R" failing, "P" processing, "C" completed, "F" failed, "X" cancelled):
--     state 1, flags 1, updated 6, mark 7, attempts 4, stalls 4, fence 7, core 43,
--     sizes of waiters 3, progress 4, data 4, worker 2 | waiters, extras, progress, data, worker, payload
--
-- flags: 1 asked to cancel, 2 has waiters, 4 has progress, 8 has extras, 16 has saved something in them. Without
-- extras the bytes of their size mean nothing: version 0.1.0 had other things there. The sizes of progress and data
-- are one too large, so that 0 means absent. `mark` is the position of a ready job, the end of the lease of a
-- processing one, the expiry of an ended one. A short ready job's position is its seq. The waiters (see ended) stand
-- each after their length in one byte; the fields that only some jobs have are the extras (see extras).
-- What changes together stands together: the scripts cut records into few pieces.

-- Where what begins: in a core, in a short record, in a full one.
local CORE_STALLS, CORE_TTL, CORE_EXTRAS, CORE_CREATED, CORE_DUE, CORE_SEQ, CORE_SIZE = 7, 11, 17, 23, 29, 37, 43
local SHORT_CORE, SHORT_WAITERS, SHORT_BODY = 2, 45, 48
local FLAGS, UPDATED, MARK, ATTEMPTS, STALLS, FENCE, CORE, SIZES, BODY = 2, 3, 9, 16, 20, 24, 31, 74, 87
local SHORT_EXTRAS, SHORT_CREATED, SHORT_SEQ =
  SHORT_CORE + CORE_EXTRAS - 1, SHORT_CORE + CORE_CREATED - 1, SHORT_CORE + CORE_SEQ - 1
local EXTRAS, CREATED, SEQ, DATA_SIZE =
  CORE + CORE_EXTRAS - 1, CORE + CORE_CREATED - 1, CORE + CORE_SEQ - 1, SIZES + 7
local FENCE_END, FULL = FENCE + 6, BODY - 1

-- The state of a short record, by its letter; and the letters of the full ones.
local SHORT = { q = 'Q', w = 'Q', e = 'Q', s = 'S', t = 'S' }
local LETTERS = 'QSRPCFX'

-- Whether extras that begin somewhere in a record have fields that fit: tag 1, size 4, data.
local function fits(rec, at, size)
  local last = at + size
  while at < last do
    if at + 5 > last then return false end
    local tag, length = byte(rec, at), sunpack('>I4', rec, at + 1)
    at = at + 5
    if (tag == 100 or tag == 108 or tag == 120) and length ~= 6 then return false end -- "d", "l" and "x"
    if tag == 97 then -- "a": see extras
      if length < 12 or at + 12 > last or sunpack('>I2', rec, at + 10) + 12 > length then return false end
    end
    at = at + length
  end
  return at == last
end

-- Whether a record can be read: what foreign hands have cut or written is left out, and shown by fsck.
local function sound(rec)
  local state, size = sub(rec, 1, 1), #rec
  if SHORT[state] then
    if size < SHORT_BODY - 1 then return false end
    local body = SHORT_BODY + sunpack('>I3', rec, SHORT_WAITERS)
    if state ~= 'e' and state ~= 't' then return size >= body - 1 end
    local extras = sunpack('>I4', rec, SHORT_EXTRAS)
    return size >= body + extras - 1 and fits(rec, body, extras)
  end
  if size < FULL or state == '' or not string.find(LETTERS, state, 1, true) then return false end
  local waiters, progress, data, worker = sunpack('>I3I4I4I2', rec, SIZES)
  local extras = byte(rec, FLAGS) % 16 >= 8 and sunpack('>I4', rec, EXTRAS) or 0
  return size >= FULL + waiters + extras + math.max(0, progress - 1) + math.max(0, data - 1) + worker
    and (extras == 0 or fits(rec, BODY + waiters, extras))
end

-- Leave a job where it is, in no index: nobody can run it. It is taken from an index once, and so told once.
local function set_aside(key, id)
  redis.log(redis.LOG_WARNING, 'jobqueue: a record in ' .. key .. ' cannot be read: run jobqueue fsck; its id: ' .. id)
end

local function parse(rec)
  local state, at = sub(rec, 1, 1), SHORT_BODY
  local function field(size)
    at = at + size
    return sub(rec, at - size, at - 1)
  end
  if SHORT[state] then
    local extras = (state == 'e' or state == 't') and sunpack('>I4', rec, SHORT_EXTRAS) or 0
    local job = {
      state = SHORT[state], attempts = 0, stalls = 0, fence = 0, updated = sunpack('>I6', rec, SHORT_CREATED),
      mark = sunpack('>I7', rec, SHORT_SEQ), cancelling = 0, saving = 0,
      core = sub(rec, SHORT_CORE, SHORT_WAITERS - 1), worker = '',
    }
    job.waiters, job.extras = field(sunpack('>I3', rec, SHORT_WAITERS)), field(extras)
    job.payload = sub(rec, at)
    return job
  end
  local flags = byte(rec, FLAGS)
  local job = {
    state = state, core = sub(rec, CORE, SIZES - 1), cancelling = flags % 2, saving = flags % 32 >= 16 and 16 or 0,
  }
  job.updated, job.mark, job.attempts, job.stalls, job.fence = sunpack('>I6I7I4I4I7', rec, UPDATED)
  local waiters, progress, data, worker = sunpack('>I3I4I4I2', rec, SIZES)
  at = BODY
  job.waiters = field(waiters)
  job.extras = field(flags % 16 >= 8 and sunpack('>I4', rec, EXTRAS) or 0)
  if progress > 0 then job.progress = field(progress - 1) end
  if data > 0 then job.data = field(data - 1) end
  job.worker = field(worker)
  job.payload = sub(rec, at)
  return job
end

local function build(job)
  local waiters, extras, progress, data, worker = job.waiters, job.extras, job.progress, job.data, job.worker
  local flags, core = job.cancelling + job.saving + (waiters == '' and 0 or 2) + (progress and 4 or 0), job.core
  if extras ~= '' then
    flags = flags + 8
    core = sub(core, 1, CORE_EXTRAS - 1) .. spack('>I4', #extras) .. sub(core, CORE_EXTRAS + 4)
  end
  return job.state
    .. spack('>BI6I7I4I4I7', flags, job.updated, job.mark, job.attempts, job.stalls, job.fence) .. core
    .. spack('>I3I4I4I2', #waiters, progress and #progress + 1 or 0, data and #data + 1 or 0, #worker)
    .. waiters .. extras .. (progress or '') .. (data or '') .. worker .. job.payload
end

local function priority_of(job) return (sunpack('>h', job.core, 1)) end
local function set_due(job, due)
  job.core = sub(job.core, 1, CORE_DUE - 1) .. spack('>I6', due) .. sub(job.core, CORE_DUE + 6)
end
local function set_seq(job, seq) job.core = sub(job.core, 1, CORE_SEQ - 1) .. spack('>I7', seq) end
local function seq_of(job) return sub(job.core, CORE_SEQ, CORE_SIZE) end

-- Whether an ended record has expired; live ones never have. (A failed one may still be a dead letter: see extras.)
local function expired(rec)
  local state = byte(rec)
  return (state == 67 or state == 70 or state == 88) and sunpack('>I7', rec, MARK) <= now
end
