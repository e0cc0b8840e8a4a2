-- The fields that only some jobs have. Needs: base, record.
--
-- A field is tag 1, size 4, data. The tags: "g" group, always the first, "w" its weight (1; absent: 1), always behind
-- it, "h" headers, "t" task, "d" dead_letter_ttl (6; 0: it becomes no
-- letter; absent: WEEK), "l" until when a job that failed is kept (6), "s" saved by the last checkpoint, until the job
-- ends, "x" within how many milliseconds of its due time it has to start (6), which is the last field of a new job,
-- "a" a failed attempt or a stall, oldest first (at 6, attempt 4, size of worker 2, worker, error). A job without
-- any has no extras, and costs no byte for them.
local MOST_ATTEMPTS, WEEK = 20, 604800000

local function field_of(tag, data) return tag .. spack('>I4', #data) .. data end

-- The fields but the first `most` with a tag; how many those are; the data of the last of them.
local function split(extras, tag, most)
  local left, found, data, at = {}, 0, nil, 1
  while at <= #extras do
    local behind = at + 5 + sunpack('>I4', extras, at + 1)
    if found < most and sub(extras, at, at) == tag then
      found, data = found + 1, sub(extras, at + 5, behind - 1)
    else
      left[#left + 1] = sub(extras, at, behind - 1)
    end
    at = behind
  end
  return table.concat(left), found, data
end

-- Replace what the job has saved; nil: drop it.
local function save(job, data)
  if job.saving > 0 then job.extras = split(job.extras, 's', 1) end
  job.saving = data and 16 or 0
  if data then job.extras = job.extras .. field_of('s', data) end
end

-- Add an attempt that ended now with an error; the oldest one goes when there are too many.
local function add_attempt(job, error)
  local _, count = split(job.extras, 'a', math.huge)
  local kept = split(job.extras, 'a', math.max(0, count + 1 - MOST_ATTEMPTS))
  job.extras = kept .. field_of('a', spack('>I6I4I2', now, job.attempts, #job.worker) .. job.worker .. error)
end

-- Leave out what listings do not have: headers, the history, what was saved.
local function list_extras(job)
  for _, tag in ipairs({ 'h', 'a', 's' }) do job.extras = split(job.extras, tag, math.huge) end
  job.saving = 0
end

-- Until when a job is kept as a dead letter; nil if it is none.
local function letter_until(job)
  if job.state ~= 'F' or job.extras == '' then return nil end
  local _, found, letter = split(job.extras, 'l', 1)
  return found > 0 and sunpack('>I6', letter) or nil
end

-- Until when the record of an ended job is kept: a dead letter stays longer than it can be found by its id.
local function kept_until(job) return letter_until(job) or job.mark end

-- Keep a dead letter until an instant; nil: it is none any more.
local function keep_letter(job, instant)
  job.extras = split(job.extras, 'l', 1) .. (instant and field_of('l', spack('>I6', instant)) or '')
end

-- The instant from which on a job may not start; nil if it may at any time, has started once, or waits no more.
local function start_before(job)
  if job.fence > 0 or (job.state ~= 'Q' and job.state ~= 'S') or job.extras == '' then return nil end
  local _, found, within = split(job.extras, 'x', 1)
  return found > 0 and sunpack('>I6', job.core, CORE_DUE) + sunpack('>I6', within) or nil
end

-- Make a job that has failed a dead letter, unless it is to be none.
local function begin_letter(job)
  local _, found, ttl = split(job.extras, 'd', 1)
  local kept = found > 0 and sunpack('>I6', ttl) or WEEK
  keep_letter(job, kept > 0 and math.max(job.mark, now + kept) or nil)
end
